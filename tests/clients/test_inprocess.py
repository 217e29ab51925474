"""An application inside this process: started, asked and shut down as a server would."""

import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from understudy import Client, ServerFault
from understudy.inprocess import InProcess


def app_that(log: list[str], fail: str = "") -> Starlette:
    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        if fail == "startup":
            raise ValueError("no models here")
        log.append("started")
        yield
        log.append("stopped")

    async def break_down(_: Request) -> Response:
        raise ValueError("a bug")

    async def echo(request: Request) -> Response:
        return PlainTextResponse(await request.body(), headers={"X-Seen": request.headers["x-team"]})

    routes = [Route("/v1/models", break_down), Route("/echo", echo, methods=["POST"])]
    return Starlette(routes=routes, lifespan=lifespan)


def test_the_application_is_started_before_and_stopped_after() -> None:
    log: list[str] = []
    others = set(threading.enumerate())
    client = Client(transport=InProcess(app_that(log)))
    assert log == ["started"]
    client.close()
    assert log == ["started", "stopped"]
    assert not [t for t in set(threading.enumerate()) - others if t.name == "understudy-in-process"]


def test_a_forgotten_client_stops_the_application_when_it_goes() -> None:
    log: list[str] = []
    client = Client(transport=InProcess(app_that(log)))
    del client
    gc.collect()
    assert log == ["started", "stopped"]


def test_closing_twice_is_harmless() -> None:
    transport = InProcess(app_that([]))
    transport.close()
    transport.close()


def test_a_start_up_that_fails_is_raised_where_the_client_is_made() -> None:
    with pytest.raises(RuntimeError, match="no models here"):
        InProcess(app_that([], fail="startup"))


def test_an_application_without_a_lifespan_says_so() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError(scope["type"])

    with pytest.raises(RuntimeError, match="ended during its startup"):
        InProcess(app)


def test_a_bug_in_the_application_is_a_500_as_over_a_socket() -> None:
    with Client(transport=InProcess(app_that([]))) as client, pytest.raises(ServerFault) as caught:
        client.models()
    assert caught.value.status == 500


def test_bodies_and_headers_pass_unchanged() -> None:
    import httpx

    body = bytes(range(256)) * 500
    with httpx.Client(transport=InProcess(app_that([])), base_url="http://in-process") as http:
        answer = http.post("/echo", content=body, headers={"X-Team": "ice"})
    assert answer.content == body
    assert answer.headers["x-seen"] == "ice"
