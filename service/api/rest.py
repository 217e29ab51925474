"""`/v1`: structures in, results with units out; JSON for people, tensors for programs, extended XYZ for files."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from understudy.framing import HEADER_LENGTH, encode
from understudy.framing import MEDIA_TYPE as BINARY
from understudy.receipts import HEADER, short_form

from contract.structures import Structure
from contract.units import POTENTIAL_SIGNS, POTENTIAL_UNITS
from service.access import tenant_of
from service.api.admin import versions_of
from service.api.body import read_body
from service.api.framed import apart_if_large, read_framed, teacher_tensors_of, tensors_of
from service.api.leaving import unless_caller_leaves
from service.api.parse import CHOICES, choices_of, json_object, refuse_unknown, structures_from_json
from service.api.xyz import structures_from_xyz
from service.errors import BadRequest, UnknownOutput, UnsupportedMediaType
from service.models import FieldModel, Model
from service.plane import MEMBER_OUTPUTS, OPTIONAL_OUTPUTS, Answer, Options, Plane
from service.receipts import receipt_of
from service.settings import Limits
from service.trust import uncertainty_of

JSON: Final = "application/json"
XYZ: Final = "chemical/x-xyz"
OPTIONS: Final = ("outputs", "version", "timeout_s", "deterministic", *CHOICES)
_UNITS: Final = {name: unit for name, unit in POTENTIAL_UNITS.items() if name != "virial"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, whatever the body was."""

    structures: list[Structure]
    version: str | None = None
    outputs: frozenset[str] = frozenset()
    timeout_s: float | None = None
    deterministic: bool = False
    choices: Mapping[str, Any] = field(default_factory=dict)


async def predict(request: Request) -> Response:
    """Energy, forces, stress, committee standard deviation and domain verdict of structures."""
    plane: Plane = request.app.state.plane
    plane.models.refuse_unknown(request.path_params["model"], Model)  # before a body is read
    media_type = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    asked = await _reader(media_type)(request, plane.limits)
    options = Options(
        version=asked.version,
        forces_std=not MEMBER_OUTPUTS.isdisjoint(asked.outputs),
        timeout_s=asked.timeout_s,
        caller=request.scope.get("client"),
        deterministic=asked.deterministic,
        tenant=tenant_of(request.scope),
        **asked.choices,
    )
    work = plane.predict(request.path_params["model"], asked.structures, options)
    answer = await unless_caller_leaves(request, work)
    if _wants_binary(request.headers.get("accept", "*/*"), media_type):
        return _binary_response(answer, asked.outputs)
    said = json_answer(answer, asked.outputs)
    return json_response(said, {HEADER: short_form(said["receipt"])})


async def list_models(request: Request) -> Response:
    """The models that are served."""
    plane: Plane = request.app.state.plane
    potentials = [summary(model) for model in plane.models.potentials]
    return json_response({"models": [*potentials, *(field_summary(model) for model in plane.models.fields)]})


async def show_model(request: Request) -> Response:
    """The whole card of a model, how it stands with its versions, and what live traffic shows of it."""
    plane: Plane = request.app.state.plane
    model = plane.models.get(request.path_params["model"], request.query_params.get("version"))
    said: dict[str, Any] = {"digest": model.stored.digest}
    if isinstance(model, Model):
        said["on_live_traffic"] = {"teacher": plane.teachers.summary(model)}
    versions = versions_of(request.app.state.operator, model.card.name)
    return json_response({**model.card.model_dump(mode="json"), **said, **versions})


async def show_limits(request: Request) -> Response:
    """What one request may hold, and what each model takes."""
    plane: Plane = request.app.state.plane
    models = {model.card.name: {"neighbour_slots": model.card.max_slots} for model in plane.models.potentials}
    fields = {model.card.name: {"voxels": model.card.max_voxels} for model in plane.models.fields}
    return json_response({**plane.limits.model_dump(), "models": {**models, **fields}})


def summary(model: Model) -> dict[str, Any]:
    """One line of the list of models."""
    card = model.card
    return {
        "name": card.name,
        "family": card.family,
        "version": card.version,
        "digest": model.stored.digest,
        "purpose": card.purpose,
        "elements": card.domain.elements,
        "formulas": card.domain.formulas,
        "beads": {symbol: bead.label for symbol, bead in card.domain.beads.items()},
        "periodic": card.domain.periodic,
        "cutoff_angstrom": card.domain.cutoff_angstrom,
        "members": card.committee.members,
        "teacher": None if card.teacher is None else card.teacher.name,
        "licence": card.licence,
    }


def field_summary(model: FieldModel) -> dict[str, Any]:
    """The same for a model of flow."""
    card = model.card
    return {
        "name": card.name,
        "family": card.family,
        "version": card.version,
        "digest": model.stored.digest,
        "purpose": card.purpose,
        "porosity": card.domain.porosity,
        "members": card.committee.members,
        "licence": card.licence,
    }


async def _read_json(request: Request, limits: Limits) -> Asked:
    body = await read_body(request, limits.json_bytes, limits)

    def parse() -> Asked:
        asked = json_object(body, ("structures", *OPTIONS))
        return asked_of(asked, structures_from_json(asked.get("structures"), limits), request)

    return await apart_if_large(len(body), parse)


async def _read_binary(request: Request, limits: Limits) -> Asked:
    framed = await read_framed(request, limits)
    refuse_unknown(framed.head, ("inputs", *OPTIONS), "the head")
    return asked_of(framed.head, framed.structures, request)


async def _read_xyz(request: Request, limits: Limits) -> Asked:
    body = await read_body(request, limits.xyz_bytes, limits)
    structures = await apart_if_large(len(body), lambda: structures_from_xyz(body, limits))
    return asked_of({}, structures, request)


_READERS: Final[dict[str, Callable[[Request, Limits], Awaitable[Asked]]]] = {
    JSON: _read_json,
    BINARY: _read_binary,
    XYZ: _read_xyz,
    "chemical/x-extxyz": _read_xyz,
}


def _reader(media_type: str) -> Callable[[Request, Limits], Awaitable[Asked]]:
    if media_type not in _READERS:
        raise UnsupportedMediaType(
            f"Content-Type '{media_type[:60]}' is not read here.",
            hint=f"Send one of {', '.join(_READERS)}; with curl: -H 'Content-Type: {JSON}'.",
            headers={"Accept": ", ".join(_READERS)},
            expected=list(_READERS),
        )
    return _READERS[media_type]


def asked_of(said: dict[str, Any], structures: list[Structure], request: Request) -> Asked:
    """Options from the body or, for bodies that cannot hold any, from the query."""
    if request.scope["query_string"]:
        query = request.query_params
        names = [name for part in query.getlist("outputs") for name in part.split(",")]
        said = {"outputs": names, **{name: query[name] for name in OPTIONS[1:] if name in query}, **said}
    timeout_s = said.get("timeout_s")
    return Asked(
        structures,
        _version(said.get("version")),
        _outputs(said.get("outputs", [])),
        None if timeout_s is None else _seconds(timeout_s),
        _flag(said.get("deterministic", False), "deterministic"),
        choices_of(said),
    )


def _version(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"version is {str(value)[:40]}.", hint='Give a string, such as "2".', field="version")
    return value


def _outputs(names: Any) -> frozenset[str]:
    if not isinstance(names, list) or not all(name in OPTIONAL_OUTPUTS for name in names):
        raise UnknownOutput(
            f"outputs is {str(names)[:80]}.",
            hint=f"Give a list of what you want beside energy, forces and stress: {', '.join(OPTIONAL_OUTPUTS)}.",
            field="outputs",
            expected=list(OPTIONAL_OUTPUTS),
        )
    return frozenset(names)


def _flag(value: Any, field: str) -> bool:
    known = {"true": True, "false": False}
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value not in known:
        raise BadRequest(f"{field} is {str(value)[:40]}.", hint="Give true or false.", field=field)
    return known[value]


def _seconds(value: Any) -> float:
    try:
        seconds = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else 0.0
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise BadRequest(
            f"timeout_s is {str(value)[:40]}.", hint="Give a positive number of seconds.", field="timeout_s"
        )
    return seconds


def _wants_binary(accept: str, media_type: str) -> bool:
    if BINARY in accept:
        return True
    return media_type == BINARY and JSON not in accept and "*/*" in accept


def _head(answer: Answer, receipt: dict[str, Any], results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    card = answer.model.card
    return {
        "model": card.name,
        "version": card.version,
        "digest": answer.model.stored.digest,
        "units": _UNITS,
        "signs": POTENTIAL_SIGNS,
        "uncertainty": uncertainty_of(card.committee),
        "receipt": receipt,
        "results": results,
    }


def _scalars(answer: Answer, place: int) -> dict[str, Any]:
    """What is small in the answer for one structure."""
    prediction, options = answer.predictions[place], answer.options
    said: dict[str, Any] = {
        "energy": prediction.energy,
        "energy_std": prediction.energy_std,
        "domain": prediction.domain,
    }
    if options.on_out_of_domain != "answer":
        said["flags"] = answer.flags[place]
    if options.escalate != "never":
        said["answered_by"] = _weights(answer.answered_by(place))
    if place in answer.opinions:
        opinion = answer.opinions[place]
        teacher = {"energy": opinion.teacher.energy, "energy_std": opinion.teacher.energy_std, "gap": opinion.gap}
        said["teacher"] = {**_weights(opinion.model), **teacher}
    return said


def _weights(model: Model) -> dict[str, Any]:
    return {
        "model": model.card.name,
        "version": model.card.version,
        "digest": model.stored.digest,
        "uncertainty": uncertainty_of(model.card.committee),
    }


def json_answer(answer: Answer, outputs: frozenset[str]) -> dict[str, Any]:
    """An answer wholly as JSON, see `understudy.wire.PredictionAnswer`."""
    results = [_result(answer, place, outputs) for place in range(len(answer.predictions))]
    return _head(answer, receipt_of(answer), results)


def _result(answer: Answer, place: int, outputs: frozenset[str]) -> dict[str, Any]:
    prediction = answer.predictions[place]
    result = {**_scalars(answer, place), "forces": prediction.forces}
    if answer.options.check is not None:
        result["teacher"]["forces"] = answer.opinions[place].teacher.forces
    if prediction.stress is not None:
        result["stress"] = prediction.stress
    for name in outputs:
        value = getattr(prediction, name)
        if value is not None:
            result[name] = value
    return result


def _binary_response(answer: Answer, outputs: frozenset[str]) -> Response:
    make = {**tensors_of(answer.predictions), **teacher_tensors_of(answer)}
    names = ["energy", "forces", "energy_std", "stress", *sorted(outputs)]
    names += ["teacher_energy", "teacher_forces"] if answer.options.check is not None else []
    made = {name: make[name]() for name in names}
    tensors = {name: array for name, array in made.items() if array is not None}
    receipt = receipt_of(answer)
    head = _head(answer, receipt, [_scalars(answer, place) for place in range(len(answer.predictions))])
    body, length = encode(head, tensors, field="outputs", dumps=orjson.dumps)
    return Response(body, media_type=BINARY, headers={HEADER_LENGTH: str(length), HEADER: short_form(receipt)})


def json_response(value: Any, headers: Mapping[str, str] | None = None) -> Response:
    """A value, NumPy arrays included, as a JSON body."""
    return Response(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), headers=headers, media_type=JSON)
