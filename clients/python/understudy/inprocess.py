"""A gateway inside this process: `Client(transport=InProcess(app))` needs no port and no second terminal."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import httpx

Message: TypeAlias = MutableMapping[str, Any]
App: TypeAlias = Callable[
    [MutableMapping[str, Any], Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]


class InProcess(httpx.BaseTransport):
    """Runs an ASGI application, with its start-up and shut-down, on an event loop in a thread of its own.

    Args:
        app: the application, such as `service.app.create_app(Settings())`.

    Raises:
        RuntimeError: the application's start-up failed; its message is passed on.
    """

    def __init__(self, app: App) -> None:
        self._asgi = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._ended: Future[None] = Future()
        self._stop = asyncio.Event()
        threading.Thread(target=self._run, args=(app,), name="understudy-in-process", daemon=True).start()
        self._loop = self._started.result()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One request through the application."""
        asked = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        return asyncio.run_coroutine_threadsafe(self._answer(asked), self._loop).result()

    def close(self) -> None:
        """Shut the application down and end the thread."""
        if not self._ended.done():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._ended.result()

    def _run(self, app: App) -> None:
        try:
            self._ended.set_result(asyncio.run(self._serve(app)))
        except BaseException as error:  # noqa: BLE001 (whoever waits on the other thread raises it)
            for future in (self._started, self._ended):
                if not future.done():
                    future.set_exception(error)

    async def _serve(self, app: App) -> None:
        async with lifespan(app):
            self._started.set_result(asyncio.get_running_loop())
            await self._stop.wait()

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        answer = await self._asgi.handle_async_request(request)
        return httpx.Response(answer.status_code, headers=answer.headers.raw, content=await _body(answer))


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    """The ASGI lifespan protocol from the server's side: start up, run the block, shut down.

    Raises:
        RuntimeError: the application refuses to start or to stop, or does not speak this protocol.

    Source: https://asgi.readthedocs.io/en/latest/specs/lifespan.html
    """
    to_app: asyncio.Queue[Message] = asyncio.Queue()
    from_app: asyncio.Queue[Message] = asyncio.Queue()
    task = asyncio.ensure_future(app({"type": "lifespan", "asgi": {"version": "3.0"}}, to_app.get, from_app.put))

    async def pass_through(phase: str) -> None:
        await to_app.put({"type": f"lifespan.{phase}"})
        answer = asyncio.ensure_future(from_app.get())
        await asyncio.wait({answer, task}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            answer.cancel()
            raise RuntimeError(f"The application ended during its {phase}.") from task.exception()
        if answer.result()["type"] != f"lifespan.{phase}.complete":
            raise RuntimeError(f"The application's {phase} failed: {answer.result().get('message', '')}")

    await pass_through("startup")
    yield
    await pass_through("shutdown")
    await task


async def _body(answer: httpx.Response) -> bytes:
    stream = answer.stream
    if not isinstance(stream, httpx.AsyncByteStream):
        raise TypeError("the ASGI transport answers with an asynchronous stream")
    return b"".join([part async for part in stream])
