"""What a lane is asked, on which terms, and within which bounds."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, Self, TypeAlias

from service.engines import Stop
from service.meters import Work
from service.tenants import NOBODY, Priority, Tenant

PADDING: Final = 1.3
"""A batch may cost so many times what its samples cost alone."""


class Sample(Protocol):
    """What a lane must know of one structure: it costs `rows * width`, in a batch `sum(rows) * max(width)`."""

    @property
    def rows(self) -> int:
        """Atoms, or whatever the family counts."""

    @property
    def width(self) -> int:
        """Slots per row; a batch pads every row to its widest."""


Compute: TypeAlias = Callable[[Sequence[Any], Stop | None], Sequence[Any]]
"""A batch's samples to as many outcomes in the same order; an outcome may be a ServiceError of that sample alone.

While it runs it may be told to stop; then it may raise anything."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How a lane forms batches and how much may wait in it.

    Attributes:
        batch_slots: cost of a batch at which the model is fastest.
        queued: samples that may wait.
        queued_slots: cost that may wait.
        seconds_per_slot: how fast one worker is, as measured at admission; 0 if that is not known.
        together: whether samples share batches at all; some models are slower for it.
    """

    batch_slots: int
    queued: int
    queued_slots: int
    seconds_per_slot: float
    together: bool = True


@dataclass(frozen=True, slots=True)
class Terms:
    """How a request is to be served.

    Attributes:
        timeout_s: seconds after which nobody waits any more.
        spent_s: of the time that the request was given, what was over before it came here; for messages.
        caller: who asks, such as the address of a connection; None if that is not known.
        alone: each sample is run in a batch of its own, so that its answer is bitwise the same in every company.
        tenant: who shares the gateway with others.
        priority: bulk work waits for interactive work, but for a least share.
        work: is told what was done for the request, and when.
    """

    timeout_s: float
    caller: Hashable = None
    alone: bool = False
    tenant: Tenant = NOBODY
    priority: Priority = "interactive"
    work: Work | None = None
    spent_s: float = 0.0

    def with_left(self, left_s: float) -> Self:
        """The same when so much of the time is left, a little at least."""
        return replace(self, timeout_s=max(1e-3, left_s), spent_s=self.spent_s + self.timeout_s - left_s)


def cost_of(samples: Sequence[Sample]) -> int:
    """Neighbour slots of a batch, padding included."""
    return sum(sample.rows for sample in samples) * max(sample.width for sample in samples)
