"""Who looks over the shoulder of live traffic: each exchange is shown after it was answered.

A follower may repeat a request (alone, on another version, with the teacher) and compare. It never delays the answer
that it looks at and never fails it; what it asks itself is bounded in number.
"""

import asyncio
from typing import Final, Generic, Protocol, TypeVar

import structlog

E_contra = TypeVar("E_contra", contravariant=True)
E = TypeVar("E")

AT_ONCE: Final = 4
WAITING: Final = 256
_log: Final = structlog.get_logger("followers")


class Follower(Protocol[E_contra]):
    """Looks at some of the exchanges."""

    name: str

    def wants(self, exchange: E_contra) -> bool:
        """Whether to look at this one; cheap, for it is asked at every answer."""

    async def follow(self, exchange: E_contra) -> None:
        """Look; what goes wrong here is logged and harms nobody."""


class Followers(Generic[E]):
    """Shows exchanges to followers, a few at once; what comes while too many wait is not looked at.

    Attributes:
        missed: exchanges that a follower wanted while too many waited.
    """

    def __init__(self) -> None:
        self.missed = 0
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._followers: list[Follower[E]] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, follower: Follower[E]) -> None:
        """From now on this one is shown every exchange."""
        self._followers.append(follower)

    def show(self, exchange: E) -> None:
        """Show an exchange that was answered; returns at once."""
        for follower in self._followers:
            if follower.wants(exchange):
                self._begin(follower, exchange)

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, follower: Follower[E], exchange: E) -> None:
        if len(self._tasks) >= WAITING:
            self.missed += 1
            return
        task = asyncio.get_running_loop().create_task(self._follow(follower, exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, follower: Follower[E], exchange: E) -> None:
        try:
            async with self._turns:
                await follower.follow(exchange)
        except Exception:  # noqa: BLE001 (whatever it is, it must not reach the traffic)
            _log.warning("follower failed", follower=follower.name, exc_info=True)
