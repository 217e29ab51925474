"""Refusals on the wire: RFC 9457 `application/problem+json`, with a stable code, a remedy and typed facts.

`error` repeats the text in one line: KServe clients read that member and nothing else.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from understudy.errors import FramingError

from contract.errors import InvalidInput
from service.errors import CallerLeft, Fault, ServiceError

MEDIA_TYPE: Final = "application/problem+json"
_FRAMING_HINT: Final = "GET /docs shows the layout; understudy.framing.encode and tritonclient write it."
_STANDARD: Final = {"type", "title", "status", "code", "detail", "hint", "error", "request_id"}


def problem_response(error: Exception, request_id: str) -> tuple[Response, str]:
    """The answer to a request that failed, and its code."""
    problem, headers = problem_of(error, request_id)
    return Response(dump_problem(problem), problem["status"], headers, MEDIA_TYPE), problem["code"]


def problem_of(error: Exception, request_id: str) -> tuple[dict[str, Any], Mapping[str, str]]:
    """The problem document and the headers of a refusal, on whatever wire.

    Anything but our own errors becomes a 500 that says nothing of its cause.
    """
    if isinstance(error, FramingError):
        hint = error.hint or _FRAMING_HINT
        return _problem(400, error.code, "Malformed body", error.detail, hint, error.facts, request_id), {}
    if isinstance(error, HTTPException):
        return _router_problem(error, request_id), error.headers or {}
    if isinstance(error, ClientDisconnect):
        error = CallerLeft("The caller closed the connection.", hint="Nobody reads this.")
    if not isinstance(error, InvalidInput | ServiceError):
        error = Fault("Something went wrong here.", hint=f"Report it with the request id {request_id}.")
    problem = _problem(error.status, error.code, error.title, error.detail, error.hint, error.facts, request_id)
    return problem, error.headers if isinstance(error, ServiceError) else {}


def dump_problem(problem: Mapping[str, Any]) -> bytes:
    """A problem document as JSON."""
    # The standard library's writer: it also takes the integers of any length that a caller may have claimed.
    return json.dumps(problem, default=str).encode()


def _router_problem(error: HTTPException, request_id: str) -> dict[str, Any]:
    """What the router itself refuses: no such path, or not with this method."""
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    allowed = (error.headers or {}).get("Allow")
    detail = {404: "There is no such route.", 405: f"This route takes {allowed}."}
    text = detail.get(error.status_code, f"{error.detail}.")
    return _problem(error.status_code, code, error.detail, text, "GET /docs lists every route.", {}, request_id)


def _problem(
    status: int, code: str, title: str, detail: str, hint: str, facts: dict[str, Any], request_id: str
) -> dict[str, Any]:
    return {
        "type": f"urn:understudy:problem:{code}",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
        "hint": hint,
        "error": f"{detail} {hint}".strip(),
        "request_id": request_id,
        **{name: value for name, value in facts.items() if name not in _STANDARD},
    }
