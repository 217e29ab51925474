"""The free workers, given to the lane whose next request is most urgent."""

import asyncio
from collections.abc import Hashable
from typing import TYPE_CHECKING, Final

from service.lanes.fair import Shares
from service.workers import Workers

if TYPE_CHECKING:
    from service.lanes.lane import Lane

ALONE_S: Final = 0.1


class Turns:
    """The workers, and the shares that tenants have of them over all lanes.

    Attributes:
        free: workers that nothing runs on.
        shares: who is next.
    """

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.free = workers.count
        self.shares = Shares()
        self._lanes: dict[Lane, None] = {}
        self._caller: Hashable = None
        self._caller_since = 0.0

    def idle_for(self, caller: Hashable) -> bool:
        """Whether no worker is busy, and nobody but this caller has asked for a while."""
        now = asyncio.get_running_loop().time()
        if caller is None or caller != self._caller:
            self._caller, self._caller_since = caller, now
        return self.free == self.workers.count and now - self._caller_since > ALONE_S

    def offer(self, lane: "Lane") -> None:
        """A lane has work."""
        self._lanes.setdefault(lane)
        self._fill()

    def release(self) -> None:
        """A worker is free again."""
        self.free += 1
        self._fill()

    def _fill(self) -> None:
        while self.free and self._lanes:
            lane = min(self._lanes, key=lambda lane: lane.rank()) if len(self._lanes) > 1 else next(iter(self._lanes))
            del self._lanes[lane]
            if lane.start_batch():
                self.free -= 1
                self._lanes[lane] = None  # behind the others, for where two are equally urgent
