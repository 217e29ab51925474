"""Memory that is short, deadlines that pass, callers who leave at every stage: the others notice nothing."""

import asyncio
import itertools
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage import ENGINE_S, Sample, Square, VirtualWorkers, now, sample, settle, stage, virtual

from service.engines import Stop
from service.errors import DeadlineExceeded, OutOfMemory
from service.lanes import Bounds, Lane, Terms, Turns
from service.lanes.lane import HEAD_ROOM, RECOVERY_S
from service.lanes.memory import free_bytes, is_out_of_memory
from service.workers import ThreadWorkers

SHORTAGES = {
    "ONNX Runtime": "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running MatMul "
    "node. Name:'m' Status Message: bfc_arena.cc:376 Failed to allocate memory for requested buffer of size 4294967296",
    "ONNX Runtime's arena at its limit": "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bfc_arena.cc:342 Available "
    "memory of 1048576 is smaller than requested bytes of 4194304",
    "ONNX Runtime on the CPU": "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc",
    "CUDA": "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; expr=cudaMalloc((void**)&p, size);",
    "CUDA by name": "cudaErrorMemoryAllocation: the API call was unable to get enough memory",
    "cuBLAS": "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
    "PyTorch on CUDA": "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.15 GiB of "
    "which 10.50 GiB is free. Process 1 has 68.64 GiB memory in use.",
    "PyTorch on the CPU": "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 400000000000 bytes. Error code 12 (Cannot allocate memory)",
    "PyTorch on Windows": "DefaultCPUAllocator: not enough memory: you tried to allocate 400000000000 bytes.",
    "Triton": "[StatusCode.INTERNAL] in ensemble, failed to allocate memory for output tensor: out of memory",
    "NumPy": "Unable to allocate 74.5 GiB for an array with shape (100000, 100000) and data type float64",
}


@dataclass
class SmallMemory(Square):
    """An engine whose memory holds so many padded slots, and says so as an engine does."""

    holds: int = 10
    says: BaseException = field(default_factory=lambda: RuntimeError(SHORTAGES["ONNX Runtime"]))

    def __call__(self, samples: Sequence[Sample], stop: Stop | None = None) -> list[np.ndarray]:
        if sum(s.rows for s in samples) * max(s.width for s in samples) > self.holds:
            self.batches.append(list(samples))
            raise self.says
        return super().__call__(samples, stop)


def small_memory(workers: int = 1, **engine: Any) -> tuple[SmallMemory, Lane, VirtualWorkers]:
    threads, square = VirtualWorkers(workers), SmallMemory(**engine)
    return square, Lane(square, Bounds(100, 1_000, 100_000, ENGINE_S / 100), Turns(threads)), threads


def ask(lane: Lane, *samples: Sample, **terms: Any) -> asyncio.Task[list[Any]]:
    return asyncio.create_task(lane.submit(samples, Terms(60.0, **terms)))


# ---------------------------------------------------------------- memory


@pytest.mark.parametrize("text", SHORTAGES.values(), ids=SHORTAGES)
def test_every_engine_s_way_to_say_that_memory_is_short_is_understood(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))
    _, lane, _ = small_memory(says=RuntimeError(text))

    async def scene() -> None:
        answers = await asyncio.gather(*[ask(lane, sample(n, n, n)) for n in range(1, 9)])
        assert [a[0][0] for a in answers] == [n**2 for n in range(1, 9)]

    virtual(scene)
    assert lane.counts.out_of_memory > 0


@pytest.mark.parametrize("error", [RuntimeError("Invalid memory layout"), ValueError("shape"), KeyError("energy")])
def test_other_failures_are_not_taken_for_it(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_python_s_own_shortage_is_understood() -> None:
    assert is_out_of_memory(MemoryError())


def test_what_was_free_is_as_the_engine_says_or_as_the_machine_has_it() -> None:
    assert free_bytes(RuntimeError(SHORTAGES["PyTorch on CUDA"])) == int(10.5 * 2**30)
    assert free_bytes(RuntimeError(SHORTAGES["ONNX Runtime's arena at its limit"])) == 1048576
    machine = free_bytes(RuntimeError("out of memory"))
    assert machine is not None
    assert machine > 0


@settings(deadline=None)
@given(sizes=st.lists(st.integers(1, 14), min_size=1, max_size=40), workers=st.integers(1, 3))
def test_a_batch_too_large_for_memory_is_halved_until_it_fits(sizes: list[int], workers: int) -> None:
    async def scene() -> None:
        engine, lane, _ = small_memory(workers)
        first = [ask(lane, sample(0.0)) for _ in range(workers)]
        await settle()
        tasks = [ask(lane, Sample(np.full(n, float(n)))) for n in sizes]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*first)
        for n, outcome in zip(sizes, outcomes, strict=True):
            if n > 10:
                assert isinstance(outcome, OutOfMemory)
                assert (outcome.status, outcome.facts["index"], outcome.facts["got"]) == (507, 0, n)
            else:
                assert outcome[0].tolist() == [n**2] * n  # type: ignore[index]
        runs = [sum(any(s is t for t in batch) for batch in engine.batches) for batch in engine.batches for s in batch]
        assert max(runs) <= 1 + math.ceil(math.log2(max(len(sizes), 2)))
        assert lane.waiting == lane.waiting_slots == 0

    virtual(scene)


def test_the_lane_learns_how_much_fits_and_keeps_head_room() -> None:
    async def scene() -> None:
        engine, lane, _ = small_memory()
        await asyncio.gather(*[ask(lane, sample(1.0)) for _ in range(100)])
        assert lane.budget_slots <= 10
        shortages, counted = len(engine.batches), lane.counts.out_of_memory
        await asyncio.gather(*[ask(lane, sample(1.0)) for _ in range(100)])
        assert lane.counts.out_of_memory == counted
        assert all(len(batch) <= 10 for batch in engine.batches[shortages:])
        assert lane.budget_slots >= int(HEAD_ROOM * (10 + 1) / 2)

    virtual(scene)


def test_batches_grow_again_when_memory_has_not_been_short_for_a_while() -> None:
    async def scene() -> None:
        engine, lane, _ = small_memory()
        await asyncio.gather(*[ask(lane, sample(1.0)) for _ in range(100)])
        small = lane.budget_slots
        await ask(lane, sample(1.0))
        assert lane.budget_slots == small
        engine.holds = 1_000
        for _ in range(40):
            await asyncio.sleep(RECOVERY_S)
            await ask(lane, sample(1.0))
        assert lane.budget_slots == lane.bounds.batch_slots

    virtual(scene)


def test_the_structure_that_does_not_fit_is_named_with_its_cost_and_what_was_free() -> None:
    async def scene() -> None:
        _, lane, _ = small_memory(says=RuntimeError(SHORTAGES["PyTorch on CUDA"]))
        mates = [ask(lane, sample(1.0)) for _ in range(3)]
        with pytest.raises(OutOfMemory, match=r"structures\[1\].*10,752 MiB") as refusal:
            await ask(lane, sample(1.0), Sample(np.ones(11), width=2), sample(2.0))
        assert refusal.value.facts == {
            "index": 1, "got": 22, "unit": "neighbour slots", "free_bytes": int(10.5 * 2**30)
        }  # fmt: skip
        await asyncio.gather(*mates)

    virtual(scene)


# ---------------------------------------------------------------- deadlines


def test_a_time_that_cannot_suffice_is_refused_at_once_with_the_time_needed() -> None:
    async def scene() -> None:
        lane = stage(batch_slots=100, seconds_per_slot=ENGINE_S / 100)
        begin = now()
        with pytest.raises(DeadlineExceeded) as refusal:
            await lane.ask(Sample(np.ones(1000)), timeout_s=ENGINE_S)
        assert now() == begin
        assert refusal.value.facts["needed_s"] == pytest.approx(10 * ENGINE_S)
        assert lane.engine.batches == []
        assert lane.lane.counts.refused_deadline == 1
        await lane.ask(Sample(np.ones(1000)), timeout_s=20 * ENGINE_S)

    virtual(scene)


def test_a_machine_faster_than_the_card_says_refuses_nothing_that_it_can_do() -> None:
    async def scene() -> None:
        lane = stage(batch_slots=100, seconds_per_slot=ENGINE_S)
        for _ in range(100):
            await lane.ask(Sample(np.ones(100)))
        await lane.ask(Sample(np.ones(100)), timeout_s=1.5 * ENGINE_S)

    virtual(scene)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.floats(0.05, 4.0)), min_size=1, max_size=30))
def test_no_engine_call_begins_with_work_whose_time_is_over(asked: list[tuple[int, float]]) -> None:
    async def scene() -> None:
        lane, deadlines = stage(batch_slots=40), {}
        begun: list[tuple[float, Sample]] = []
        real = lane.lane._compute

        def compute(samples: Sequence[Sample], stop: Stop | None) -> Sequence[Any]:
            begun.extend((now(), one) for one in samples)
            return real(samples, stop)

        lane.lane._compute = compute
        tasks = []
        for rows, patience in asked:
            one = Sample(np.full(rows, 1.0))
            deadlines[id(one)] = now() + patience * ENGINE_S
            tasks.append(lane.ask(one, timeout_s=patience * ENGINE_S))
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(when < deadlines[id(one)] for when, one in begun)
        assert all(isinstance(o, list | DeadlineExceeded) for o in outcomes)

    virtual(scene)


# ---------------------------------------------------------------- leaving, with real threads and real futures


BLOCKER = 9.0


class Gates:
    """An engine on real threads: calls with the blocker wait, and so do the others at the moment of the test."""

    def __init__(self, moment: str) -> None:
        self.moment = moment
        self.arrived, self.open, self.unblocked = threading.Event(), threading.Event(), threading.Event()
        self.calls: list[list[float]] = []
        self.stopped = 0

    def __call__(self, samples: Sequence[Sample], stop: Stop | None = None) -> list[np.ndarray]:
        if samples[0].values[0] == BLOCKER:
            assert self.unblocked.wait(30.0)
        else:
            self.calls.append([float(s.values[0]) for s in samples])
            self._pass("collate")
            assert stop is not None
            stop.by(self.open.set)
            self._pass("run")
            if stop.asked:
                self.stopped += 1
                raise RuntimeError("Exiting due to terminate flag being set to true.")
        return [s.values**2 for s in samples]

    def _pass(self, moment: str) -> None:
        if moment == self.moment:
            self.arrived.set()
            assert self.open.wait(30.0)


SUBSETS = [subset for n in range(5) for subset in itertools.combinations(range(4), n)]


@pytest.mark.parametrize("leaving", SUBSETS, ids=str)
@pytest.mark.parametrize("moment", ["queue", "collate", "run", "reply"])
def test_whoever_leaves_at_whatever_stage_changes_nothing_for_the_others(leaving: tuple[int, ...], moment: str) -> None:
    async def scene() -> None:
        workers = ThreadWorkers(1, asyncio.get_running_loop())
        engine = Gates(moment)
        lane = Lane(engine, Bounds(100, 100, 1_000, 0.0), Turns(workers))
        first = ask(lane, sample(BLOCKER))
        tasks = [ask(lane, sample(float(n), float(n))) for n in range(4)]
        await settle()

        def leave() -> None:
            for n in leaving:
                tasks[n].cancel()

        if moment == "queue":
            leave()
            await settle()
        if moment == "reply":
            _after(lane, lambda: leave() if engine.calls else None)
        engine.unblocked.set()
        if moment in ("collate", "run"):
            assert await asyncio.to_thread(engine.arrived.wait, 30.0)
            leave()
            await settle()
            engine.open.set()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for n, outcome in enumerate(outcomes):
            if n in leaving:
                assert isinstance(outcome, asyncio.CancelledError)
            else:
                assert outcome[0].tolist() == [n**2, n**2]  # type: ignore[index]
        assert (await first)[0] == [BLOCKER**2]
        staying = [float(n) for n in range(4) if moment != "queue" or n not in leaving]
        assert engine.calls == ([staying] if staying else [])
        everyone_left = len(leaving) == 4 and moment in ("collate", "run")
        assert lane.counts.stopped == everyone_left
        assert (await ask(lane, sample(BLOCKER)))[0] == [BLOCKER**2]
        assert lane.waiting == lane.waiting_slots == lane.counts.repeated == 0
        assert engine.stopped == everyone_left
        await asyncio.to_thread(workers.close)

    asyncio.run(scene())


def _after(lane: Lane, also: Callable[[], None]) -> None:
    """Right after the answers were handed out, before anyone has read them."""
    finish = lane._finish

    def finish_and(*outcome: Any) -> None:
        finish(*outcome)
        also()

    lane._finish = finish_and  # type: ignore[method-assign]


def test_a_batch_that_is_stopped_is_nobody_s_fault() -> None:
    async def scene() -> None:
        workers = ThreadWorkers(1, asyncio.get_running_loop())
        engine = Gates("run")
        lane = Lane(engine, Bounds(100, 100, 1_000, 0.0), Turns(workers))
        late = asyncio.create_task(lane.submit([sample(1.0)], Terms(0.05)))
        assert await asyncio.to_thread(engine.arrived.wait, 30.0)
        with pytest.raises(DeadlineExceeded):
            await late
        engine.unblocked.set()
        assert (await ask(lane, sample(BLOCKER)))[0] == [BLOCKER**2]
        assert (engine.stopped, lane.counts.stopped, lane.counts.repeated) == (1, 1, 0)
        await asyncio.to_thread(workers.close)

    asyncio.run(scene())


# ---------------------------------------------------------------- together or not


def test_a_model_that_loses_by_batching_is_never_batched() -> None:
    async def scene() -> None:
        lane = stage(together=False)
        tasks = [lane.ask(sample(float(n)), sample(float(n))) for n in range(10)]
        answers = await asyncio.gather(*tasks)
        assert [a[1][0] for a in answers] == [n**2 for n in range(10)]
        assert all(len(batch) == 1 for batch in lane.engine.batches)

    virtual(scene)


def test_samples_share_no_batch_once_that_was_found_wrong() -> None:
    async def scene() -> None:
        lane = stage(seconds_per_slot=1e-6)
        await asyncio.gather(*[lane.ask(sample(1.0)) for _ in range(9)])
        assert max(map(len, lane.engine.batches)) > 1
        lane.lane.stop_sharing()
        seen = len(lane.engine.batches)
        await asyncio.gather(*[lane.ask(sample(1.0)) for _ in range(9)])
        for _ in range(5):
            await asyncio.sleep(1.0)
            await lane.ask(sample(1.0), sample(2.0), caller="a")
        assert {len(batch) for batch in lane.engine.batches[seen:]} == {1}

    virtual(scene)
