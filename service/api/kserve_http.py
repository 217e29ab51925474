"""`/v2`: the Open Inference Protocol (KServe v2) over HTTP, with Triton's binary tensors and config."""

from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response
from understudy.framing import HEADER_LENGTH, Array, encode
from understudy.framing import MEDIA_TYPE as BINARY
from understudy.receipts import HEADER, short_form

from service.access import tenant_of
from service.api.body import read_body
from service.api.framed import read_framed, read_tensors
from service.api.kserve import (
    NAME,
    Asked,
    answered_parameters,
    answered_tensors,
    config_of,
    index_of,
    metadata_of,
    read_asked,
    refuse_missing,
    statistics_of,
)
from service.api.kserve_fields import answer_field
from service.api.leaving import unless_caller_leaves
from service.api.parse import json_object
from service.errors import NotReady
from service.models import FieldModel, Served
from service.plane import Plane
from service.receipts import receipt_of
from service.version import VERSION

EXTENSIONS: Final = ["binary_tensor_data", "model_configuration", "statistics"]
JSON: Final = "application/json"


async def live(request: Request) -> Response:
    """Whether the process answers."""
    return Response(status_code=200)


async def ready(request: Request) -> Response:
    """Whether the gateway is started, some model is loaded and warm, and its engine is there."""
    _refuse_if_not_ready(request)
    if not any(request.app.state.plane.models):
        raise NotReady("No model is loaded.", hint="Its operator loads one with: understudy models load NAME.")
    _refuse_without_engine(request)
    return Response(status_code=200)


async def server_metadata(request: Request) -> Response:
    """Name, version and extensions of the gateway."""
    return _json({"name": NAME, "version": VERSION, "extensions": EXTENSIONS})


async def model_metadata(request: Request) -> Response:
    """A model's versions and tensors."""
    return _json(metadata_of(_model(request), request.app.state.plane.models))


async def model_ready(request: Request) -> Response:
    """Whether a version of a model can be asked."""
    _refuse_if_not_ready(request)
    _model(request)
    _refuse_without_engine(request)
    return Response(status_code=200)


async def model_config(request: Request) -> Response:
    """A model as Triton's configuration describes one; load testers ask for it."""
    return _json(config_of(_model(request)))


async def repository_index(request: Request) -> Response:
    """Every version that is known, and whether it can be asked."""
    plane: Plane = request.app.state.plane
    body = await read_body(request, plane.limits.json_bytes, plane.limits)
    ready_only = json_object(body, ("ready", "repository_name")).get("ready", False) if body else False
    return _json(index_of(plane.models, ready_only is True))


async def model_statistics(request: Request) -> Response:
    """Requests, structures, engine calls and their times, of a version or of all."""
    plane: Plane = request.app.state.plane
    models = [_model(request)] if "model" in request.path_params else list(plane.models.every())
    return _json({"model_stats": [statistics_of(model) for model in models]})


async def infer(request: Request) -> Response:
    """Energies, forces and what else is asked for, of concatenated structures; of a rock image, its permeability."""
    plane: Plane = request.app.state.plane
    model = _model(request)
    if isinstance(model, FieldModel):
        return await _infer_field(request, plane, model)
    model = plane.models.potential(model.card.name, model.version)
    framed = await read_framed(request, plane.limits)
    asked = read_asked(framed.head, model, plane.limits.id_bytes)
    refuse_missing(asked, framed.structures)
    options = asked.options(request.scope.get("client"), tenant_of(request.scope), asked.timeout_s)
    answer = await unless_caller_leaves(request, plane.predict(model, framed.structures, options))
    receipt = receipt_of(answer)
    return _response(model, asked, answered_parameters(answer, receipt), answered_tensors(answer, asked), receipt)


async def _infer_field(request: Request, plane: Plane, model: FieldModel) -> Response:
    head, tensors = await read_tensors(request, plane.limits)
    asked = read_asked(head, model, plane.limits.id_bytes)
    who = (request.scope.get("client"), tenant_of(request.scope))
    work = answer_field(plane, model, tensors, asked, who, asked.timeout_s)
    reply = await unless_caller_leaves(request, work)
    return _response(model, asked, reply.parameters, reply.tensors, reply.receipt)


def _refuse_if_not_ready(request: Request) -> None:
    if not getattr(request.app.state, "ready", False):
        raise NotReady("The gateway is starting or shutting down.", hint="Ask again.", headers={"Retry-After": "1"})


def _refuse_without_engine(request: Request) -> None:
    plane: Plane = request.app.state.plane
    if not plane.engine_is_there():
        raise NotReady("No server that runs the models is there.", hint="Ask again.", headers={"Retry-After": "1"})


def _response(
    model: Served, asked: Asked, parameters: dict[str, str], tensors: dict[str, Array], receipt: dict[str, Any]
) -> Response:
    named = {} if asked.id is None else {"id": asked.id}
    head = {"model_name": model.card.name, "model_version": model.card.version, **named, "parameters": parameters}
    said = {HEADER: short_form(receipt)}
    body, length = encode(head, tensors, field="outputs", as_json=asked.as_json, dumps=orjson.dumps)
    if length == len(body):
        return Response(body, media_type=JSON, headers=said)
    return Response(body, media_type=BINARY, headers={HEADER_LENGTH: str(length), **said})


def _model(request: Request) -> Served:
    plane: Plane = request.app.state.plane
    return plane.models.get(request.path_params["model"], request.path_params.get("version"))


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type=JSON)
