"""Reading what came back: bodies into data, refusals and broken bodies into exceptions."""

from typing import Any, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from understudy.errors import BadAnswer, FramingError, NotReachable, Refused, TimedOut, UnderstudyError, refusal_class
from understudy.framing import HEADER_LENGTH, Array, decode, load_json, parse_header_length
from understudy.retries import retry_after_s
from understudy.wire import PredictionHead, Problem

T = TypeVar("T", bound=BaseModel)

NOT_A_GATEWAY = "Check that the address is that of an Understudy gateway."
_SHOWN = 200


def json_of(response: httpx.Response) -> Any:
    """The JSON of a successful answer.

    Raises:
        Refused: the gateway answered with an error.
        BadAnswer: the body is not JSON.
    """
    raise_for_refusal(response)
    try:
        return load_json(response.content)
    except (ValueError, RecursionError) as error:
        raise _bad(response, f"not JSON ({error})") from error


def object_of(response: httpx.Response) -> dict[str, Any]:
    """A successful answer that is a JSON object of any content.

    Raises:
        Refused: the gateway answered with an error.
        BadAnswer: the body is something else.
    """
    data = json_of(response)
    if not isinstance(data, dict):
        raise _bad(response, f"a JSON {type(data).__name__} instead of an object")
    return data


def part_of(response: httpx.Response, kind: type[T]) -> T:
    """A successful answer as one of the wire types.

    Raises:
        Refused: the gateway answered with an error.
        BadAnswer: the body is something else.
    """
    return _validated(response, json_of(response), kind)


def prediction_of(response: httpx.Response) -> tuple[PredictionHead, dict[str, Array]]:
    """Head and tensors of a binary answer.

    Raises:
        Refused: the gateway answered with an error.
        BadAnswer: the body does not follow the framing.
    """
    raise_for_refusal(response)
    length = response.headers.get(HEADER_LENGTH)
    try:
        head, tensors = decode(
            response.content, None if length is None else parse_header_length(length), field="outputs"
        )
    except FramingError as error:
        raise _bad(response, f"not a prediction ({error})") from error
    return _validated(response, head, PredictionHead), tensors


def raise_for_refusal(response: httpx.Response) -> None:
    """Turn any status but 2xx into an exception.

    Raises:
        Refused: 4xx and 5xx, with the problem's code, hint and facts where the body is one.
        BadAnswer: anything else that is not a success, such as a redirect.
    """
    if response.is_success:
        return
    if not response.is_error:
        raise _bad(response, f"status {response.status_code}")
    raise _refusal(response, _problem(response))


def unreachable(error: httpx.RequestError, url: str) -> UnderstudyError:
    """What a failed exchange is called here, and what the caller can do about it."""
    if isinstance(error, httpx.TimeoutException):
        return TimedOut(
            f"No answer from {url} in time ({type(error).__name__}).",
            hint="Give the client a longer timeout_s, or send fewer or smaller structures at once.",
        )
    if isinstance(error, httpx.DecodingError):
        return BadAnswer(f"The answer from {url} cannot be decompressed: {error}.", hint=NOT_A_GATEWAY)
    return NotReachable(
        f"No gateway answers at {url}: {str(error) or type(error).__name__}.",
        hint="Start one with 'understudy serve', or give its address with --url, url= or UNDERSTUDY_URL.",
    )


def _problem(response: httpx.Response) -> Problem | None:
    try:
        return Problem.model_validate(load_json(response.content))
    except (ValueError, RecursionError):
        return None


def _refusal(response: httpx.Response, problem: Problem | None) -> Refused:
    wait = retry_after_s(response.headers)
    if problem is None:
        return refusal_class(response.status_code)(
            f"{_origin(response)} answered {response.status_code} {response.reason_phrase}: {_excerpt(response)}",
            status=response.status_code,
            code=f"http_{response.status_code}",
            hint=NOT_A_GATEWAY,
            request_id=response.headers.get("x-request-id"),
            retry_after_s=wait,
        )
    return refusal_class(response.status_code, problem.code)(
        problem.detail,
        status=response.status_code,
        code=problem.code,
        hint=problem.hint,
        facts=problem.facts,
        request_id=problem.request_id or response.headers.get("x-request-id"),
        retry_after_s=wait,
    )


def _validated(response: httpx.Response, data: Any, kind: type[T]) -> T:
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise _bad(response, f"not a {kind.__name__} ({faults})") from error


def _bad(response: httpx.Response, why: str) -> BadAnswer:
    return BadAnswer(f"{_origin(response)} answered something unexpected: {why}.", hint=NOT_A_GATEWAY)


def _origin(response: httpx.Response) -> str:
    return str(response.url.copy_with(query=None, fragment=None, username=None, password=None))


def _excerpt(response: httpx.Response) -> str:
    text = " ".join(response.text.split())
    return text[:_SHOWN] + ("..." if len(text) > _SHOWN else "")
