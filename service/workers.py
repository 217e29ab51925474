"""The threads that run engine calls: as many as may run at once, fed and heard by the event loop."""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

Work: TypeAlias = Callable[[], Any]
Done: TypeAlias = Callable[[Any, BaseException | None], None]


class Workers(Protocol):
    """Runs work away from the event loop.

    Attributes:
        count: pieces of work that run at once.
    """

    count: int

    def start(self, work: Work, done: Done) -> None:
        """Begin; `done` is called on the event loop with the result, or with None and what was raised."""


class ThreadWorkers:
    """A fixed number of threads. Handing over costs one queue and one wake-up of the loop, no future and no task."""

    def __init__(self, count: int, loop: asyncio.AbstractEventLoop) -> None:
        self.count = count
        self._loop = loop
        self._work: queue.SimpleQueue[tuple[Work, Done] | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(target=self._run, name=f"understudy-worker-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def start(self, work: Work, done: Done) -> None:
        """Begin as soon as a thread is free."""
        self._work.put((work, done))

    def close(self) -> None:
        """End the threads after what was started."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (job := self._work.get()) is not None:
            work, done = job
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:  # noqa: BLE001 (it is the caller's to judge, on the loop)
                error = raised
            self._loop.call_soon_threadsafe(done, result, error)
            del job, work, done, result, error
