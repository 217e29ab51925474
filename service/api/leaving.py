"""Callers who leave before their answer is there: their work is taken out of the queue."""

import asyncio
from collections.abc import Awaitable
from typing import Any, Final, TypeVar

from starlette.requests import Request

from service.errors import CallerLeft

T = TypeVar("T")

WATCH_AFTER_S: Final = 0.05


async def unless_caller_leaves(request: Request, answer: Awaitable[T]) -> T:
    """Await an answer; cancel it when the caller disconnects.

    The watch costs a task, so it begins only when an answer takes its time.

    Args:
        request: its body has been read.
        answer: not yet begun.

    Raises:
        CallerLeft: nobody is there to be answered.
    """
    watch = _Watch(request)
    alarm = asyncio.get_running_loop().call_later(WATCH_AFTER_S, watch.begin)
    try:
        return await answer
    except asyncio.CancelledError:
        if watch.left:
            raise CallerLeft("The caller closed the connection.", hint="Nobody reads this.") from None
        raise
    finally:
        alarm.cancel()
        watch.end()


class _Watch:
    """Waits for the end of the connection, then cancels the task in which it was made."""

    def __init__(self, request: Request) -> None:
        self.left = False
        self._request = request
        self._watched = asyncio.current_task()
        self._task: asyncio.Task[Any] | None = None

    def begin(self) -> None:
        self._task = asyncio.ensure_future(self._wait())

    def end(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _wait(self) -> None:
        while (await self._request.receive())["type"] != "http.disconnect":
            pass
        self.left = True
        if self._watched is not None:
            self._watched.cancel()
