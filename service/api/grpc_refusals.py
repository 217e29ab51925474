"""Refusals on gRPC: a status code, a text that says what to do, and the HTTP problem document in `problem-bin`."""

from dataclasses import dataclass
from typing import Any, Final

import grpc

from service.api.problems import dump_problem, problem_of

_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    412: grpc.StatusCode.FAILED_PRECONDITION,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}
# A caller's library refuses metadata of more than 8 KiB; text (percent coded) and document (base64) share them.
_TEXT: Final = 800
_PROBLEM: Final = 2_000
_ALWAYS: Final = ("type", "title", "status", "code", "request_id")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a caller is told.

    Attributes:
        problem: as the HTTP answer would be.
        status: its HTTP status.
        metadata: trailing metadata.
    """

    code: grpc.StatusCode
    text: str
    metadata: tuple[tuple[str, str | bytes], ...]
    problem: dict[str, Any]
    status: int


def refusal_of(error: Exception, request_id: str) -> Refusal:
    """The refusal of a call that failed; anything but our own errors becomes INTERNAL, saying nothing of its cause."""
    problem, headers = problem_of(error, request_id)
    metadata: list[tuple[str, str | bytes]] = [("x-request-id", request_id), ("problem-bin", _document(problem))]
    if "Retry-After" in headers:
        metadata.append(("grpc-retry-pushback-ms", str(1_000 * int(headers["Retry-After"]))))
    code = _CODES.get(problem["status"], grpc.StatusCode.INTERNAL)
    return Refusal(code, problem["error"][:_TEXT], tuple(metadata), problem, problem["status"])


def _document(problem: dict[str, Any]) -> bytes:
    """The problem as JSON; without texts and facts if it is too long for metadata."""
    document = dump_problem(problem)
    return document if len(document) <= _PROBLEM else dump_problem({name: problem[name] for name in _ALWAYS})
