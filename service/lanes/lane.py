"""The queue of one model: work-conserving batches by physical cost.

A request that finds a free worker starts in the same turn of the event loop. While all workers are busy requests
gather, and that is the batch: no timer stands before a dispatch. The short request of a caller who is alone on the
gateway is run on the spot. A batch takes what waits, in the order that is fair, up to the cost at which the model is
fastest, and only structures alike enough that padding wastes little. Answers go back by position. A departed or late
request never starts, and a running batch that nobody waits for any more is stopped. When a batch fails, each of its
structures is run again alone, so that only the culprit's request fails; when memory is short, its halves are.
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from service.errors import ServiceError
from service.lanes import refusals
from service.lanes.fair import Queue, Rank
from service.lanes.memory import free_bytes, is_out_of_memory
from service.lanes.pace import Pace
from service.lanes.terms import PADDING, Bounds, Compute, Sample, Terms, cost_of
from service.lanes.tickets import Batch, Item, Ticket
from service.lanes.turns import Turns
from service.meters import Meter

LOOK_AHEAD: Final = 64
FULL_ENOUGH: Final = 0.9
SHORT_S: Final = 2.5e-3
HEAD_ROOM: Final = 0.9
RECOVERY_S: Final = 60.0
RECOVERY: Final = 1.1
AGAIN: Final[Rank] = (-1, 0.0)
_log: Final = structlog.get_logger("lanes")


@dataclass(slots=True)
class Counts:
    """What a lane has done."""

    batches: int = 0
    samples: int = 0
    slots: int = 0
    refused: int = 0
    refused_share: int = 0
    refused_budget: int = 0
    refused_deadline: int = 0
    expired: int = 0
    cancelled: int = 0
    stopped: int = 0
    repeated: int = 0
    out_of_memory: int = 0


class Lane:
    """One model's queue.

    Args:
        compute: runs a batch, on a worker.
        bounds: sizes.
        turns: the workers, shared with the other lanes.

    Attributes:
        budget_slots: cost of a batch at present: less than the model's best where memory was short.
        together: whether samples share batches.
        meter: what it has taken.
    """

    def __init__(self, compute: Compute, bounds: Bounds, turns: Turns) -> None:
        self.bounds = bounds
        self.budget_slots = bounds.batch_slots
        self.together = bounds.together
        self.counts = Counts()
        self.meter = Meter()
        self._compute = compute
        self._turns = turns
        self._pace = Pace(bounds)
        self._queue = Queue(turns.shares, self._pace.charge_s)
        self._again: deque[list[Item]] = deque()
        self._running: set[Batch] = set()
        self._resized_at = 0.0

    @property
    def waiting(self) -> int:
        """Samples that wait."""
        return self._queue.count

    @property
    def waiting_slots(self) -> int:
        """Their cost."""
        return self._queue.slots

    @property
    def waiting_s(self) -> float:
        """For how long the oldest of them has waited."""
        oldest = self._queue.oldest()
        return 0.0 if oldest is None else max(0.0, asyncio.get_running_loop().time() - oldest)

    async def submit(self, samples: Sequence[Sample], terms: Terms) -> list[Any]:
        """The outcomes of these samples, in order.

        Cancelling this call takes its samples out of the queue; its batch-mates notice nothing.

        Args:
            samples: at least one.
            terms: how they are to be served.

        Raises:
            QueueFull, TooMany, OverBudget: more would wait, or was asked for, than may.
            DeadlineExceeded: the time is over, or too short; what had not begun never begins.
            ServiceError: the outcome of a sample.
        """
        if terms.work is not None:
            terms.work.queued, terms.work.slots = (
                time.monotonic(),
                sum(sample.rows * sample.width for sample in samples),
            )
        self._refuse_spent(terms)
        if (
            self._turns.idle_for(terms.caller)
            and self._is_short(samples)
            and (outcomes := self._run_here(samples, terms))
        ):
            self._spend(terms, samples)
            return outcomes
        loop = asyncio.get_running_loop()
        ticket = Ticket(loop.create_future(), [None] * len(samples), len(samples), terms, loop.time() + terms.timeout_s)
        items = [Item(ticket, place, sample, sample.rows, sample.width) for place, sample in enumerate(samples)]
        self._refuse_hopeless(items, terms)
        self._refuse_full(items, terms)
        self._spend(terms, samples)
        for item in items:
            self._queue.push(item)
        alarm = loop.call_at(ticket.deadline, self._expire, ticket)
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

    def rank(self) -> Rank:
        """How urgent the next batch is, least first."""
        return AGAIN if self._again else self._queue.rank()

    def start_batch(self) -> bool:
        """Give the next batch to a worker; False if nothing waits."""
        items = self._take()
        if not items:
            return False
        samples = [item.sample for item in items]
        self._count(samples)
        begun = time.monotonic()
        for work in (item.ticket.terms.work for item in items):
            if work is not None:
                work.begin(begun)
        batch = Batch(items, cost_of(samples), asyncio.get_running_loop().time())
        self._running.add(batch)
        self._turns.workers.start(lambda: self._run(batch), lambda *outcome: self._finish(batch, *outcome))
        return True

    def stop_sharing(self) -> None:
        """From now on every sample is run in a batch of its own."""
        self.together = False

    def _is_short(self, samples: Sequence[Sample]) -> bool:
        slots = cost_of(samples)
        return slots <= self.budget_slots and 0.0 < slots * self.bounds.seconds_per_slot <= SHORT_S

    def _run_here(self, samples: Sequence[Sample], terms: Terms) -> list[Any] | None:
        """Run a short batch of a lone caller on the event loop; None if it fails.

        Two changes of thread would cost this caller more than the wait would somebody who happens to come just now.
        What fails here goes the usual way, on which it fails for the culprit alone.
        """
        batches = [samples] if self.together and not terms.alone else [[sample] for sample in samples]
        if terms.work is not None:
            terms.work.begin(terms.work.queued)
        try:
            answers = [self._compute(batch, None) for batch in batches]
        except Exception:  # noqa: BLE001 (whatever it is, the queue's way of judging it is the one way)
            return None
        outcomes = [outcome for answer in answers for outcome in answer]
        if len(outcomes) != len(samples) or any(isinstance(outcome, ServiceError) for outcome in outcomes):
            return None
        for batch, answer in zip(batches, answers, strict=True):
            self._count(batch)
            self.meter.called(answer, cost_of(batch), [terms.work])
        return outcomes

    def _count(self, samples: Sequence[Sample]) -> None:
        self.counts.batches += 1
        self.counts.samples += len(samples)
        self.counts.slots += cost_of(samples)

    def _refuse_spent(self, terms: Terms) -> None:
        """Refuse a tenant that is out of credit.

        Raises:
            OverBudget
        """
        budget = terms.tenant.budget
        if budget is not None and (wait_s := budget.wait_s(asyncio.get_running_loop().time())) > 0:
            self.counts.refused_budget += 1
            raise refusals.over_budget(terms.tenant.name, wait_s)

    def _spend(self, terms: Terms, samples: Sequence[Sample]) -> None:
        if terms.tenant.budget is not None:
            terms.tenant.budget.spend(sum(sample.rows * sample.width for sample in samples))

    def _refuse_hopeless(self, items: Sequence[Item], terms: Terms) -> None:
        """Refuse what could not be done in time even if it began now.

        Raises:
            DeadlineExceeded
        """
        costs = [item.cost for item in items]
        slots = max(*costs, sum(costs) // self._turns.workers.count)
        if terms.timeout_s < self._pace.at_least_s(slots):
            self.counts.refused_deadline += 1
            raise refusals.hopeless(terms.timeout_s, self._pace.seconds(slots))

    def _refuse_full(self, items: Sequence[Item], terms: Terms) -> None:
        """Refuse what may not wait.

        Whoever has something waiting may have no more than what is still free then, so that there is room for others,
        however many ask for too much (Choudhury and Hahne, IEEE/ACM Transactions on Networking 6, 130, 1998).

        Raises:
            TooMany: it would not fit into an empty queue.
            QueueFull: it does not fit now.
        """
        slots = sum(item.cost for item in items)
        if 2 * (self.waiting + len(items)) <= self.bounds.queued and (
            2 * (self.waiting_slots + slots) <= self.bounds.queued_slots
        ):
            return  # half of the room is free: whoever has the rest
        ours = self._queue.of(terms.tenant)
        for got, waiting, own, limit, unit in (
            (len(items), self.waiting, ours[0], self.bounds.queued, "structures"),
            (slots, self.waiting_slots, ours[1], self.bounds.queued_slots, "neighbour slots"),
        ):
            if got > limit:
                raise refusals.too_many(got, limit, unit)
            if got + waiting > limit:
                self.counts.refused += 1
                raise refusals.queue_full(waiting, limit, unit, self._wait_s())
            if own and own + got > limit - waiting - got:
                self.counts.refused_share += 1
                own_s = self._seconds(ours[1]) / self._queue.share_of(terms.tenant)
                raise refusals.share_full(own, max(0, limit - waiting), unit, min(own_s, self._wait_s()))

    def _take(self) -> list[Item]:
        """Whoever is next, and of those behind what fits the budget and the padding."""
        while self._again:
            items = [item for item in self._again.popleft() if item.wanted]
            if items:
                return items
        batch: list[Item] = []
        passed: list[Item] = []
        gone: list[Item] = []
        rows = width = cost = 0
        now = asyncio.get_running_loop().time()
        for item in self._queue.in_turn():
            alone = item.ticket.terms.alone or not self.together
            padded = (rows + item.rows) * max(width, item.width)
            if not item.wanted or now >= item.ticket.deadline:
                gone.append(item)
            elif batch and (alone or padded > min(self.budget_slots, PADDING * (cost + item.cost))):
                passed.append(item)
            else:
                batch.append(item)
                rows, width, cost = rows + item.rows, max(width, item.width), cost + item.cost
                if alone or cost >= FULL_ENOUGH * self.budget_slots:
                    break
            if len(passed) >= LOOK_AHEAD:
                break
        self._queue.put_back(passed)
        self._queue.drop(gone)
        self._queue.begin(batch)
        return batch

    def _run(self, batch: Batch) -> Sequence[Any]:
        """On a worker: what is still wanted of a batch, through the engine."""
        batch.items = [item for item in batch.items if item.wanted]
        return self._compute([item.sample for item in batch.items], batch.stop) if batch.items else ()

    def _finish(self, batch: Batch, outcomes: Sequence[Any] | None, error: BaseException | None) -> None:
        """Hand the outcomes of a batch back by position, and the worker to whoever is next."""
        self._running.discard(batch)
        items = batch.items
        if error is None and outcomes is not None and len(outcomes) == len(items):
            if items:
                self._pace.saw(batch.slots, asyncio.get_running_loop().time() - batch.begun)
                self.meter.called(outcomes, batch.slots, [item.ticket.terms.work for item in items])
            for item, outcome in zip(items, outcomes, strict=True):
                item.put(outcome)
            self._recover()
        elif error is not None and is_out_of_memory(error):
            self._split(batch, error)
        elif not batch.stop.asked:
            self._repeat(items, error or RuntimeError(f"{len(items)} samples in, {len(outcomes or ())} outcomes out"))
        self._turns.release()

    def _repeat(self, items: list[Item], fault: BaseException) -> None:
        """Run each of a failed batch again alone; one that was alone is the culprit."""
        _log.error("batch failed", samples=len(items), exc_info=fault)
        if len(items) > 1:
            self.counts.repeated += len(items)
            self._again.extend([item] for item in items)
            self._turns.offer(self)
        else:
            items[0].put(refusals.engine_fault(items[0]))

    def _split(self, batch: Batch, shortage: BaseException) -> None:
        """Run the halves of a batch for which memory was short, and make smaller ones from now on."""
        items, half = batch.items, len(batch.items) // 2
        self.counts.out_of_memory += 1
        _log.warning("out of memory", samples=len(items), slots=batch.slots, reason=str(shortage)[:200])
        if half:
            self.counts.repeated += len(items)
            self.budget_slots = max(1, min(self.budget_slots, int(HEAD_ROOM * batch.slots / 2)))
            self._resized_at = asyncio.get_running_loop().time()
            self._again.extend((items[:half], items[half:]))
            self._turns.offer(self)
        else:
            items[0].put(refusals.out_of_memory(items[0], free_bytes(shortage)))

    def _recover(self) -> None:
        """Every minute without a shortage, larger batches again: whatever took the memory may be gone."""
        now = asyncio.get_running_loop().time()
        if self.budget_slots < self.bounds.batch_slots and now - self._resized_at >= RECOVERY_S:
            self.budget_slots = min(self.bounds.batch_slots, math.ceil(RECOVERY * self.budget_slots))
            self._resized_at = now

    def _expire(self, ticket: Ticket) -> None:
        if not ticket.future.done():
            self.counts.expired += 1
            ticket.future.set_exception(refusals.late(ticket.terms.spent_s + ticket.terms.timeout_s, self._wait_s()))

    def _forget(self, ticket: Ticket) -> None:
        """Take what still waits of a request out of the queue, and stop what runs for nobody else."""
        self._queue.forget(ticket)
        for batch in self._running:
            if batch.abandoned and not batch.stop.asked:
                self.counts.stopped += 1
                batch.stop.ask()

    def _seconds(self, slots: int) -> float:
        """How long all workers take for so much work."""
        return self._pace.seconds(slots) / self._turns.workers.count

    def _wait_s(self) -> float:
        return self._seconds(self.waiting_slots)
