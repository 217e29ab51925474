"""A gateway inside this process: `Client(transport=InProcess(app))` needs no port and no second terminal."""

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any, TypeAlias

import anyio
import httpx
from anyio.abc import TaskStatus
from anyio.from_thread import start_blocking_portal

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
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal())
        self._asgi = httpx.ASGITransport(app, raise_app_exceptions=False)
        try:
            self._stack.enter_context(self._portal.wrap_async_context_manager(lifespan(app)))
        except BaseException:
            self._stack.close()
            raise

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One request through the application."""
        content = request.read()
        asked = httpx.Request(request.method, request.url, headers=request.headers, content=content)
        return self._portal.call(self._answer, asked)

    def close(self) -> None:
        """Shut the application down and end the thread."""
        self._stack.close()

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        answer = await self._asgi.handle_async_request(request)
        return httpx.Response(answer.status_code, headers=answer.headers.raw, content=await _body(answer))


@asynccontextmanager
async def lifespan(app: App) -> AsyncIterator[None]:
    """The ASGI lifespan protocol from the server's side: start up, run the block, shut down.

    Source: https://asgi.readthedocs.io/en/latest/specs/lifespan.html
    """
    to_app, app_reads = anyio.create_memory_object_stream[Message](1)
    from_app, we_read = anyio.create_memory_object_stream[Message](1)

    async def serve(*, task_status: TaskStatus[None]) -> None:
        task_status.started()
        with from_app:
            await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, app_reads.receive, from_app.send)

    with to_app, app_reads, we_read:
        async with anyio.create_task_group() as tasks:
            await tasks.start(serve)
            for phase in ("startup", "shutdown"):
                await to_app.send({"type": f"lifespan.{phase}"})
                answer = await we_read.receive()
                if answer["type"] != f"lifespan.{phase}.complete":
                    raise RuntimeError(f"The application's {phase} failed: {answer.get('message', '')}")
                if phase == "startup":
                    yield


async def _body(answer: httpx.Response) -> bytes:
    stream = answer.stream
    if not isinstance(stream, httpx.AsyncByteStream):
        raise TypeError("the ASGI transport answers with an asynchronous stream")
    return b"".join([part async for part in stream])
