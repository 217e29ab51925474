"""`/v1/plan`: the body of a prediction, or sizes alone, in; what it would cost, out. Nothing is run."""

import asyncio
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from contract.errors import BadType
from contract.structures import Structure
from service.api.body import read_body
from service.api.parse import json_object, refuse_unknown, structures_from_json
from service.api.rest import OPTIONS, asked_of, json_response
from service.errors import BadRequest, MissingField
from service.models import Model
from service.plane import MEMBER_OUTPUTS, Options, Plane
from service.planning import Planner, Size, said, size_of_density
from service.settings import Limits

SIZE: Final = ("atoms", "neighbours", "atoms_per_cubic_angstrom")


async def plan(request: Request) -> Response:
    """What a request would cost, whether it fits, and whether the model was trained for it."""
    plane: Plane = request.app.state.plane
    body = await read_body(request, plane.limits.json_bytes, plane.limits)
    return json_response(await asyncio.to_thread(_planned, body, request, plane))


def _planned(body: bytes | bytearray, request: Request, plane: Plane) -> dict[str, Any]:
    asked = json_object(body, ("model", "structures", "sizes", *OPTIONS))
    name = asked.get("model")
    if not isinstance(name, str):
        raise MissingField("There is no model.", hint="Give the name of one, see GET /v1/models.", field="model")
    wanted = asked_of(asked, [], request)
    model = plane.models.potential(name, wanted.version)
    items: list[Structure | Size] = [*_items(asked, model, plane.limits)]
    options = Options(forces_std=not MEMBER_OUTPUTS.isdisjoint(wanted.outputs), deterministic=wanted.deterministic)
    planner = Planner(plane.models, plane.limits, plane.concurrency, plane.parallelism)
    planned = planner.plan(model, items, options)
    other = planner.alternative(planned, items, options)
    return {**said(planned), "structures": planned.estimates, "alternative": None if other is None else said(other)}


def _items(asked: dict[str, Any], model: Model, limits: Limits) -> list[Structure] | list[Size]:
    if ("structures" in asked) == ("sizes" in asked):
        raise MissingField(
            "Either structures or sizes must be given.",
            hint='Send "structures", or "sizes" such as [{"atoms": 1000, "neighbours": 40}].',
            field="sizes",
        )
    if "structures" in asked:
        return structures_from_json(asked["structures"], limits)
    sizes = asked["sizes"]
    if not isinstance(sizes, list) or not sizes:
        raise MissingField(
            "sizes must be a list of at least one size.", hint="Give atoms and neighbours.", field="sizes"
        )
    return [_size(item, index, model) for index, item in enumerate(sizes)]


def _size(item: Any, index: int, model: Model) -> Size:
    if not isinstance(item, dict):
        raise BadType(f"sizes[{index}] is no object.", hint='Give {"atoms": 1000, "neighbours": 40}.', field="sizes")
    refuse_unknown(item, SIZE, f"sizes[{index}]")
    atoms, neighbours, density = (item.get(name) for name in SIZE)
    if not isinstance(atoms, int) or isinstance(atoms, bool) or not 0 < atoms < 2**53:
        raise _wrong(index, "atoms", "a positive whole number")
    if (neighbours is None) == (density is None):
        raise _wrong(index, "neighbours", "a number, or atoms_per_cubic_angstrom in its place")
    if neighbours is not None:
        return Size(atoms, _positive(neighbours, index, "neighbours"))
    rho = _positive(density, index, "atoms_per_cubic_angstrom")
    return size_of_density(atoms, rho, model.card.domain.cutoff_angstrom)


def _positive(value: Any, index: int, name: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < 1e9:
        raise _wrong(index, name, "a number from 0 to 1e9")
    return float(value)


def _wrong(index: int, name: str, expected: str) -> BadRequest:
    return BadRequest(f"sizes[{index}].{name} is not {expected}.", hint=f"Give {expected}.", field=name, index=index)
