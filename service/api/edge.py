"""The outermost layer: a request id for everyone, known hosts only, and every error as one shape of answer."""

import itertools
import re
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from understudy.errors import FramingError

from contract.errors import InvalidInput
from service.access import Access, admit_http
from service.api.problems import problem_response
from service.errors import InvalidHost, NotServed, ServiceError
from service.journal import Journal, Journey, current

_HOST: Final = re.compile(rb"^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9._-]{0,252}))(:[0-9]{1,5})?$")
_REQUEST_ID: Final = re.compile(rb"^[A-Za-z0-9._:-]{1,128}$")
REFUSALS: Final = (InvalidInput, FramingError, ServiceError)
_PROCESS: Final = secrets.token_hex(6)
_numbers: Final = itertools.count(1)
_log: Final = structlog.get_logger("edge")


@dataclass(frozen=True, slots=True)
class BusyRoute:
    """A POST route that is answered without the framework."""

    path: str
    handler: Callable[[Request], Awaitable[Response]]
    pattern: re.Pattern[str]


def busy_route(path: str, handler: Callable[[Request], Awaitable[Response]]) -> BusyRoute:
    """A busy route for a path such as `/v1/predict/{model}`."""
    return BusyRoute(path, handler, re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)))


class Edge:
    """ASGI layer around everything else.

    The routes that carry the traffic are answered right here, by their handlers: a framework's work for each request
    would be a fifth of a small one. They are in the framework's list of routes too, which documents them.

    Args:
        app: what answers the rest.
        busy: handlers of POST requests by the pattern of their path, whose named groups are path parameters.
        hosts: lower-case names that `Host` may say; empty for any.
        counts: answers by route, method and status.
        access: lets requests in, or refuses them.
        journal: is told of every request at its end.
    """

    def __init__(
        self,
        app: ASGIApp,
        busy: Sequence[BusyRoute],
        hosts: frozenset[str],
        counts: Counter[tuple[str, str, int]],
        access: Access,
        journal: Journal,
    ) -> None:
        self.app = app
        self.busy = busy
        self.hosts = hosts
        self.counts = counts
        self.access = access
        self.journal = journal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; the messages of start-up and shut-down pass through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = scope["request_id"] = request_id_of(_header(scope, b"x-request-id"))
        journey = Journey(request_id, "HTTP", _parent(scope) if self.journal.readers else {})
        current.set(journey)
        status, code = 0, "ok"

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            self._refuse_host(_header(scope, b"host"))
            admit_http(self.access, scope)
            await self._answer(scope, receive, send_marked)
        except Exception as error:
            if status:  # half an answer is sent: only the connection's end can tell
                raise
            log_fault(error, request_id)
            response, code = problem_response(error, request_id)
            await response(scope, receive, send_marked)
        finally:
            route = scope.get("understudy_route") or _route(scope)
            self.counts[route, scope["method"], status] += 1
            self.journal.end(journey, route, status, scope.get("understudy_code", code))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "POST":
            for route in self.busy:
                if match := route.pattern.fullmatch(scope["path"]):
                    scope["understudy_route"], scope["path_params"] = route.path, match.groupdict()
                    response = await route.handler(Request(scope, receive, send))
                    await response(scope, receive, send)
                    return
        await self.app(scope, receive, send)

    def _refuse_host(self, host: bytes) -> None:
        match = _HOST.match(host)
        if match is None or (self.hosts and match[1].decode().strip("[]").lower() not in self.hosts):
            raise InvalidHost(
                f"This gateway does not answer for host '{host[:60].decode('latin-1')}'.",
                hint="Ask it by its own name; its operator can add names with UNDERSTUDY_ALLOWED_HOSTS.",
            )


async def handle_refusal(request: Request, error: Exception) -> Response:
    """What the router or one of its routes refuses, in the shape of every other refusal."""
    log_fault(error, request.scope["request_id"])
    response, request.scope["understudy_code"] = problem_response(error, request.scope["request_id"])
    return response


def _header(scope: Scope, name: bytes) -> bytes:
    return next((value for key, value in scope["headers"] if key == name), b"")


def _parent(scope: Scope) -> dict[str, str]:
    """The trace that the caller's span belongs to (https://www.w3.org/TR/trace-context/)."""
    names = (b"traceparent", b"tracestate")
    return {key.decode(): value.decode("latin-1") for key, value in scope["headers"] if key in names}


def request_id_of(given: bytes) -> str:
    """The caller's request id if it is harmless, or one of our own."""
    return given.decode() if _REQUEST_ID.match(given) else f"{_PROCESS}-{next(_numbers):x}"


def _route(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", "other"))


def log_fault(error: Exception, request_id: str) -> None:
    """Log what is ours to mend; a refusal is the caller's business."""
    if isinstance(error, NotServed):
        return
    if isinstance(error, ServiceError) and error.status >= 500 and error.code != "internal_error":
        _log.error(error.code, request_id=request_id, detail=error.detail)
    elif not isinstance(error, (*REFUSALS, HTTPException, ClientDisconnect)):
        _log.error("internal_error", request_id=request_id, exc_info=error)
