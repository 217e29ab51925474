"""The Open Inference Protocol (KServe v2) as the domain speaks it: tensors, outputs and descriptions, on every wire.

The tensors are the domain's: structures in, the gateway builds neighbour lists. So an unmodified tritonclient asks for
energies and forces without knowing what a graph is. Source: https://github.com/kserve/open-inference-protocol.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from understudy.errors import FramingError
from understudy.framing import Array, Head

from contract.structures import Structure
from service.api.framed import teacher_tensors_of, tensors_of
from service.api.kserve_tensors import (
    OF_A_VOLUME,
    SILENT_FIELDS,
    TEACHER,
    Tensor,
    inputs_of,
    listed_outputs,
    outputs_of,
    platform_of,
)
from service.api.parse import choices_of
from service.errors import UnknownOutput
from service.meters import Duration
from service.models import Models, Served
from service.plane import MEMBER_OUTPUTS, Answer, Options
from service.tenants import Priority, Tenant

NAME: Final = "understudy"


_DURATIONS: Final = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")


@dataclass(frozen=True, slots=True)
class Asked:
    """The rest of an infer request, beside its structures.

    Attributes:
        named: the caller listed the outputs, so that one which these structures do not have is an error.
    """

    id: str | None
    outputs: tuple[Tensor, ...]
    as_json: frozenset[str]
    timeout_s: float | None
    deterministic: bool
    choices: Mapping[str, Any]
    named: bool

    def wants(self, name: str) -> bool:
        """Whether an output belongs to the answer."""
        return any(tensor.name == name for tensor in self.outputs)

    def options(self, caller: Hashable, tenant: Tenant, timeout_s: float | None) -> Options:
        """What the plane is asked, by whom and until when."""
        return Options(
            forces_std=any(self.wants(name) for name in MEMBER_OUTPUTS),
            timeout_s=timeout_s,
            caller=caller,
            deterministic=self.deterministic,
            tenant=tenant,
            **self.choices,
        )


def metadata_of(model: Served, models: Models) -> dict[str, Any]:
    """A model's tensors, and the versions of it that can be asked."""
    return {
        "name": model.card.name,
        "versions": [each.version for each in models.loaded(model.card.name)],
        "platform": platform_of(model),
        "inputs": [tensor.metadata() for tensor in inputs_of(model)],
        "outputs": [tensor.metadata() for tensor in listed_outputs(model)],
    }


def config_of(model: Served) -> dict[str, Any]:
    """A model as Triton's configuration describes one; load testers ask for it."""
    return {
        "name": model.card.name,
        "platform": platform_of(model),
        "backend": NAME,
        "version_policy": {"specific": {"versions": [int(model.card.version)]}},
        "max_batch_size": 0,
        "input": [tensor.config() for tensor in inputs_of(model)],
        "output": [tensor.config() for tensor in listed_outputs(model)],
    }


def index_of(models: Models, ready_only: bool) -> list[dict[str, str]]:
    """Every version that is known, and whether it can be asked, as Triton's repository index lists them."""
    return [
        {"name": s.name, "version": s.version, "state": s.state, "reason": s.reason}
        for s in models.index()
        if s.state == "READY" or not ready_only
    ]


def statistics_of(model: Served) -> dict[str, Any]:
    """What a model has done since the start, over every protocol.

    Source: https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_statistics.md. Counts of
    durations are requests; a request is charged the whole time of each engine call that it was in.
    """
    counts = [lane.counts for lane in model.lanes.values()]
    meters = [lane.meter for lane in model.lanes.values()]
    return {
        "name": model.card.name,
        "version": model.card.version,
        "inference_count": sum(count.samples for count in counts),
        "execution_count": sum(count.batches for count in counts),
        "inference_stats": {name: _duration(getattr(meter, name) for meter in meters) for name in _DURATIONS},
    }


def _duration(durations: Iterable[Duration]) -> dict[str, int]:
    known = list(durations)
    return {"count": sum(d.count for d in known), "ns": round(1e9 * sum(d.seconds for d in known))}


def read_asked(head: Head, model: Served, id_bytes: int) -> Asked:
    """Id, outputs and parameters of a request, from the JSON head or what is equal to it.

    Raises:
        UnknownOutput: naming the outputs that there are.
        FramingError: something is not of the kind that the protocol says.
    """
    parameters = _object(head.get("parameters", {}), "parameters")
    entries = head.get("outputs")
    binary = _flag(parameters.get("binary_data_output", False), "binary_data_output")
    chosen = {"priority": _priority(parameters), **choices_of(parameters, "us_")}
    there = {tensor.name: tensor for tensor in outputs_of(model)}
    if entries is None:
        silent = {*MEMBER_OUTPUTS, *(() if "check" in chosen else TEACHER), *SILENT_FIELDS}
        tensors = tuple(tensor for tensor in there.values() if tensor.name not in silent)
        as_json = frozenset() if binary else frozenset(there)
    else:
        choices = [_output(entry, there, binary) for entry in _list(entries, "outputs")]
        tensors = tuple(tensor for tensor, _ in choices)
        as_json = frozenset(tensor.name for tensor, is_binary in choices if not is_binary)
    timeout_s = _timeout_s(parameters.get("timeout"))
    deterministic = _flag(parameters.get("us_deterministic", False), "us_deterministic")
    if any(tensor.name in TEACHER for tensor in tensors):
        chosen["check"] = "teacher"
    named = entries is not None
    return Asked(_id(head.get("id"), id_bytes), tensors, as_json, timeout_s, deterministic, chosen, named)


def refuse_missing(asked: Asked, structures: Sequence[Structure]) -> None:
    """Refuse an output by name that these structures do not have: stress without a volume.

    Raises:
        UnknownOutput: naming the structure.
    """
    if not (asked.named and any(asked.wants(name) for name in OF_A_VOLUME)):
        return
    for index, structure in enumerate(structures):
        if not structure.fully_periodic:
            raise UnknownOutput(
                f"structures[{index}] has no stress: it is not periodic in three directions.",
                hint="Ask for stress only where every structure of the request has a volume.",
                field="outputs",
                index=index,
            )


def answered_tensors(answer: Answer, asked: Asked) -> dict[str, Array]:
    """The tensors that were asked for and that the structures have, in the order asked."""
    make = {**tensors_of(answer.predictions), **teacher_tensors_of(answer)}
    made = {tensor.name: make[tensor.source or tensor.name]() for tensor in asked.outputs}
    return {name: array for name, array in made.items() if array is not None}


def answered_parameters(answer: Answer, receipt: dict[str, Any]) -> dict[str, str]:
    """What an answer says beside its tensors: whose weights, why structures are out of the domain, and its receipt."""
    reasons = [
        f"structures[{index}]: {reason}"
        for index, prediction in enumerate(answer.predictions)
        for reason in prediction.domain.reasons
    ]
    flags = [f"structures[{place}]: {flag}" for place, flags in enumerate(answer.flags) for flag in flags]
    by_teacher = [
        f"structures[{place}]: {answer.opinions[place].model.card.name} {answer.opinions[place].model.stored.digest}"
        for place in sorted(answer.escalated)
    ]
    return {
        "us_digest": answer.model.stored.digest,
        "us_domain_reasons": "\n".join(reasons),
        **({"us_flags": "\n".join(flags)} if answer.options.on_out_of_domain != "answer" else {}),
        **({"us_answered_by": "\n".join(by_teacher)} if by_teacher else {}),
        "us_receipt": orjson.dumps(receipt).decode(),
    }


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


def _priority(parameters: Mapping[str, Any]) -> Priority:
    """`priority` as Triton counts: 0 is the usual one, 1 the highest; `us_priority` has the names.

    Source: ModelQueuePolicy in https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto.
    """
    level = parameters.get("priority", 0)
    if not isinstance(level, int) or isinstance(level, bool) or level < 0:
        raise _malformed("parameters.priority", "a whole number: 0 or 1 for interactive, 2 or more for bulk")
    return "interactive" if level <= 1 else "bulk"


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
