"""A lane, its engine and its workers on virtual time: nothing sleeps, and every moment is exact."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from service.engines import Stop
from service.lanes import Bounds, Lane, Terms, Turns
from service.workers import Done, Work

ENGINE_S = 0.020


class VirtualSelector(selectors.SelectSelector):
    """Instead of waiting, moves the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("everyone waits and nothing will happen")
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.virtual = VirtualSelector()
        super().__init__(self.virtual)

    def time(self) -> float:
        return self.virtual.now


def virtual(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scene())


@dataclass
class Sample:
    values: np.ndarray
    width: int = 1

    @property
    def rows(self) -> int:
        return len(self.values)


def sample(*values: float, width: int = 1) -> Sample:
    return Sample(np.array(values, float), width)


@dataclass
class Square:
    """A real engine: squares numbers of a whole batch at once. NaN breaks the batch, as a crash would."""

    batches: list[list[Sample]] = field(default_factory=list)

    def __call__(self, samples: Sequence[Sample], stop: Stop | None = None) -> list[np.ndarray]:
        self.batches.append(list(samples))
        flat = np.concatenate([s.values for s in samples]) ** 2
        if np.isnan(flat).any():
            raise RuntimeError("the engine crashed")
        return np.split(flat, np.cumsum([s.rows for s in samples])[:-1])


class VirtualWorkers:
    """Workers that take ENGINE_S for every batch."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.running = self.most_running = 0
        self.begun_at: list[float] = []

    def start(self, work: Work, done: Done) -> None:
        loop = asyncio.get_running_loop()
        self.begun_at.append(loop.time())
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            loop.call_later(ENGINE_S, self._end, done, work(), None)
        except Exception as error:  # noqa: BLE001 (as on a thread: it is the lane's to judge)
            loop.call_later(ENGINE_S, self._end, done, None, error)

    def _end(self, done: Done, result: Any, error: BaseException | None) -> None:
        self.running -= 1
        done(result, error)


@dataclass
class Stage:
    """A lane with its engine and its workers."""

    workers: VirtualWorkers
    engine: Square
    lane: Lane
    turns: Turns

    def ask(self, *samples: Sample, timeout_s: float = 60.0, **terms: Any) -> asyncio.Task[list[np.ndarray]]:
        return asyncio.create_task(self.lane.submit(samples, Terms(timeout_s, **terms)))


def stage(workers: int = 1, **bounds: Any) -> Stage:
    threads, engine = VirtualWorkers(workers), Square()
    defaults = {"batch_slots": 100, "queued": 1000, "queued_slots": 10_000, "seconds_per_slot": ENGINE_S / 100}
    turns = Turns(threads)
    return Stage(threads, engine, Lane(engine, Bounds(**{**defaults, **bounds}), turns), turns)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def now() -> float:
    return asyncio.get_running_loop().time()
