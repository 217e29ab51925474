"""`/v1/fields/{model}`: a rock image in; permeability as JSON, the flow field as a file or a slice as PNG out."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from understudy.receipts import HEADER, short_form

from service.access import tenant_of
from service.api.body import read_body
from service.api.edge import log_fault
from service.api.field_answers import said_beside_field, said_of, slice_of
from service.api.field_files import WRITERS
from service.api.images import RAW, Content, labels_of
from service.api.leaving import unless_caller_leaves
from service.api.parse import refuse_unknown
from service.api.problems import problem_of
from service.errors import BadImage, BadRequest, UnsupportedMediaType
from service.flow import FlowAnswer, FlowOptions
from service.models import FieldModel
from service.plane import Plane
from service.rock import Rock, axes_of, rock_of
from service.settings import Limits

PNG: Final = "image/png"
JSON: Final = "application/json"
LINES: Final = "application/x-ndjson"
BESIDE_FIELD: Final = "X-Understudy-Field"
OF_IMAGE: Final = ("voxel_size_um", "pore_value", "shape", "dtype", "order", "byte_order")
OF_ANSWER: Final = (
    "axes",
    "axis",
    "slice",
    "timeout_s",
    "on_out_of_domain",
    "model_digest",
    "priority",
    "version",
    "upload",
)
SIGN_OF_LIFE_S: Final = 15.0
_WORDS: Final = {"on_out_of_domain": ("answer", "flag", "refuse"), "priority": ("interactive", "bulk")}


async def flow(request: Request) -> Response:
    """Permeability of an image along its axes, or the field along one."""
    plane: Plane = request.app.state.plane
    query = dict(request.query_params)
    model = plane.models.field(request.path_params["model"], query.get("version"))  # before a body is read
    refuse_unknown(query, (*OF_IMAGE, *OF_ANSWER), "the query")
    wanted = _wanted(request.headers.get("accept", "*/*"))
    only_numbers = wanted in (JSON, LINES)
    axes = axes_of(query.get("axes", "all")) if only_numbers else [_one_axis(query)]
    options = _options(query, request, keep_field=not only_numbers)
    voxel_size_um = _voxel_size(query)
    media_type = request.headers.get("content-type", RAW).partition(";")[0].strip().lower()
    body = await _body(request, plane, query)
    rock = await asyncio.to_thread(_read, body, media_type, query, voxel_size_um, plane.limits)
    del body
    if wanted == LINES:
        return StreamingResponse(
            _lines(plane, model, rock, axes, options, request.scope["request_id"]), media_type=LINES
        )
    answer = await unless_caller_leaves(request, plane.flow(model, rock.image, axes, options))
    return await asyncio.to_thread(_response, answer, rock, wanted, query)


async def _body(request: Request, plane: Plane, query: Mapping[str, str]) -> Content:
    """What was sent, now or before in parts."""
    if "upload" not in query:
        return await read_body(request, plane.limits.binary_bytes, plane.limits)
    return plane.uploads.get(tenant_of(request.scope), query["upload"]).content()


def _response(answer: FlowAnswer, rock: Rock, wanted: str, query: Mapping[str, str]) -> Response:
    """On a thread, as the receipt hashes the image, and images are large."""
    receipt = answer.receipt(rock)
    headers = {HEADER: short_form(receipt)}
    if wanted == JSON:
        return Response(_json(said_of(answer, rock, receipt)), media_type=JSON, headers=headers)
    prediction = answer.predictions[0]
    headers[BESIDE_FIELD] = said_beside_field(prediction, rock)
    if wanted == PNG:
        return Response(slice_of(prediction, query), media_type=PNG, headers=headers)
    pieces = iter(()) if prediction.velocity is None else WRITERS[wanted](prediction.velocity, rock.voxel_size_um)
    return StreamingResponse(pieces, media_type=wanted, headers=headers)


async def _lines(
    plane: Plane, model: FieldModel, rock: Rock, axes: Sequence[int], options: FlowOptions, request_id: str
) -> AsyncIterator[bytes]:
    """How far it has come, a line each time, and in the last line the answer or the problem.

    The iterator is closed when the caller leaves, and then so is the work.
    """
    told: asyncio.Queue[tuple[int, int] | None] = asyncio.Queue()
    work = asyncio.ensure_future(
        plane.flow(model, rock.image, axes, replace(options, tell=lambda *step: told.put_nowait(step)))
    )
    work.add_done_callback(lambda _: told.put_nowait(None))
    step = (0, 0)
    try:
        while True:
            try:
                async with asyncio.timeout(SIGN_OF_LIFE_S):
                    following = await told.get()
            except TimeoutError:
                following = step  # again, so that nobody on the way takes the connection for dead
            if following is None:
                break
            step = following
            yield _json({"progress": {"done": step[0], "total": step[1]}}) + b"\n"
        yield await _last_line(work, rock, request_id)
    finally:
        work.cancel()


async def _last_line(work: "asyncio.Future[FlowAnswer]", rock: Rock, request_id: str) -> bytes:
    try:
        answer = await work
        said = await asyncio.to_thread(lambda: said_of(answer, rock, answer.receipt(rock)))
    except Exception as error:  # noqa: BLE001 (half an answer is sent: what the edge would say comes as its last line)
        log_fault(error, request_id)
        return _json({"problem": problem_of(error, request_id)[0]}) + b"\n"
    return _json({"answer": said}) + b"\n"


def _json(value: Any) -> bytes:
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def _read(body: Content, media_type: str, query: Mapping[str, str], size_um: float, limits: Limits) -> Rock:
    return rock_of(labels_of(body, media_type, query, limits), size_um, _pore_values(query))


def _voxel_size(query: Mapping[str, str]) -> float:
    text = query.get("voxel_size_um", "")
    if not text:
        raise BadImage(
            "There is no voxel_size_um.",
            hint="Add ?voxel_size_um=3.5: without the side of a voxel in micrometres no permeability has a meaning.",
            field="voxel_size_um",
        )
    sizes = [_number(part) for part in text.split(",")]
    if len(set(sizes)) > 1:
        raise BadImage(
            f"The voxels are {text[:40]} micrometres: not cubes.",
            hint="Resample the volume to cubic voxels first.",
            field="voxel_size_um",
        )
    if not 0.0 < sizes[0] < math.inf:
        raise BadImage(
            f"voxel_size_um is '{text[:20]}'.", hint="Give a positive number of micrometres.", field="voxel_size_um"
        )
    return sizes[0]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _pore_values(query: Mapping[str, str]) -> list[int] | None:
    if "pore_value" not in query:
        return None
    try:
        return [int(part) for part in query["pore_value"].split(",")]
    except ValueError:
        raise BadImage(
            f"pore_value is '{query['pore_value'][:20]}'.",
            hint="Give whole numbers, such as 0 or 0,2.",
            field="pore_value",
        ) from None


def _one_axis(query: Mapping[str, str]) -> int:
    axes = axes_of(query.get("axis", query.get("axes", "z")))
    if len(axes) != 1:
        raise BadImage("A field is that of one axis.", hint="Add axis=x, y or z.", field="axis")
    return axes[0]


def _options(query: Mapping[str, str], request: Request, keep_field: bool) -> FlowOptions:
    for name, words in _WORDS.items():
        if query.get(name, words[0]) not in words:
            raise BadRequest(f"{name} is '{query[name][:20]}'.", hint=f"Give one of {', '.join(words)}.", field=name)
    timeout_s = _number(query["timeout_s"]) if "timeout_s" in query else None
    if timeout_s is not None and not 0.0 < timeout_s < math.inf:
        raise BadRequest("timeout_s is no time.", hint="Give a positive number of seconds.", field="timeout_s")
    return FlowOptions(
        keep_field=keep_field,
        timeout_s=timeout_s,
        caller=request.scope.get("client"),
        tenant=tenant_of(request.scope),
        priority="bulk" if query.get("priority") == "bulk" else "interactive",
        on_out_of_domain=query.get("on_out_of_domain", "flag"),
        model_digest=query.get("model_digest"),
    )


def _wanted(accept: str) -> str:
    named = [part.partition(";")[0].strip() for part in accept.split(",")]
    given = (JSON, LINES, PNG, *WRITERS)
    for kind in named:
        if kind in given:
            return kind
    if any(kind in ("*/*", "application/*", "") for kind in named):
        return JSON
    raise UnsupportedMediaType(
        f"'{accept[:60]}' is not given here.",
        hint=f"Accept {JSON} for the permeability, {LINES} for its progress too, {PNG} for a slice of the field along "
        f"an axis, or one of {', '.join(WRITERS)} for the field.",
        expected=list(given),
    )
