"""What a lane and its requests took: histograms, durations, and the stamps of each engine call.

All of it is written on the event loop and read there, so nothing is locked. Stamps are `time.monotonic()` seconds.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

SECONDS: Final = (2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SLOTS: Final = (100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6)
COUNTS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Histogram:
    """Counts of values by upper bound, and their sum.

    Args:
        bounds: ascending; a value belongs to the first that is not below it.
    """

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """One more value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def cumulative(self) -> list[tuple[str, float]]:
        """Upper bound and how many values are not above it, as Prometheus has them."""
        rows, total = [], 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


@dataclass(slots=True)
class Duration:
    """How often, and how long in all."""

    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float) -> None:
        """Once more."""
        self.count += 1
        self.seconds += seconds


class Stamps(NamedTuple):
    """When an engine call collated its samples, ran, had run, and had its answers apart again."""

    begun: float
    collated: float
    ran: float
    decoded: float


class Outcomes(list[Any]):
    """The outcomes of a batch, and when it did what."""

    __slots__ = ("stamps",)

    def __init__(self, outcomes: Sequence[Any], stamps: Stamps) -> None:
        super().__init__(outcomes)
        self.stamps = stamps


@dataclass(slots=True, eq=False)
class Call:
    """One engine call.

    Attributes:
        slots: cost, padding included.
        samples: structures that shared it.
        context: of its span, once a traced request that was in it has ended.
    """

    stamps: Stamps
    slots: int
    samples: int
    context: Any = None


@dataclass(slots=True, eq=False)
class Work:
    """What one request had done in one lane.

    Attributes:
        encoded: when its neighbour lists were begun, and when they were there.
        queued: when it was submitted to the lane, and begun: when its first engine call was; 0 before.
        slots: cost of its structures.
        calls: the engine calls it was in.
        ended: when its answer was there.
    """

    model: Any
    encoded: tuple[float, float] = (0.0, 0.0)
    queued: float = 0.0
    begun: float = 0.0
    slots: int = 0
    calls: list[Call] = field(default_factory=list)
    ended: float = 0.0

    @property
    def queue_s(self) -> float:
        """Seconds until its first engine call began; or until it ended, if none did."""
        return (self.begun or self.ended) - self.queued if self.queued else 0.0

    def begin(self, now: float) -> None:
        """An engine call with some of it begins."""
        self.begun = self.begun or now


@dataclass(slots=True, eq=False)
class Meter:
    """What one lane has taken.

    Attributes:
        encode_s: seconds for neighbour lists, by request; queue_s: waiting for an engine, by request.
        collate_s, engine_s, decode_s: stages of an engine call.
        batch_slots, batch_samples: cost and structures of an engine call.
        success, fail, queue, compute_input, compute_infer, compute_output: of requests, as KServe has them.
    """

    encode_s: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    queue_s: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    collate_s: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    engine_s: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    decode_s: Histogram = field(default_factory=lambda: Histogram(SECONDS))
    batch_slots: Histogram = field(default_factory=lambda: Histogram(SLOTS))
    batch_samples: Histogram = field(default_factory=lambda: Histogram(COUNTS))
    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)

    def called(self, outcomes: Sequence[Any], slots: int, works: Sequence[Work | None]) -> None:
        """An engine call came back; `works` of its samples are told."""
        if not isinstance(outcomes, Outcomes):
            return
        begun, collated, ran, decoded = stamps = outcomes.stamps
        self.collate_s.observe(collated - begun)
        self.engine_s.observe(ran - collated)
        self.decode_s.observe(decoded - ran)
        self.batch_slots.observe(slots)
        self.batch_samples.observe(len(outcomes))
        call = Call(stamps, slots, len(outcomes))
        for work in works:
            if work is not None and (not work.calls or work.calls[-1] is not call):
                work.calls.append(call)

    def answered(self, work: Work) -> None:
        """A request has all its answers."""
        self.queue_s.observe(work.queue_s)
        self.success.add(work.ended - work.encoded[0])
        self.queue.add(work.queue_s)
        self.compute_input.add(
            work.encoded[1] - work.encoded[0] + sum(c.stamps.collated - c.stamps.begun for c in work.calls)
        )
        self.compute_infer.add(sum(c.stamps.ran - c.stamps.collated for c in work.calls))
        self.compute_output.add(sum(c.stamps.decoded - c.stamps.ran for c in work.calls))

    def failed(self, work: Work) -> None:
        """A request ended without."""
        self.fail.add(work.ended - work.encoded[0])
