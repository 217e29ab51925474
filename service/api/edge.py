"""The outermost layer: a request id for everyone, known hosts only, and every error as one shape of answer."""

import re
import secrets
from collections import Counter
from typing import Final

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from understudy.errors import FramingError

from contract.errors import InvalidInput
from service.api.problems import problem_response
from service.errors import InvalidHost, ServiceError

_HOST: Final = re.compile(rb"^(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9]([A-Za-z0-9._-]{0,252}))(:[0-9]{1,5})?$")
_REQUEST_ID: Final = re.compile(rb"^[A-Za-z0-9._:-]{1,128}$")
_REFUSALS: Final = (InvalidInput, FramingError, HTTPException)
_log: Final = structlog.get_logger("edge")


class Edge:
    """ASGI middleware around everything else.

    Args:
        app: what answers.
        hosts: lower-case names that `Host` may say; empty for any.
        counts: answers by route, method and status.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], counts: Counter[tuple[str, str, int]]) -> None:
        self.app = app
        self.hosts = hosts
        self.counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; the connections of start-up and shut-down pass through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = scope["request_id"] = _request_id(headers)
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            self._refuse_host(headers.get(b"host", b""))
            await self.app(scope, receive, send_marked)
        except Exception as error:
            if status:  # half an answer is sent: only the connection's end can tell
                raise
            _log_fault(error, request_id)
            await problem_response(error, request_id)(scope, receive, send_marked)
        finally:
            self.counts[getattr(scope.get("route"), "path", "other"), scope["method"], status] += 1

    def _refuse_host(self, host: bytes) -> None:
        match = _HOST.match(host)
        if match is None or (self.hosts and match[1].decode().strip("[]").lower() not in self.hosts):
            raise InvalidHost(
                f"This gateway does not answer for host '{host[:60].decode('latin-1')}'.",
                hint="Ask it by its own name; its operator can add names with UNDERSTUDY_ALLOWED_HOSTS.",
            )


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """What the router refuses, in the shape of every other refusal."""
    return problem_response(error, request.scope["request_id"])


def _request_id(headers: dict[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"")
    return given.decode() if _REQUEST_ID.match(given) else secrets.token_hex(8)


def _log_fault(error: Exception, request_id: str) -> None:
    if isinstance(error, ServiceError) and error.status >= 500 and error.code != "internal_error":
        _log.error(error.code, request_id=request_id, detail=error.detail)
    elif not isinstance(error, (*_REFUSALS, ServiceError, ClientDisconnect)):
        _log.error("internal_error", request_id=request_id, exc_info=error)
