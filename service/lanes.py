"""The queue of one model: work-conserving batches by physical cost.

A request that finds a free worker starts in the same turn of the event loop. While all workers are busy requests
gather, and that is the batch: no timer stands before a dispatch. The short request of a caller who is alone on the
gateway is run on the spot. A batch takes what waits, oldest first, up to the cost at which the model is fastest, and
only structures alike enough that padding wastes little. Answers go back by position. A departed or late request never
starts; when a batch fails, each of its structures is run again alone, so that only the culprit's request fails.
"""

import asyncio
import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from service.errors import DeadlineExceeded, EngineFault, QueueFull, ServiceError, TooMany
from service.tenants import NOBODY, Priority, Tenant
from service.workers import Workers

PADDING: Final = 1.3
LOOK_AHEAD: Final = 64
FULL_ENOUGH: Final = 0.9
SHORT_S: Final = 1e-3
ALONE_S: Final = 0.1
_log: Final = structlog.get_logger("lanes")


class Sample(Protocol):
    """What a lane must know of one structure: it costs `rows * width`, in a batch `sum(rows) * max(width)`."""

    @property
    def rows(self) -> int:
        """Atoms, or whatever the family counts."""

    @property
    def width(self) -> int:
        """Slots per row; a batch pads every row to its widest."""


Compute = Callable[[Sequence[Any]], Sequence[Any]]
"""A batch's samples to as many outcomes in the same order; an outcome may be a ServiceError of that sample alone."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How a lane forms batches and how much may wait in it.

    Attributes:
        batch_slots: cost of a batch at which the model is fastest.
        queued: samples that may wait.
        queued_slots: cost that may wait.
        seconds_per_slot: how fast one worker is, for `Retry-After`.
    """

    batch_slots: int
    queued: int
    queued_slots: int
    seconds_per_slot: float


@dataclass(frozen=True, slots=True)
class Terms:
    """How a request is to be served.

    Attributes:
        timeout_s: seconds after which nobody waits any more.
        caller: who asks, such as the address of a connection; None if that is not known.
        alone: each sample is run in a batch of its own, so that its answer is bitwise the same in every company.
        tenant: who shares the gateway with others.
        priority: bulk work waits for interactive work, but for a least share.
    """

    timeout_s: float
    caller: Hashable = None
    alone: bool = False
    tenant: Tenant = NOBODY
    priority: Priority = "interactive"


@dataclass(slots=True)
class Counts:
    """What a lane has done."""

    batches: int = 0
    samples: int = 0
    slots: int = 0
    refused: int = 0
    expired: int = 0
    cancelled: int = 0
    repeated: int = 0


@dataclass(slots=True, eq=False)
class _Ticket:
    """One request: its outcomes by position, and the future that waits for all of them."""

    future: asyncio.Future[list[Any]]
    outcomes: list[Any]
    missing: int


@dataclass(slots=True, eq=False)
class _Item:
    """One sample of a request."""

    ticket: _Ticket
    position: int
    sample: Any
    rows: int
    width: int
    alone: bool

    @property
    def cost(self) -> int:
        return self.rows * self.width

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for it: not after a departure, a deadline or the failure of a sibling."""
        return not self.ticket.future.done()

    def put(self, outcome: Any) -> None:
        ticket = self.ticket
        if ticket.future.done():
            return
        if isinstance(outcome, ServiceError):
            ticket.future.set_exception(outcome)
            return
        ticket.outcomes[self.position] = outcome
        ticket.missing -= 1
        if not ticket.missing:
            ticket.future.set_result(ticket.outcomes)


class Turns:
    """The free workers, given to the lanes in turn."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers
        self.free = workers.count
        self._lanes: deque[Lane] = deque()
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
        if lane not in self._lanes:
            self._lanes.append(lane)
        self._fill()

    def release(self) -> None:
        """A worker is free again."""
        self.free += 1
        self._fill()

    def _fill(self) -> None:
        while self.free and self._lanes:
            lane = self._lanes.popleft()
            if lane.start_batch():
                self.free -= 1
                self._lanes.append(lane)


class Lane:
    """One model's queue.

    Args:
        compute: runs a batch, on a worker.
        bounds: sizes.
        turns: the workers, shared with the other lanes.
    """

    def __init__(self, compute: Compute, bounds: Bounds, turns: Turns) -> None:
        self.bounds = bounds
        self.counts = Counts()
        self.waiting_slots = 0
        self._compute = compute
        self._turns = turns
        self._waiting: deque[_Item] = deque()
        self._again: deque[_Item] = deque()

    @property
    def waiting(self) -> int:
        """Samples that wait."""
        return len(self._waiting)

    async def submit(self, samples: Sequence[Sample], terms: Terms) -> list[Any]:
        """The outcomes of these samples, in order.

        Cancelling this call takes its samples out of the queue; its batch-mates notice nothing.

        Args:
            samples: at least one.
            terms: how they are to be served.

        Raises:
            QueueFull, TooMany: more would wait than may.
            DeadlineExceeded: the time is over; what had not begun never begins.
            ServiceError: the outcome of a sample.
        """
        if (
            self._turns.idle_for(terms.caller)
            and self._is_short(samples)
            and (outcomes := self._run_here(samples, terms.alone))
        ):
            return outcomes
        loop = asyncio.get_running_loop()
        ticket = _Ticket(loop.create_future(), [None] * len(samples), len(samples))
        self._admit(
            [
                _Item(ticket, place, sample, sample.rows, sample.width, terms.alone)
                for place, sample in enumerate(samples)
            ]
        )
        alarm = loop.call_later(terms.timeout_s, self._expire, ticket, terms.timeout_s)
        self._turns.offer(self)
        try:
            return await ticket.future
        except asyncio.CancelledError:
            self.counts.cancelled += 1
            raise
        finally:
            alarm.cancel()
            if ticket.missing:
                self._forget(ticket)

    def start_batch(self) -> bool:
        """Give the next batch to a worker; False if nothing waits."""
        batch = self._take()
        if not batch:
            return False
        samples = [item.sample for item in batch]
        self._count(samples)
        self._turns.workers.start(lambda: self._compute(samples), lambda *outcome: self._finish(batch, *outcome))
        return True

    def _is_short(self, samples: Sequence[Sample]) -> bool:
        slots = sum(sample.rows for sample in samples) * max(sample.width for sample in samples)
        return slots <= self.bounds.batch_slots and 0.0 < slots * self.bounds.seconds_per_slot <= SHORT_S

    def _run_here(self, samples: Sequence[Sample], alone: bool) -> list[Any] | None:
        """Run a short batch of a lone caller on the event loop; None if it fails.

        Two changes of thread would cost this caller more than the wait would somebody who happens to come just now.
        What fails here goes the usual way, on which it fails for the culprit alone.
        """
        batches = [[sample] for sample in samples] if alone else [samples]
        try:
            outcomes = [outcome for batch in batches for outcome in self._compute(batch)]
        except Exception:  # noqa: BLE001 (whatever it is, the queue's way of judging it is the one way)
            return None
        if len(outcomes) != len(samples) or any(isinstance(outcome, ServiceError) for outcome in outcomes):
            return None
        for batch in batches:
            self._count(batch)
        return outcomes

    def _count(self, samples: Sequence[Sample]) -> None:
        self.counts.batches += 1
        self.counts.samples += len(samples)
        self.counts.slots += sum(sample.rows for sample in samples) * max(sample.width for sample in samples)

    def _admit(self, items: list[_Item]) -> None:
        """Put items at the end of the queue.

        Raises:
            TooMany: it would not fit into an empty queue.
            QueueFull: it does not fit now.
        """
        slots = sum(item.cost for item in items)
        for got, waiting, limit, unit in (
            (len(items), len(self._waiting), self.bounds.queued, "structures"),
            (slots, self.waiting_slots, self.bounds.queued_slots, "neighbour slots"),
        ):
            if got > limit:
                raise _too_many(got, limit, unit)
            if got + waiting > limit:
                self.counts.refused += 1
                raise self._full(waiting, limit, unit)
        self._waiting.extend(items)
        self.waiting_slots += slots

    def _take(self) -> list[_Item]:
        """The oldest item, and of those behind it what fits the budget and the padding."""
        while self._again:
            item = self._again.popleft()
            if item.wanted:
                return [item]
        batch: list[_Item] = []
        passed: list[_Item] = []
        rows = width = cost = 0
        while self._waiting and len(passed) < LOOK_AHEAD and cost < FULL_ENOUGH * self.bounds.batch_slots:
            item = self._waiting.popleft()
            padded = (rows + item.rows) * max(width, item.width)
            if not item.wanted:
                self.waiting_slots -= item.cost
            elif batch and (item.alone or padded > min(self.bounds.batch_slots, PADDING * (cost + item.cost))):
                passed.append(item)
            elif item.alone:
                batch, cost = [item], item.cost
                break
            else:
                batch.append(item)
                rows, width, cost = rows + item.rows, max(width, item.width), cost + item.cost
        self._waiting.extendleft(reversed(passed))
        self.waiting_slots -= cost
        return batch

    def _finish(self, batch: list[_Item], outcomes: Sequence[Any] | None, error: BaseException | None) -> None:
        """Hand the outcomes of a batch back by position, and the worker to whoever is next."""
        if error is None and outcomes is not None and len(outcomes) == len(batch):
            for item, outcome in zip(batch, outcomes, strict=True):
                item.put(outcome)
        else:
            self._repeat(batch, error or RuntimeError(f"{len(batch)} samples in, {len(outcomes or ())} outcomes out"))
        self._turns.release()

    def _repeat(self, batch: list[_Item], fault: BaseException) -> None:
        """Run each of a failed batch again alone; one that was alone is the culprit."""
        _log.error("batch failed", samples=len(batch), exc_info=fault)
        if len(batch) > 1:
            self.counts.repeated += len(batch)
            self._again.extend(batch)
            self._turns.offer(self)
        else:
            batch[0].put(_engine_fault(batch[0].position))

    def _expire(self, ticket: _Ticket, timeout_s: float) -> None:
        if not ticket.future.done():
            self.counts.expired += 1
            ticket.future.set_exception(_late(timeout_s, self._seconds(self.waiting_slots)))

    def _forget(self, ticket: _Ticket) -> None:
        """Take what still waits of a request out of the queue."""
        kept = deque(item for item in self._waiting if item.ticket is not ticket)
        if len(kept) < len(self._waiting):
            self._waiting = kept
            self.waiting_slots = sum(item.cost for item in kept)

    def _seconds(self, slots: int) -> float:
        return slots * self.bounds.seconds_per_slot / self._turns.workers.count

    def _full(self, waiting: int, limit: int, unit: str) -> QueueFull:
        wait_s = max(1, math.ceil(self._seconds(self.waiting_slots)))
        return QueueFull(
            f"{waiting:,} {unit} already wait for this model; the limit is {limit:,}.",
            hint=f"Ask again in {wait_s} s.",
            headers={"Retry-After": str(wait_s)},
            limit=limit,
            got=waiting,
            unit=unit,
            retry_after_s=wait_s,
        )


def _too_many(got: int, limit: int, unit: str) -> TooMany:
    return TooMany(
        f"The request has {got:,} {unit}; at most {limit:,} may wait.",
        hint="Send several smaller requests.",
        limit=limit,
        got=got,
        unit=unit,
    )


def _late(timeout_s: float, wait_s: float) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"The answer was not there after {timeout_s:g} s.",
        hint=f"Give it more time, or send less; about {wait_s:.1f} s of work wait for this model.",
        limit=timeout_s,
        unit="s",
    )


def _engine_fault(index: int) -> EngineFault:
    return EngineFault(
        f"The engine failed on structures[{index}].",
        hint="Report it with the request id; other structures are not affected.",
        index=index,
    )
