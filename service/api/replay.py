"""`/v1/replay`: a receipt and its inputs in, the same answer out, or the reason why not."""

from dataclasses import asdict
from typing import Any

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from understudy.receipts import Receipt

from service.access import tenant_of
from service.api.body import read_body
from service.api.framed import apart_if_large
from service.api.leaving import unless_caller_leaves
from service.api.parse import json_object, structures_from_json
from service.api.rest import json_answer, json_response
from service.errors import BadRequest, MissingField
from service.plane import MEMBER_OUTPUTS, Options, Plane
from service.replay import replay


async def answer_again(request: Request) -> Response:
    """The answer of a receipt once more, in deterministic mode, and whether it is the same."""
    plane: Plane = request.app.state.plane
    body = await read_body(request, plane.limits.json_bytes, plane.limits)
    said = await apart_if_large(len(body), lambda: json_object(body, ("receipt", "structures", "results")))
    receipt, recorded = _receipt(said.get("receipt")), said.get("results")
    structures = structures_from_json(said.get("structures"), plane.limits)
    if recorded is not None and not isinstance(recorded, list):
        raise BadRequest("results is not a list.", hint="Give the member 'results' of the answer.", field="results")
    options = Options(caller=request.scope.get("client"), tenant=tenant_of(request.scope))
    answer, report = await unless_caller_leaves(request, replay(plane, receipt, structures, recorded, options))
    outputs = MEMBER_OUTPUTS if answer.options.forces_std else frozenset()
    return json_response({**json_answer(answer, outputs), "replay": asdict(report)})


def _receipt(value: Any) -> Receipt:
    if value is None:
        raise MissingField("There is no receipt.", hint="Give the member 'receipt' of an answer.", field="receipt")
    try:
        return Receipt.model_validate(value)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise BadRequest(
            f"receipt is none of ours: {faults or 'not an object'}.",
            hint="Give the member 'receipt' of an answer as it was, of schema_version 1.",
            field="receipt",
        ) from None
