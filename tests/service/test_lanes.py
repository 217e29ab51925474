"""Lanes on virtual time: what is run when, in which company, and what comes back."""

import asyncio
import itertools
from collections.abc import Awaitable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage import ENGINE_S, Sample, Square, Stage, VirtualWorkers, now, sample, settle, stage, virtual

from service.engines import Stop
from service.errors import DeadlineExceeded, EngineFault, NonFiniteAnswer, QueueFull, TooMany
from service.lanes import PADDING, Bounds, Lane, Terms, Turns
from service.tenants import Tenant


def test_a_lone_request_waits_for_nothing() -> None:
    async def scene() -> None:
        lone = stage()
        for _ in range(3):
            begin = now()
            (answer,) = await lone.ask(sample(3.0))
            assert answer == [9.0]
            assert lone.workers.begun_at[-1] == begin
            assert now() == pytest.approx(begin + ENGINE_S)

    virtual(scene)


def test_requests_gather_only_while_the_workers_are_busy() -> None:
    async def scene() -> None:
        busy = stage()
        tasks = [busy.ask(Sample(np.full(n, float(n)))) for n in range(1, 13)]
        answers = await asyncio.gather(*tasks)
        assert [len(b) for b in busy.engine.batches] == [1, 11]
        assert [a[0][0] for a in answers] == [n**2 for n in range(1, 13)]
        assert now() == pytest.approx(2 * ENGINE_S)

    virtual(scene)


def test_as_many_batches_run_at_once_as_there_are_workers_and_no_more() -> None:
    async def scene() -> None:
        three = stage(workers=3, batch_slots=1)
        await asyncio.gather(*[three.ask(sample(1.0)) for _ in range(9)])
        assert three.workers.most_running == 3
        assert now() == pytest.approx(3 * ENGINE_S)

    virtual(scene)


def test_a_batch_stays_within_its_budget_unless_one_sample_alone_is_over_it() -> None:
    async def scene() -> None:
        small = stage(batch_slots=10)
        sizes = [4, 25, 4, 4, 1, 9]
        await asyncio.gather(*[small.ask(Sample(np.ones(n))) for n in sizes])
        costs = [[s.rows for s in batch] for batch in small.engine.batches]
        assert all(sum(cost) <= 10 or len(cost) == 1 for cost in costs)
        assert sorted(itertools.chain(*costs)) == sorted(sizes)

    virtual(scene)


def test_structures_of_different_width_share_a_batch_only_where_padding_is_cheap() -> None:
    async def scene() -> None:
        mixed = stage(batch_slots=1_000)
        first = mixed.ask(sample(0.0))
        await asyncio.gather(first, *[mixed.ask(sample(1.0, 2.0, width=w)) for w in (8, 64, 8, 64, 10, 64)])
        widths = [sorted(s.width for s in batch) for batch in mixed.engine.batches[1:]]
        assert widths == [[8, 8, 10], [64, 64, 64]]
        for batch in mixed.engine.batches:
            padded = sum(s.rows for s in batch) * max(s.width for s in batch)
            assert padded <= PADDING * sum(s.rows * s.width for s in batch)

    virtual(scene)


def test_the_oldest_request_is_always_in_the_next_batch() -> None:
    async def scene() -> None:
        lane = stage(batch_slots=10)
        first = lane.ask(sample(0.0))
        wide = lane.ask(Sample(np.ones(10), width=20))
        await asyncio.gather(first, wide, *[lane.ask(sample(1.0)) for _ in range(50)])
        assert lane.engine.batches[1][0].width == 20

    virtual(scene)


def test_a_request_of_many_structures_is_spread_over_the_workers_and_comes_back_in_order() -> None:
    async def scene() -> None:
        many = stage(workers=2, batch_slots=10)
        answer = await many.ask(*[Sample(np.full(4, float(n))) for n in range(10)])
        assert [a[0] for a in answer] == [n**2 for n in range(10)]
        assert many.workers.most_running == 2

    virtual(scene)


def test_a_full_queue_refuses_at_once_and_says_truly_when_to_come_back() -> None:
    async def scene() -> None:
        full = stage(batch_slots=100, queued=500, seconds_per_slot=ENGINE_S / 100)
        tasks = [full.ask(Sample(np.ones(20)), tenant=Tenant(f"{n}")) for n in range(501)]
        await settle()
        with pytest.raises(QueueFull) as refusal:
            await full.lane.submit([sample(1.0)], Terms(60.0))
        assert refusal.value.facts["limit"] == 500
        begin = now()
        await asyncio.gather(*tasks)
        assert 0.5 < (now() - begin) / float(refusal.value.headers["Retry-After"]) <= 2.0
        assert full.lane.counts.refused == 1
        await full.ask(sample(1.0))

    virtual(scene)


def test_the_queue_is_bounded_in_cost_too() -> None:
    async def scene() -> None:
        full = stage(queued_slots=100)
        running = full.ask(sample(0.0))
        waiting = full.ask(Sample(np.ones(90)))
        await settle()
        with pytest.raises(QueueFull, match="neighbour slots"):
            await full.lane.submit([Sample(np.ones(11))], Terms(60.0))
        with pytest.raises(TooMany):
            await full.lane.submit([Sample(np.ones(101))], Terms(60.0))
        await asyncio.gather(running, waiting)
        assert full.lane.waiting == full.lane.waiting_slots == 0

    virtual(scene)


def test_who_is_late_is_told_of_all_the_time_that_it_had() -> None:
    async def scene() -> None:
        late = stage()
        running = late.ask(sample(1.0))
        with pytest.raises(DeadlineExceeded, match=r"not there after 60 s"):
            await late.lane.submit([sample(2.0)], Terms(60.0).with_left(10.0).with_left(0.01))
        await running

    virtual(scene)


def test_work_whose_time_is_over_never_starts() -> None:
    async def scene() -> None:
        late = stage()
        running, waiting = late.ask(sample(1.0)), late.ask(sample(2.0), timeout_s=0.5 * ENGINE_S)
        with pytest.raises(DeadlineExceeded):
            await waiting
        assert now() == pytest.approx(0.5 * ENGINE_S)
        await running
        await settle()
        assert [[float(s.values[0]) for s in b] for b in late.engine.batches] == [[1.0]]
        assert late.lane.waiting == late.lane.waiting_slots == 0

    virtual(scene)


@pytest.mark.parametrize("leaving", [s for n in range(5) for s in itertools.combinations(range(4), n)])
@pytest.mark.parametrize("moment_s", [0.0, 0.5 * ENGINE_S, 1.5 * ENGINE_S], ids=["queued", "waiting", "running"])
def test_callers_who_leave_change_nothing_for_those_who_stay(leaving: tuple[int, ...], moment_s: float) -> None:
    async def scene() -> None:
        lane = stage()
        first = lane.ask(sample(9.0))
        tasks = [lane.ask(sample(float(n), float(n))) for n in range(4)]
        await asyncio.sleep(moment_s)
        for n in leaving:
            tasks[n].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for n, outcome in enumerate(outcomes):
            if n in leaving:
                assert isinstance(outcome, asyncio.CancelledError)
            else:
                assert outcome[0].tolist() == [n**2, n**2]  # type: ignore[index]
                assert now() == pytest.approx(2 * ENGINE_S)
        await first
        if moment_s < ENGINE_S:
            assert sum(len(b) for b in lane.engine.batches) == 5 - len(leaving)
        assert lane.lane.waiting == lane.lane.waiting_slots == 0

    virtual(scene)


def test_when_a_batch_crashes_each_is_run_again_alone_and_only_the_culprit_fails() -> None:
    async def scene() -> None:
        lane = stage()
        tasks = [lane.ask(sample(x)) for x in (0.0, 1.0, np.nan, 3.0)]
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(outcomes[2], EngineFault)
        assert [o[0][0] for n, o in enumerate(outcomes) if n != 2] == [0.0, 1.0, 9.0]  # type: ignore[index]
        assert [len(b) for b in lane.engine.batches] == [1, 3, 1, 1, 1]
        assert (await lane.ask(sample(5.0)))[0] == [25.0]

    virtual(scene)


def test_an_outcome_too_few_is_never_handed_to_a_neighbour() -> None:
    async def scene() -> None:
        workers = VirtualWorkers(1)

        def short(samples: Sequence[Sample], stop: Stop | None) -> list[float]:
            return [s.values[0] for s in samples][: max(1, len(samples) - 1)]

        lane = Lane(short, Bounds(100, 100, 1000, 0.0), Turns(workers))
        asked = [asyncio.create_task(lane.submit([sample(float(n))], Terms(60.0))) for n in range(5)]
        assert await asyncio.gather(*asked) == [[0.0], [1.0], [2.0], [3.0], [4.0]]

    virtual(scene)


def test_a_sample_that_fails_by_itself_fails_its_request_and_frees_the_rest_of_it() -> None:
    async def scene() -> None:
        workers = VirtualWorkers(1)

        def picky(samples: Sequence[Sample], stop: Stop | None) -> list[Any]:
            return [NonFiniteAnswer("NaN.", hint="") if s.values[0] < 0 else s.values[0] for s in samples]

        lane = Lane(picky, Bounds(1, 100, 1000, 0.0), Turns(workers))
        doomed = asyncio.create_task(lane.submit([sample(x) for x in (-1.0, 1.0, 2.0, 3.0)], Terms(60.0)))
        other = asyncio.create_task(lane.submit([sample(7.0)], Terms(60.0)))
        with pytest.raises(NonFiniteAnswer):
            await doomed
        assert await other == [7.0]
        assert len(workers.begun_at) == 2

    virtual(scene)


def test_lanes_share_the_workers_in_turn() -> None:
    async def scene() -> None:
        workers, engines = VirtualWorkers(1), [Square(), Square()]
        turns = Turns(workers)
        lanes = [Lane(engine, Bounds(1, 1000, 10_000, 0.0), turns) for engine in engines]
        flood = [asyncio.create_task(lanes[0].submit([sample(1.0)], Terms(60.0))) for _ in range(50)]
        await settle()
        begin = now()
        await lanes[1].submit([sample(2.0)], Terms(60.0))
        assert now() - begin <= 3 * ENGINE_S
        await asyncio.gather(*flood)

    virtual(scene)


@settings(deadline=None)
@given(
    requests=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(1, 9), st.sampled_from([1, 8, 24])), min_size=1, max_size=6),
            st.floats(0, 5),
            st.booleans(),
        ),
        min_size=1,
        max_size=20,
    ),
    workers=st.integers(1, 3),
)
def test_every_row_returns_to_its_owner(
    requests: list[tuple[list[tuple[int, int]], float, bool]], workers: int
) -> None:
    async def scene() -> None:
        lane = stage(workers=workers, batch_slots=50)
        tags = itertools.count()

        async def one(shapes: list[tuple[int, int]], delay: float, leaves: bool) -> None:
            samples = [Sample(np.full(rows, float(next(tags))), width) for rows, width in shapes]
            await asyncio.sleep(delay * ENGINE_S)
            asked: Awaitable[list[np.ndarray]] = lane.lane.submit(samples, Terms(60.0))
            if leaves:
                asked = asyncio.wait_for(asked, 0.3 * ENGINE_S)
            try:
                answers = await asked
            except TimeoutError:
                return
            for got, sent in zip(answers, samples, strict=True):
                np.testing.assert_array_equal(got, sent.values**2)

        await asyncio.gather(*[one(*request) for request in requests])
        await asyncio.sleep(ENGINE_S)
        assert lane.lane.waiting == lane.lane.waiting_slots == lane.workers.running == 0
        assert lane.workers.most_running <= workers

    virtual(scene)


async def ask_every(lane: Stage, pause_s: float, callers: Sequence[str], times: int) -> None:
    for n in range(times):
        (answer,) = await lane.lane.submit([sample(float(n))], Terms(60.0, callers[n % len(callers)]))
        assert answer == [n**2]
        await asyncio.sleep(pause_s)


def test_the_short_requests_of_a_caller_who_is_alone_run_on_the_spot() -> None:
    async def scene() -> None:
        lane = stage(seconds_per_slot=1e-6)
        await ask_every(lane, 0.03, ["a"], 20)
        assert 3 <= len(lane.workers.begun_at) <= 5
        assert max(lane.workers.begun_at) <= 0.25
        assert lane.lane.counts.batches == 20

    virtual(scene)


@pytest.mark.parametrize(
    ("callers", "seconds_per_slot"),
    [(["a", "b"], 1e-6), (["a"], 1.0), (["a"], 0.0), ([None], 1e-6)],
    ids=["two callers", "a long request", "of unknown length", "nobody by name"],
)
def test_other_requests_leave_the_event_loop_free(callers: list[Any], seconds_per_slot: float) -> None:
    async def scene() -> None:
        lane = stage(seconds_per_slot=seconds_per_slot)
        await ask_every(lane, 0.03, callers, 20)
        assert len(lane.workers.begun_at) == 20

    virtual(scene)


def test_what_crashes_on_the_spot_fails_as_it_would_on_a_worker() -> None:
    async def scene() -> None:
        lane = stage(seconds_per_slot=1e-6)
        await ask_every(lane, 0.03, ["a"], 10)
        with pytest.raises(EngineFault, match=r"structures\[1\]"):
            await lane.lane.submit([sample(1.0), sample(np.nan)], Terms(60.0, "a"))
        await ask_every(lane, 0.03, ["a"], 3)

    virtual(scene)


def test_samples_that_asked_to_be_alone_share_no_batch() -> None:
    async def scene() -> None:
        busy = stage()
        first = busy.ask(sample(1.0))
        await settle()
        mates = [busy.ask(sample(2.0)), busy.ask(sample(3.0))]
        alone = asyncio.create_task(busy.lane.submit([sample(4.0), sample(5.0)], Terms(60.0, alone=True)))
        mates.append(busy.ask(sample(6.0)))
        answers = await asyncio.gather(first, *mates, alone)
        assert [float(value[0]) for answer in answers for value in answer] == [1.0, 4.0, 9.0, 36.0, 16.0, 25.0]
        assert sorted(map(len, busy.engine.batches)) == [1, 1, 1, 3]
        assert busy.lane.waiting_slots == 0

    virtual(scene)
