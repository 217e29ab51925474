"""`/v1/fields/{model}`: a rock image in; permeability as JSON, the flow field as .npy or a slice as PNG out."""

import asyncio
import io
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response
from understudy.receipts import HEADER, short_form

from contract.units import FIELD_SIGNS, FIELD_UNITS
from service.access import tenant_of
from service.api.body import read_body
from service.api.images import NPY, RAW, labels_of
from service.api.leaving import unless_caller_leaves
from service.api.parse import refuse_unknown
from service.errors import BadImage, BadRequest, UnsupportedMediaType
from service.families.field import FlowPrediction, in_units
from service.flow import FlowAnswer, FlowOptions
from service.plane import Plane
from service.rock import Rock, axes_of, interval_warning, octants, rock_of, throat_of, warnings_of
from service.settings import Limits

PNG: Final = "image/png"
JSON: Final = "application/json"
OF_IMAGE: Final = ("voxel_size_um", "pore_value", "shape", "dtype", "order", "byte_order")
OF_ANSWER: Final = ("axes", "axis", "slice", "timeout_s", "on_out_of_domain", "model_digest", "priority")
_WORDS: Final = {"on_out_of_domain": ("answer", "flag", "refuse"), "priority": ("interactive", "bulk")}


async def flow(request: Request) -> Response:
    """Permeability of an image along its axes, or the field along one."""
    plane: Plane = request.app.state.plane
    model = plane.fields.get(request.path_params["model"])  # before a body is read
    query = dict(request.query_params)
    refuse_unknown(query, (*OF_IMAGE, *OF_ANSWER), "the query")
    wanted = _wanted(request.headers.get("accept", "*/*"))
    axes = [_one_axis(query)] if wanted != JSON else axes_of(query.get("axes", "all"))
    options = _options(query, request, keep_field=wanted != JSON)
    voxel_size_um = _voxel_size(query)
    media_type = request.headers.get("content-type", RAW).partition(";")[0].strip().lower()
    body = await read_body(request, plane.limits.binary_bytes, plane.limits)
    rock = await asyncio.to_thread(_read, body, media_type, query, voxel_size_um, plane.limits)
    answer = await unless_caller_leaves(request, plane.flow(model, rock.image, axes, options))
    content, receipt = await asyncio.to_thread(_written, answer, rock, wanted, query)
    return Response(content, media_type=wanted, headers={HEADER: short_form(receipt)})


def _written(answer: FlowAnswer, rock: Rock, wanted: str, query: Mapping[str, str]) -> tuple[bytes, dict[str, Any]]:
    """The body of a response, and the receipt, which hashes the image: on a thread, as images are large."""
    receipt = answer.receipt(rock)
    if wanted == NPY:
        return _npy(answer.predictions[0].velocity), receipt
    if wanted == PNG:
        return _slice(answer.predictions[0], query), receipt
    return orjson.dumps(said_of(answer, rock, receipt), option=orjson.OPT_SERIALIZE_NUMPY), receipt


def said_of(answer: FlowAnswer, rock: Rock, receipt: Mapping[str, Any]) -> dict[str, Any]:
    """The whole answer as plain values; numbers by axis where they have one."""
    each = {prediction.axis: prediction for prediction in answer.predictions}
    card = answer.model.card
    permeabilities = {axis: in_units(p.permeability, rock.voxel_size_um) for axis, p in each.items()}
    intervals = {axis: _interval(p, rock) for axis, p in each.items()}
    throats = [throat_of(rock, prediction) for prediction in answer.predictions]
    pores = {axis: p.sample.inputs.pores for axis, p in each.items()}
    return {
        "model": card.name,
        "version": card.version,
        "digest": answer.model.stored.digest,
        "units": FIELD_UNITS,
        "signs": FIELD_SIGNS,
        "image": {
            "shape": list(rock.image.shape),
            "voxel_size_um": rock.voxel_size_um,
            "pore_values": rock.pore_values,
            "pore_values_detected": rock.detected,
            "octant_porosity": octants(rock.image),
        },
        **{unit: {a: k[unit] for a, k in permeabilities.items()} for unit in ("k_m2", "k_mD", "k_voxel2")},
        "interval_95": {unit: {a: _of(i, unit) for a, i in intervals.items()} for unit in ("k_m2", "k_mD", "k_voxel2")},
        "log_k_std": {axis: p.log_std for axis, p in each.items()},
        "porosity": float(rock.image.mean()),
        "connected_porosity": {axis: p.connected_porosity for axis, p in pores.items()},
        "percolates": {axis: p.percolates for axis, p in pores.items()},
        "throat_voxels": dict(zip(each, throats, strict=True)),
        "flux_profile": {axis: p.flux for axis, p in each.items()},
        "flux_std": {axis: p.flux_std for axis, p in each.items()},
        "boundary": card.domain.ends,
        "padded_to": {axis: list(p.sample.inputs.pore.shape) for axis, p in each.items()},
        "domain": _domain(each),
        "flags": answer.flags,
        "warnings": [
            *warnings_of(rock, answer.predictions, throats),
            *interval_warning(card.committee.log_permeability),
        ],
        "seconds": answer.seconds,
        "receipt": receipt,
    }


def _interval(prediction: FlowPrediction, rock: Rock) -> dict[str, tuple[float, float]] | None:
    if prediction.interval_95 is None:
        return None
    low, high = (in_units(k, rock.voxel_size_um) for k in prediction.interval_95)
    return {unit: (low[unit], high[unit]) for unit in low}


def _of(interval: Mapping[str, tuple[float, float]] | None, unit: str) -> tuple[float, float] | None:
    return None if interval is None else interval[unit]


def _domain(each: Mapping[str, FlowPrediction]) -> dict[str, Any]:
    order = ("in", "edge", "out")
    worst = max((p.domain.verdict for p in each.values()), key=order.index)
    reasons = [f"{axis}: {reason}" for axis, p in each.items() for reason in p.domain.reasons]
    return {"in_domain": worst != "out", "verdict": worst, "reasons": reasons}


def _read(body: bytes | bytearray, media_type: str, query: Mapping[str, str], size_um: float, limits: Limits) -> Rock:
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
    for kind in named:
        if kind in (JSON, NPY, PNG):
            return kind
    if any(kind in ("*/*", "application/*", "") for kind in named):
        return JSON
    raise UnsupportedMediaType(
        f"'{accept[:60]}' is not given here.",
        hint=f"Accept {JSON} for the permeability, {NPY} for the field along an axis, {PNG} for a slice of it.",
        expected=[JSON, NPY, PNG],
    )


def _npy(field: NDArray[np.float32] | None) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(0, np.float32) if field is None else field)
    return buffer.getvalue()


def _slice(prediction: FlowPrediction, query: Mapping[str, str]) -> bytes:
    """A plane along the flow's axis, which points up, through the middle or where the query says; solid black."""
    field, axis = prediction.velocity, prediction.sample.inputs.axis
    if field is None:
        return b""
    across = 1 if axis == 0 else 0
    at = query.get("slice", str(field.shape[across] // 2))
    if not at.isdecimal() or int(at) >= field.shape[across]:
        raise BadImage(
            f"slice is '{at[:20]}'.", hint=f"Give a number from 0 to {field.shape[across] - 1}.", field="slice"
        )
    plane, pore = (np.take(f, int(at), across) for f in (field, prediction.sample.inputs.pores.conducting))
    top = float(np.quantile(plane[pore], 0.99)) if pore.any() else 1.0
    grey = np.where(pore, 40 + 215 * np.clip(plane / max(top, 1e-12), 0.0, 1.0), 0).astype(np.uint8)
    return png(np.ascontiguousarray((grey.T if axis == 2 else grey)[::-1]))


def png(grey: NDArray[np.uint8]) -> bytes:
    """An 8-bit grey picture [rows, columns] as PNG (ISO/IEC 15948)."""
    rows, columns = grey.shape
    lines = np.concatenate([np.zeros((rows, 1), np.uint8), grey], axis=1).tobytes()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 6)) + chunk(b"IEND", b"")
