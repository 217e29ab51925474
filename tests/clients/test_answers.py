"""Bodies and refusals as exceptions: what the gateway says reaches the caller whole."""

from collections.abc import Callable
from typing import Any

import pytest
import understudy
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from understudy import BadAnswer, Client, NotReachable, Refused
from understudy.errors import refusal_class
from understudy.framing import HEADER_LENGTH, MEDIA_TYPE
from understudy.retries import NEVER

WATER = {"numbers": [8, 1, 1], "positions": [[0, 0, 0], [0, 0, 1], [0, 1, 0]]}
PROBLEM = {
    "type": "https://example.org/problems/cost_over_limit",
    "title": "Structure too large",
    "status": 413,
    "code": "cost_over_limit",
    "detail": "1,240,000 edges; this model on this device takes 900,000.",
    "hint": "Split the system.",
    "error": "1,240,000 edges, limit 900,000: split the system",
    "limit": 900000,
    "got": 1240000,
    "unit": "edges",
    "request_id": "01J",
}


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (400, "BadRequest"),
        (401, "NotAllowed"),
        (403, "NotAllowed"),
        (404, "NotFound"),
        (408, "Refused"),
        (412, "DigestMismatch"),
        (413, "TooLarge"),
        (415, "BadRequest"),
        (422, "BadRequest"),
        (429, "Busy"),
        (500, "ServerFault"),
        (501, "ServerFault"),
        (503, "Unavailable"),
        (504, "DeadlineExceeded"),
        (507, "TooLarge"),
    ],
)
def test_each_status_has_its_exception(recite: Callable[..., Any], status: int, name: str) -> None:
    client, _ = recite(JSONResponse({**PROBLEM, "status": status}, status), retries=NEVER)
    with pytest.raises(getattr(understudy, name)) as caught:
        client.models()
    assert type(caught.value) is refusal_class(status)
    assert caught.value.status == status


def test_a_problem_arrives_with_code_hint_facts_and_request_id(recite: Callable[..., Any]) -> None:
    client, _ = recite(JSONResponse(PROBLEM, 413, media_type="application/problem+json"))
    with pytest.raises(understudy.TooLarge) as caught:
        client.predict("m", WATER)
    error = caught.value
    assert (error.code, error.hint, error.request_id) == ("cost_over_limit", PROBLEM["hint"], "01J")
    assert error.facts == {"limit": 900000, "got": 1240000, "unit": "edges"}
    assert str(error) == f"{PROBLEM['detail']} {PROBLEM['hint']}"


@pytest.mark.parametrize(
    "body",
    [
        HTMLResponse("<h1>Bad   gateway</h1>", 502),
        JSONResponse(["no"], 502),
        Response(b"\xff\xfe", 502),
        Response("", 502),
    ],
)
def test_an_error_that_is_no_problem_body_says_who_answered(recite: Callable[..., Any], body: Response) -> None:
    client, _ = recite(body)
    with pytest.raises(understudy.ServerFault, match=r"http://127\.0\.0\.1:8000/v1/models answered 502") as caught:
        client.models()
    assert caught.value.code == "http_502"


@pytest.mark.parametrize(
    "body",
    [
        PlainTextResponse("hello"),
        JSONResponse([]),
        JSONResponse({"models": 3}),
        JSONResponse({"models": [{"name": "no family"}]}),
        Response(b'{"models": NaN}'),
        Response(b"[" * 100_000),
        RedirectResponse("/elsewhere"),
        Response(status_code=204),
    ],
)
def test_another_language_than_the_gateways_is_a_bad_answer(recite: Callable[..., Any], body: Response) -> None:
    client, _ = recite(body)
    with pytest.raises(BadAnswer, match="gateway"):
        client.models()


HEAD = b'{"model":"m","version":"1","digest":"d","units":{},"results":[],"outputs":[]}'


@pytest.mark.parametrize(
    ("body", "length"),
    [
        (b"{}", None),
        (HEAD, None),
        (HEAD, str(len(HEAD))),
        (HEAD, str(len(HEAD) - 1)),
        (HEAD, "many"),
        (HEAD + b"surplus", str(len(HEAD))),
        (HEAD, "-1"),
    ],
)
def test_a_broken_prediction_is_a_bad_answer(recite: Callable[..., Any], body: bytes, length: str | None) -> None:
    headers = {} if length is None else {HEADER_LENGTH: length}
    client, _ = recite(Response(body, media_type=MEDIA_TYPE, headers=headers))
    with pytest.raises(BadAnswer):
        client.predict("m", WATER)


def test_a_card_that_is_no_object_is_a_bad_answer(recite: Callable[..., Any]) -> None:
    client, gateway = recite(JSONResponse([1]))
    with pytest.raises(BadAnswer):
        client.card("m")
    assert gateway.asked == [("GET", "/v1/models/m")]


def test_readiness_is_an_answer_and_not_an_error(recite: Callable[..., Any]) -> None:
    client, _ = recite(Response(status_code=503), Response(), retries=NEVER)
    assert not client.ready()
    assert client.ready()


def test_no_gateway_at_all_says_where_and_what_to_do() -> None:
    with Client("http://127.0.0.1:9", retries=NEVER) as client, pytest.raises(NotReachable, match="serve") as caught:
        client.models()
    assert "127.0.0.1:9" in caught.value.detail


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "http://host:port"])
def test_an_address_that_is_none_is_refused_when_the_client_is_made(url: str) -> None:
    with pytest.raises(NotReachable) as caught:
        Client(url)
    assert caught.value.code == "invalid_url"


def test_every_refusal_can_be_caught_as_one() -> None:
    assert all(issubclass(refusal_class(status), Refused) for status in range(400, 600))
