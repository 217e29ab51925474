"""Who is next, on virtual time: tenants by weight, interactive before bulk, room and budgets for everyone."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from stage import ENGINE_S, Sample, Square, Stage, VirtualWorkers, now, sample, settle, stage, virtual

from service.errors import OverBudget, QueueFull
from service.lanes import Bounds, Lane, Terms, Turns
from service.tenants import Budget, Tenant

A, B, C = Tenant("a"), Tenant("b"), Tenant("c")


async def flood(lane: Stage, tenant: Tenant, requests: int, rows: int = 10, **terms: Any) -> list[asyncio.Task[Any]]:
    tasks = [lane.ask(Sample(np.full(rows, ord(tenant.name))), tenant=tenant, **terms) for _ in range(requests)]
    await settle()
    return tasks


def rows_by_tenant(lane: Stage, batches: slice) -> Counter[str]:
    counter: Counter[str] = Counter()
    for batch in lane.engine.batches[batches]:
        for one in batch:
            counter[chr(int(one.values[0]))] += one.rows
    return counter


@pytest.mark.parametrize("rows", [(10, 10), (50, 5), (1, 100)], ids=["alike", "large and small", "tiny and full"])
def test_tenants_who_wait_share_the_engine_in_cost_not_in_requests(rows: tuple[int, int]) -> None:
    async def scene() -> None:
        lane = stage(queued=10_000, queued_slots=100_000)
        tasks = [t for who, n in zip((A, B), rows, strict=True) for t in await flood(lane, who, 4000 // n, n)]
        await asyncio.gather(*tasks)
        served = rows_by_tenant(lane, slice(1, 61))
        assert 0.9 < served["a"] / served["b"] < 1.1

    virtual(scene)


def test_tenants_share_by_weight() -> None:
    async def scene() -> None:
        lane = stage(queued=10_000, queued_slots=100_000)
        heavy = Tenant("h", weight=3.0)
        await asyncio.gather(*await flood(lane, A, 400), *await flood(lane, heavy, 400))
        served = rows_by_tenant(lane, slice(1, 41))
        assert 2.8 < served["h"] / served["a"] < 3.2

    virtual(scene)


async def p95_of(lane: Stage, tenant: Tenant, requests: int) -> float:
    """Waiting time of a tenant who asks for one small structure after the other."""
    times = []
    for n in range(requests):
        begin = now()
        await lane.ask(sample(ord(tenant.name)), tenant=tenant, caller=tenant.name)
        times.append(now() - begin)
        await asyncio.sleep(ENGINE_S * (0.3 + 0.1 * (n % 7)))
    return float(np.percentile(times, 95))


def test_a_flood_fifty_times_as_large_hardly_delays_the_others() -> None:
    """Case 49: one tenant floods, the other's p95 rises by less than 20 %, and the flooder is refused."""

    async def scene() -> None:
        p95 = {}
        for callers in (2, 100):
            lane = stage(queued=400, queued_slots=1_000_000)
            refused = Counter[str]()

            async def keep_asking(lane: Stage = lane, refused: Counter[str] = refused) -> None:
                while True:
                    try:
                        await lane.ask(*[Sample(np.full(50, ord("a")))] * 4, tenant=A)
                    except QueueFull as error:
                        refused["a"] += 1
                        await asyncio.sleep(float(error.headers["Retry-After"]))

            noise = [asyncio.create_task(keep_asking()) for _ in range(callers)]
            await asyncio.sleep(5 * ENGINE_S)
            p95[callers] = await p95_of(lane, B, 100)
            for task in noise:
                task.cancel()
            await asyncio.gather(*noise, return_exceptions=True)
        assert p95[100] < 1.2 * p95[2]
        assert refused["a"] > 0
        assert lane.lane.counts.refused_share > 0
        assert lane.lane.counts.refused == 0

    virtual(scene)


def test_a_tenant_who_was_away_has_saved_nothing_up() -> None:
    async def scene() -> None:
        lane = stage(queued=10_000, queued_slots=100_000)
        await lane.ask(sample(ord("b")), tenant=B)
        await asyncio.gather(*await flood(lane, A, 300))
        seen = len(lane.engine.batches)
        await asyncio.gather(*await flood(lane, A, 200), *await flood(lane, B, 200))
        served = rows_by_tenant(lane, slice(seen + 1, seen + 21))
        assert 0.85 < served["a"] / served["b"] < 1.15

    virtual(scene)


def test_the_callers_of_one_tenant_take_turns() -> None:
    async def scene() -> None:
        lane = stage()
        many = [lane.ask(*[Sample(np.full(10, 1.0))] * 50, tenant=A, caller="screening")]
        await settle()
        begin = now()
        await lane.ask(sample(2.0), tenant=A, caller="molecular dynamics")
        assert now() - begin <= 2.01 * ENGINE_S
        await asyncio.gather(*many)

    virtual(scene)


def test_tenants_share_the_workers_over_all_lanes() -> None:
    async def scene() -> None:
        workers, engines = VirtualWorkers(1), [Square(), Square()]
        turns = Turns(workers)
        lanes = [Lane(e, Bounds(10, 10_000, 100_000, ENGINE_S / 10), turns) for e in engines]

        def ask(lane: Lane, tenant: Tenant, times: int) -> list[asyncio.Task[Any]]:
            return [asyncio.create_task(lane.submit([Sample(np.ones(10))], Terms(60.0, None, False, tenant)))
                    for _ in range(times)]  # fmt: skip

        both = ask(lanes[0], A, 200)
        await settle()
        both += ask(lanes[0], B, 50) + ask(lanes[1], B, 50)
        await asyncio.sleep(100.5 * ENGINE_S)
        done = sum(task.done() for task in both[200:])
        assert 45 <= done <= 55  # B has half of the worker, although it asks in two lanes
        await asyncio.gather(*both)

    virtual(scene)


def test_interactive_work_goes_first_and_bulk_keeps_its_least_share() -> None:
    async def scene() -> None:
        lane = stage(queued=10_000, queued_slots=100_000)
        bulk = await flood(lane, B, 400, priority="bulk")
        await asyncio.gather(*await flood(lane, A, 800))
        served = rows_by_tenant(lane, slice(1, len(lane.engine.batches)))
        assert 0.08 < served["b"] / (served["a"] + served["b"]) < 0.14
        await asyncio.gather(*bulk)

    virtual(scene)


def test_bulk_work_of_another_lane_keeps_its_least_share_too() -> None:
    async def scene() -> None:
        workers, engines = VirtualWorkers(1), [Square(), Square()]
        turns = Turns(workers)
        lanes = [Lane(e, Bounds(10, 10_000, 100_000, ENGINE_S / 10), turns) for e in engines]

        def ask(lane: Lane, times: int, priority: Any) -> list[asyncio.Task[Any]]:
            terms = Terms(600.0, priority=priority)
            return [asyncio.create_task(lane.submit([Sample(np.ones(10))], terms)) for _ in range(times)]

        tasks = ask(lanes[1], 100, "bulk")
        await settle()
        first = ask(lanes[0], 300, "interactive")
        await asyncio.gather(*first)
        assert 28 <= sum(task.done() for task in tasks) <= 38
        await asyncio.gather(*tasks)

    virtual(scene)


def test_an_interactive_request_overtakes_all_bulk_work_that_waits() -> None:
    async def scene() -> None:
        lane = stage()
        bulk = await flood(lane, A, 80, priority="bulk")
        begin = now()
        await lane.ask(sample(1.0), tenant=A)
        assert now() - begin <= 2.01 * ENGINE_S
        await asyncio.gather(*bulk)

    virtual(scene)


def test_a_tenant_may_have_no_more_waiting_than_is_left_for_others() -> None:
    async def scene() -> None:
        lane = stage(queued=100, queued_slots=100_000, batch_slots=10)
        tasks = await flood(lane, A, 100)
        refused = [task for task in tasks if task.done() and isinstance(task.exception(), QueueFull)]
        assert lane.lane.waiting == 50
        assert len(refused) == lane.lane.counts.refused_share == 49
        error: Any = refused[0].exception()
        assert "of yours" in error.detail
        assert int(error.headers["Retry-After"]) == error.facts["retry_after_s"]
        others = [t for who in (B, C) for t in await flood(lane, who, 10)]
        assert not any(task.done() for task in others)
        await asyncio.gather(*tasks, *others, return_exceptions=True)

    virtual(scene)


def test_a_large_first_request_may_fill_the_queue() -> None:
    async def scene() -> None:
        lane = stage(queued=100, queued_slots=100_000)
        running = lane.ask(sample(1.0))
        await settle()
        assert len(await lane.ask(*[sample(2.0)] * 100, tenant=A)) == 100
        await running

    virtual(scene)


def test_a_budget_bounds_what_a_tenant_asks_for_over_time() -> None:
    async def scene() -> None:
        spender = Tenant("a", budget=Budget(slots_per_s=100.0, burst_slots=50.0))
        lane = stage()
        served, begin = 0, now()
        while now() - begin < 20.0:
            try:
                await lane.ask(Sample(np.ones(10)), tenant=spender)
                served += 10
            except OverBudget as error:
                wait_s = float(error.headers["Retry-After"])
                await asyncio.sleep(wait_s)
        assert 1_000 < served <= 100.0 * 20.0 + 50.0 + 10.0
        assert lane.lane.counts.refused_budget > 0
        await lane.ask(sample(1.0), tenant=B)

    virtual(scene)


def test_a_large_request_is_paid_for_by_the_wait_after_it() -> None:
    budget = Budget(slots_per_s=10.0, burst_slots=100.0)
    assert budget.wait_s(0.0) == 0.0
    budget.spend(600)
    assert budget.wait_s(0.0) == pytest.approx(50.0)
    assert budget.wait_s(49.0) == pytest.approx(1.0)
    assert budget.wait_s(50.1) == 0.0
    budget.spend(1)
    assert budget.wait_s(1e9) == 0.0


def test_a_budget_holds_on_the_spot_as_well() -> None:
    async def scene() -> None:
        lane = stage(seconds_per_slot=1e-6)
        spender = Tenant("a", budget=Budget(slots_per_s=1e-3, burst_slots=4.5))
        for _ in range(5):
            await asyncio.sleep(1.0)
            await lane.ask(sample(1.0), tenant=spender, caller="a")
        assert len(lane.workers.begun_at) < 5
        with pytest.raises(OverBudget):
            await lane.ask(sample(1.0), tenant=spender, caller="a")

    virtual(scene)


@settings(deadline=None)
@given(
    requests=st.lists(
        st.tuples(
            st.sampled_from("abc"), st.integers(1, 30), st.sampled_from([1, 8]), st.floats(0, 6),
            st.sampled_from(["interactive", "bulk"]), st.floats(0.1, 3.0),
        ),
        min_size=1, max_size=40,
    )
)  # fmt: skip
def test_whatever_comes_everything_is_answered_once_and_nothing_is_left(requests: Sequence[Any]) -> None:
    async def scene() -> None:
        lane = stage(workers=2, batch_slots=60)

        async def one(who: str, rows: int, width: int, delay: float, priority: Any, patience: float) -> None:
            await asyncio.sleep(delay * ENGINE_S)
            sent = Sample(np.full(rows, float(ord(who))), width)
            try:
                async with asyncio.timeout(patience * ENGINE_S):
                    (got,) = await lane.ask(sent, tenant=Tenant(who), caller=delay, priority=priority)
            except TimeoutError:
                return
            np.testing.assert_array_equal(got, sent.values**2)

        await asyncio.gather(*[one(*request) for request in requests])
        await asyncio.sleep(2 * ENGINE_S)
        shares = lane.turns.shares
        assert lane.lane.waiting == lane.lane.waiting_slots == lane.workers.running == 0
        assert lane.turns.free == 2
        for priority in ("interactive", "bulk"):
            for who in "abc":
                assert shares.account(Tenant(who), priority).waiting == 0

    virtual(scene)
