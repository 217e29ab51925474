"""How patient the client is: what it asks again, after how long, and when it gives up."""

import email.utils
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.responses import JSONResponse, Response
from understudy import Busy, NotReachable, Retries, TimedOut, Unavailable
from understudy.flows import Call, Pause, asker
from understudy.retries import retry_after_s

MODELS = JSONResponse({"models": []})
CALL = Call("GET", "/v1/models")


def response(status: int, headers: dict[str, str] | None = None) -> httpx.Response:
    return httpx.Response(status, headers=headers, request=httpx.Request("GET", "http://gateway/v1/models"))


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_gateway_is_asked_again(recite: Callable[..., Any], status: int) -> None:
    busy = Response(status_code=status, headers={"Retry-After": "0"})
    client, gateway = recite(busy, busy, MODELS)
    assert client.models() == []
    assert len(gateway.asked) == 3


@pytest.mark.parametrize(("status", "error"), [(429, Busy), (503, Unavailable)])
def test_a_gateway_that_stays_busy_is_given_up(recite: Callable[..., Any], status: int, error: type) -> None:
    client, gateway = recite(Response(status_code=status), retries=Retries(answers=3, first_pause_s=0.0))
    with pytest.raises(error):
        client.models()
    assert len(gateway.asked) == 4


@pytest.mark.parametrize("status", [400, 404, 413, 422, 500, 504, 507])
def test_an_answer_that_will_not_change_is_not_asked_for_again(recite: Callable[..., Any], status: int) -> None:
    client, gateway = recite(Response(status_code=status), MODELS)
    with pytest.raises(Exception, match=str(status)):
        client.models()
    assert len(gateway.asked) == 1


def test_a_wait_longer_than_the_client_is_patient_is_reported_at_once(recite: Callable[..., Any]) -> None:
    client, gateway = recite(Response(status_code=429, headers={"Retry-After": "3600"}))
    with pytest.raises(Busy) as caught:
        client.models()
    assert caught.value.retry_after_s == 3600
    assert len(gateway.asked) == 1


@given(st.integers(0, 30))
def test_the_pause_is_what_the_gateway_asks_for_and_up_to_a_quarter_more(seconds: int) -> None:
    flow = asker("http://gateway", Retries())(CALL)
    assert next(flow) == CALL
    pause = flow.send(response(429, {"Retry-After": str(seconds)}))
    assert isinstance(pause, Pause)
    assert seconds <= pause.seconds <= 1.25 * seconds
    assert flow.send(None) == CALL


def test_without_a_stated_wait_the_pauses_double_and_stay_bounded() -> None:
    retries = Retries(answers=8, first_pause_s=1.0, longest_pause_s=20.0)
    pauses = [retries.pause_after_answer(503, {}, tries) for tries in range(9)]
    assert pauses[-1] is None
    for pause_s, doubled in zip(pauses[:-1], [1, 2, 4, 8, 16, 20, 20, 20], strict=True):
        assert pause_s is not None
        assert doubled <= pause_s <= 1.25 * doubled


def test_a_lost_connection_is_tried_again_and_then_given_up() -> None:
    flow = asker("http://gateway", Retries(connections=2))(CALL)
    next(flow)
    for _ in range(2):
        assert isinstance(flow.send(httpx.ConnectError("refused")), Pause)
        assert flow.send(None) == CALL
    with pytest.raises(NotReachable, match="http://gateway"):
        flow.send(httpx.ConnectError("refused"))


def test_a_time_out_is_not_repeated() -> None:
    flow = asker("http://gateway", Retries())(CALL)
    next(flow)
    with pytest.raises(TimedOut, match="timeout_s"):
        flow.send(httpx.ReadTimeout(""))


def test_a_retry_date_is_counted_from_now() -> None:
    seconds = retry_after_s({"retry-after": email.utils.formatdate(time.time() + 100, usegmt=True)})
    assert seconds is not None
    assert 90 < seconds <= 100
    assert retry_after_s({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0


@pytest.mark.parametrize("text", ["", "soon", "-3", "1e3", "9" * 30, "Wed, 99 Oct 2015 07:28:00 GMT"])
def test_an_unreadable_wait_counts_as_none(text: str) -> None:
    assert retry_after_s({"retry-after": text}) is None
