"""`/v1/admin`: what an operator tells a running gateway to do with its models."""

from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from service.access import TENANT
from service.api.body import read_body
from service.api.parse import json_object
from service.errors import BadRequest, Forbidden, UnsupportedMediaType
from service.operator import Operator
from service.plane import Plane

JSON: Final = "application/json"
_MEMBERS: Final = ("version", "force")


async def list_versions(request: Request) -> Response:
    """Every version that is known: loaded or not, promoted or not, with the record of the shadows."""
    refuse_strangers(request)
    operator = _operator(request)
    names = sorted({standing.name for standing in operator.models.index()})
    return _json({"models": [versions_of(operator, name) for name in names]})


async def command(request: Request) -> Response:
    """Load, unload, reload, promote, roll back or shadow; the answer says what was done and how it stands now."""
    refuse_strangers(request)
    operator, name = _operator(request), request.path_params["model"]
    carry_out = _COMMANDS.get(request.path_params["command"])
    if carry_out is None:
        raise HTTPException(404, f"There is no such command; there are: {', '.join(_COMMANDS)}")
    done = await carry_out(operator, name, *await _read(request))
    request.app.openapi_schema = None  # it lists the models
    return _json({"done": done, **versions_of(operator, name)})


def versions_of(operator: Operator, name: str) -> dict[str, Any]:
    """How it stands with the versions of a model, and with its shadow."""
    shadow, promoted = operator.shadows.of(name), operator.models.promoted(name)
    return {
        "model": name,
        "promoted": promoted and promoted.version,
        "versions": [
            {"version": s.version, "state": s.state, "reason": s.reason, "digest": s.digest, "requests": s.users}
            for s in operator.models.index(name)
        ],
        "shadow": shadow and shadow.report(operator.shadows.demands),
    }


def refuse_strangers(request: Request) -> None:
    """Without keys commands are taken from this machine only; with keys an operator's was asked for already.

    Raises:
        Forbidden: the caller is elsewhere.
    """
    if request.scope.get(TENANT) is not None:
        return
    host = request.client.host if request.client else ""
    try:
        here = ip_address(host).is_loopback
    except ValueError:
        here = False
    if not here:
        raise Forbidden(
            "Commands are taken from operators on the gateway's own machine only.",
            hint="Run understudy models there, or serve with keys and use an operator's.",
        )


async def _promote(operator: Operator, name: str, version: str | None, force: bool) -> str:
    if version is None:
        raise BadRequest("No version is named.", hint="Say which version to promote.", field="version")
    return await operator.promote(name, version, force)


_COMMANDS: Final[dict[str, Callable[[Operator, str, str | None, bool], Awaitable[str]]]] = {
    "load": lambda operator, name, version, _: operator.load(name, version),
    "unload": lambda operator, name, version, _: operator.unload(name, version),
    "reload": lambda operator, name, _, force: operator.reload(name, force),
    "promote": _promote,
    "rollback": lambda operator, name, *_: operator.rollback(name),
    "shadow": lambda operator, name, version, _: operator.shadow(name, version),
}


async def _read(request: Request) -> tuple[str | None, bool]:
    """Version and force of a command.

    Raises:
        UnsupportedMediaType: not declared as JSON, which a page of another site could send through a browser.
        BadRequest: not what a command holds.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != JSON:
        raise UnsupportedMediaType(
            f"Content-Type '{media_type[:60]}' is not read here.",
            hint=f"Send {JSON}, if need be an empty object.",
            headers={"Accept": JSON},
        )
    plane: Plane = request.app.state.plane
    said = json_object(await read_body(request, plane.limits.json_bytes, plane.limits), _MEMBERS)
    version, force = said.get("version"), said.get("force", False)
    if version is not None and not isinstance(version, str):
        raise BadRequest("version is no string.", hint='Write it as "2".', field="version")
    if not isinstance(force, bool):
        raise BadRequest("force is neither true nor false.", hint="Give true or false.", field="force")
    return version, force


def _operator(request: Request) -> Operator:
    operator: Operator = request.app.state.operator
    return operator


def _json(value: Any) -> Response:
    return Response(orjson.dumps(value), media_type=JSON)
