"""`/v2`: the Open Inference Protocol (KServe v2) over HTTP, with Triton's binary tensors and config.

The tensors are the domain's: structures in, the gateway builds neighbour lists. So an unmodified tritonclient asks for
energies and forces without knowing what a graph is. Source: https://github.com/kserve/open-inference-protocol.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from understudy.errors import FramingError
from understudy.framing import HEADER_LENGTH, Array, Head, encode
from understudy.framing import MEDIA_TYPE as BINARY

from contract.structures import Structure
from service.api.framed import read_framed, tensors_of
from service.api.leaving import unless_caller_leaves
from service.errors import NotReady, UnknownOutput
from service.models import MEMBERS, Model
from service.plane import Answer, Options, Plane
from service.version import VERSION

EXTENSIONS: Final = ["binary_tensor_data", "model_configuration"]
JSON: Final = "application/json"


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the domain's signature; -1 is a free size."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    optional: bool = False
    source: str = ""

    def metadata(self) -> dict[str, Any]:
        """As `/v2/models/{model}` describes it."""
        return {"name": self.name, "datatype": self.datatype, "shape": self.shape}

    def config(self) -> dict[str, Any]:
        """As Triton's model configuration describes it."""
        kind = {"name": self.name, "data_type": f"TYPE_{self.datatype}", "dims": self.shape}
        return {**kind, "optional": True} if self.optional else kind


INPUTS: Final = (
    Tensor("numbers", "INT64", (-1,)),
    Tensor("positions", "FP64", (-1, 3)),
    Tensor("natoms", "INT64", (-1,), optional=True),
    Tensor("cell", "FP64", (-1, 3, 3), optional=True),
    Tensor("pbc", "BOOL", (-1, 3), optional=True),
)
_OUTPUTS: Final = (
    Tensor("energy", "FP64", (-1,)),
    Tensor("forces", "FP32", (-1, 3)),
    Tensor("virial", "FP64", (-1, 3, 3)),
    Tensor("in_domain", "BOOL", (-1,)),
    Tensor("atomic_energy", "FP64", (-1,), source="atomic_energies"),
)
_COMMITTEE_OUTPUTS: Final = (Tensor("energy_std", "FP64", (-1,)),)
_MEMBER_OUTPUTS: Final = (Tensor("forces_std", "FP32", (-1, 3)),)
_PERIODIC_OUTPUTS: Final = (Tensor("stress", "FP64", (-1, 6)),)
_ON_REQUEST: Final = {"forces_std"}


@dataclass(frozen=True, slots=True)
class Asked:
    """The rest of an infer request, beside its structures."""

    id: str | None
    outputs: tuple[Tensor, ...]
    as_json: frozenset[str]
    timeout_s: float | None


async def live(request: Request) -> Response:
    """Whether the process answers."""
    return Response(status_code=200)


async def ready(request: Request) -> Response:
    """Whether every model is loaded and warm."""
    if not getattr(request.app.state, "ready", False):
        raise NotReady("The gateway is starting or shutting down.", hint="Ask again.", headers={"Retry-After": "1"})
    return Response(status_code=200)


async def server_metadata(request: Request) -> Response:
    """Name, version and extensions of the gateway."""
    return _json({"name": "understudy", "version": VERSION, "extensions": EXTENSIONS})


async def model_metadata(request: Request) -> Response:
    """A model's versions and tensors."""
    model = _model(request)
    return _json(
        {
            "name": model.card.name,
            "versions": [model.card.version],
            "platform": "understudy_potential",
            "inputs": [tensor.metadata() for tensor in INPUTS],
            "outputs": [tensor.metadata() for tensor in outputs_of(model)],
        }
    )


async def model_ready(request: Request) -> Response:
    """Whether a model can be asked."""
    _model(request)
    return await ready(request)


async def model_config(request: Request) -> Response:
    """A model as Triton's configuration describes one; load testers ask for it."""
    model = _model(request)
    return _json(
        {
            "name": model.card.name,
            "platform": "understudy_potential",
            "backend": "understudy",
            "version_policy": {"specific": {"versions": [int(model.card.version)]}},
            "max_batch_size": 0,
            "input": [tensor.config() for tensor in INPUTS],
            "output": [tensor.config() for tensor in outputs_of(model)],
        }
    )


async def infer(request: Request) -> Response:
    """Energies, forces and what else is asked for, of concatenated structures."""
    plane: Plane = request.app.state.plane
    model = _model(request)
    framed = await read_framed(request, plane.limits)
    asked = read_asked(framed.head, model, plane.limits.id_bytes)
    wanted = {tensor.name for tensor in asked.outputs}
    if "outputs" in framed.head and "stress" in wanted:
        _refuse_stress(framed.structures)
    options = Options(model.card.version, "forces_std" in wanted, asked.timeout_s, request.scope.get("client"))
    answer = await unless_caller_leaves(request, plane.predict(model.card.name, framed.structures, options))
    return _response(answer, asked)


def outputs_of(model: Model) -> tuple[Tensor, ...]:
    """The outputs that a model has."""
    committee = _COMMITTEE_OUTPUTS if model.card.committee.members > 1 else ()
    members = _MEMBER_OUTPUTS if MEMBERS in model.lanes else ()
    return (*_OUTPUTS, *committee, *members, *_PERIODIC_OUTPUTS)


def read_asked(head: Head, model: Model, id_bytes: int) -> Asked:
    """Id, outputs and parameters of a request.

    Raises:
        UnknownOutput: naming the outputs that there are.
        FramingError: something is not of the kind that the protocol says.
    """
    parameters = _object(head.get("parameters", {}), "parameters")
    entries = head.get("outputs")
    binary = _flag(parameters.get("binary_data_output", False), "binary_data_output")
    there = {tensor.name: tensor for tensor in outputs_of(model)}
    if entries is None:
        tensors = tuple(tensor for tensor in there.values() if tensor.name not in _ON_REQUEST)
        as_json = frozenset() if binary else frozenset(there)
    else:
        choices = [_output(entry, there, binary) for entry in _list(entries, "outputs")]
        tensors = tuple(tensor for tensor, _ in choices)
        as_json = frozenset(tensor.name for tensor, is_binary in choices if not is_binary)
    return Asked(_id(head.get("id"), id_bytes), tensors, as_json, _timeout_s(parameters.get("timeout")))


def _output(entry: Any, there: Mapping[str, Tensor], binary: bool) -> tuple[Tensor, bool]:
    name = _object(entry, "outputs[]").get("name")
    if not isinstance(name, str) or name not in there:
        raise UnknownOutput(
            f"There is no output '{str(name)[:60]}'.",
            hint=f"Outputs of this model: {', '.join(there)}.",
            field="outputs",
            expected=list(there),
        )
    parameters = _object(entry.get("parameters", {}), "outputs[].parameters")
    return there[name], _flag(parameters.get("binary_data", binary), "binary_data")


def _refuse_stress(structures: Sequence[Structure]) -> None:
    for index, structure in enumerate(structures):
        if not structure.fully_periodic:
            raise UnknownOutput(
                f"structures[{index}] has no stress: it is not periodic in three directions.",
                hint="Ask for stress only where every structure of the request has a volume.",
                field="outputs",
                index=index,
            )


def _response(answer: Answer, asked: Asked) -> Response:
    make = tensors_of(answer.predictions)
    tensors: dict[str, Array] = {}
    for tensor in asked.outputs:
        array = make[tensor.source or tensor.name]()
        if array is not None:
            tensors[tensor.name] = array
    head = _head(answer, asked.id)
    body, length = encode(head, tensors, field="outputs", as_json=asked.as_json, dumps=orjson.dumps)
    if length == len(body):
        return Response(body, media_type=JSON)
    return Response(body, media_type=BINARY, headers={HEADER_LENGTH: str(length)})


def _head(answer: Answer, request_id: str | None) -> dict[str, Any]:
    reasons = [
        f"structures[{index}]: {reason}"
        for index, prediction in enumerate(answer.predictions)
        for reason in prediction.domain.reasons
    ]
    parameters = {"us_digest": answer.model.stored.digest, "us_domain_reasons": "\n".join(reasons)}
    named = {} if request_id is None else {"id": request_id}
    return {
        "model_name": answer.model.card.name,
        "model_version": answer.model.card.version,
        **named,
        "parameters": parameters,
    }


def _model(request: Request) -> Model:
    plane: Plane = request.app.state.plane
    return plane.models.get(request.path_params["model"], request.path_params.get("version"))


def _id(value: Any, limit: int) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value.encode()) > limit):
        raise _malformed("id", f"a string of at most {limit} bytes")
    return value


def _timeout_s(microseconds: Any) -> float | None:
    if microseconds is None:
        return None
    if not isinstance(microseconds, int) or isinstance(microseconds, bool) or microseconds < 0:
        raise _malformed("parameters.timeout", "a whole number of microseconds")
    return microseconds / 1e6 or None


def _object(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _malformed(name, "an object")
    return value


def _list(value: Any, name: str) -> Sequence[Any]:
    if not isinstance(value, list):
        raise _malformed(name, "a list")
    return value


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise _malformed(name, "true or false")
    return value


def _malformed(name: str, expected: str) -> FramingError:
    return FramingError("malformed_request", f"'{name}' must be {expected}.", expected=expected)


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type=JSON)
