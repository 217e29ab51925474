"""Flow through rock images as tensors of the Open Inference Protocol, on every wire.

`image` is [nx, ny, nz] of whole numbers or booleans; axes are 0, 1 and 2, by default all three, and so are the entries
of each answer, in the order asked.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from understudy.framing import Array

from contract.units import permeability_in_units
from service.api.field_answers import said_of
from service.api.images import counted
from service.api.kserve import Asked
from service.api.kserve_tensors import FIELD_INPUTS
from service.api.parse import refuse_unknown
from service.errors import BadImage, BadRequest, MissingField
from service.flow import FlowAnswer, FlowOptions
from service.models import FieldModel
from service.plane import Plane
from service.rock import Rock, rock_of
from service.settings import Limits
from service.tenants import Tenant

NAMES = tuple(tensor.name for tensor in FIELD_INPUTS)


@dataclass(frozen=True, slots=True, eq=False)
class FieldReply:
    """What goes back: tensors by name, and what is said beside them."""

    tensors: dict[str, Array]
    parameters: dict[str, str]
    receipt: dict[str, Any]


async def answer_field(
    plane: Plane,
    model: FieldModel,
    tensors: Mapping[str, Array],
    asked: Asked,
    who: tuple[Any, Tenant],
    timeout_s: float | None,
) -> FieldReply:
    """Ask for flow through the image of a request.

    Args:
        plane: answers.
        model: which is asked.
        tensors: inputs by name.
        asked: the rest of the request.
        who: asks: the connection and the tenant.
        timeout_s: seconds that the answer may take.

    Raises:
        ServiceError, InvalidInput: naming the tensor and the remedy.
    """
    if asked.wants("velocity") and "velocity" in asked.as_json:
        raise BadRequest("velocity is not given as JSON.", hint="Ask for it with binary_data: true.", field="outputs")
    axes, options = _axes(tensors.get("axes")), _options(asked, who, timeout_s)
    rock = await asyncio.to_thread(_rock, tensors, plane.limits)
    answer = await plane.flow(model, rock.image, axes, options)
    return await asyncio.to_thread(_reply, answer, rock, asked)


def _rock(tensors: Mapping[str, Array], limits: Limits) -> Rock:
    refuse_unknown(tensors, NAMES, "inputs")
    for name in ("image", "voxel_size_um"):
        if name not in tensors:
            raise MissingField(f"There is no input '{name}'.", hint=f"Inputs are {', '.join(NAMES)}.", field=name)
    image = tensors["image"]
    if image.dtype.kind not in "biu":
        raise BadImage(
            f"image is of {image.dtype}.",
            hint="Send BOOL, UINT8 or other whole numbers, one for each phase.",
            field="image",
        )
    counted(image.shape, limits)
    values = tensors.get("pore_values")
    if values is not None and (values.dtype.kind not in "iu" or values.ndim != 1):
        raise _bad("pore_values", "whole numbers, one label each")
    named = None if values is None else [int(v) for v in values[:64]]
    return rock_of(np.array(image), _voxel_size(tensors["voxel_size_um"]), named)


def _voxel_size(array: Array) -> float:
    if array.dtype.kind not in "iuf" or array.size != 1 or not 0.0 < float(array.ravel()[0]) < np.inf:
        raise _bad("voxel_size_um", "one positive number of micrometres, as voxels are cubes")
    return float(array.ravel()[0])


def _axes(array: Array | None) -> list[int]:
    if array is None:
        return [0, 1, 2]
    axes = [int(a) for a in array[:4]] if array.dtype.kind in "iu" and array.ndim == 1 else []
    if not axes or not set(axes) <= {0, 1, 2} or len(set(axes)) < len(axes):
        raise _bad("axes", "some of 0, 1 and 2, each once")
    return axes


def _options(asked: Asked, who: tuple[Any, Tenant], timeout_s: float | None) -> FlowOptions:
    caller, tenant = who
    choices = dict(asked.choices)
    for name in ("check", "escalate"):
        if choices.pop(name, None) not in (None, "never"):
            raise BadRequest(f"us_{name} is for potentials.", hint="Leave it out.", field=f"us_{name}")
    return FlowOptions(asked.wants("velocity"), timeout_s, caller, tenant, **choices)


def _reply(answer: FlowAnswer, rock: Rock, asked: Asked) -> FieldReply:
    receipt = answer.receipt(rock)
    said = said_of(answer, rock, receipt)
    parameters = {
        "us_digest": answer.model.stored.digest,
        "us_domain_reasons": "\n".join(said["domain"]["reasons"]),
        "us_flags": "\n".join(answer.flags),
        "us_warnings": "\n".join(f"{warning['code']}: {warning['text']}" for warning in said["warnings"]),
        "us_axes": "".join(prediction.axis for prediction in answer.predictions),
        "us_receipt": orjson.dumps(receipt).decode(),
    }
    return FieldReply(
        {tensor.name: _tensor(tensor.name, answer, rock) for tensor in asked.outputs}, parameters, receipt
    )


def _tensor(name: str, answer: FlowAnswer, rock: Rock) -> Array:
    predictions = answer.predictions
    if name.startswith("k_mD_interval"):
        pairs = [p.interval_95 or (0.0, 0.0) for p in predictions]  # without flow there is no interval
        return np.array([[permeability_in_units(k, rock.voxel_size_um)["k_mD"] for k in pair] for pair in pairs])
    if name.startswith("k_"):
        return np.array([permeability_in_units(p.permeability, rock.voxel_size_um)[name] for p in predictions])
    if name == "velocity":
        return np.stack([np.asarray(p.velocity) for p in predictions])
    if name == "in_domain":
        return np.array([p.domain.in_domain for p in predictions])
    if name == "porosity":
        return np.array([rock.image.porosity])
    if name == "flux_std":
        return np.array([p.flux_std for p in predictions])
    return np.array([p.geometry.connected_porosity for p in predictions])


def _bad(name: str, expected: str) -> BadRequest:
    return BadRequest(f"{name} is not what it must be.", hint=f"Send {expected}.", field=name)
