"""Deadlines over gRPC, full queues, and callers who leave."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc.aio as triton_aio
from grpc_gateway import gated, triton_inputs, until
from messages import ENERGY, M, infer
from tritonclient.utils import InferenceServerException


def test_a_caller_who_cancels_takes_its_work_out_and_its_neighbours_are_answered(repository: Path) -> None:
    async def scene() -> None:
        async with gated(repository) as here, triton_aio.InferenceServerClient(here.address) as client:
            first = asyncio.create_task(client.infer("tiny", triton_inputs([M])))
            await here.engine_begins()
            leaving, staying = (asyncio.create_task(client.infer("tiny", triton_inputs([M] * 2))) for _ in range(2))
            await until(lambda: here.lane.waiting == 4)
            leaving.cancel()
            await until(lambda: here.lane.waiting == 2)
            first.cancel()
            await until(lambda: here.lane.counts.cancelled == 2)
            here.engine.gate.set()
            answer = await staying
            np.testing.assert_allclose(answer.as_numpy("energy"), [ENERGY] * 2, atol=1e-4)
            assert here.counts["/inference.GRPCInferenceService/ModelInfer", "gRPC", 499] == 2

    asyncio.run(scene())


@pytest.mark.parametrize("given", [{"client_timeout": 0.3}, {"timeout": 300_000}], ids=["deadline", "parameter"])
def test_work_that_is_late_never_begins(repository: Path, given: dict[str, Any]) -> None:
    async def scene() -> None:
        async with gated(repository) as here, triton_aio.InferenceServerClient(here.address) as client:
            first = asyncio.create_task(client.infer("tiny", triton_inputs([M])))
            await here.engine_begins()
            with pytest.raises(InferenceServerException) as late:
                await client.infer("tiny", triton_inputs([M] * 3), **given)
            assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
            await until(lambda: here.lane.waiting == 0)
            here.engine.gate.set()
            await first
            assert here.lane.counts.samples == 1

    asyncio.run(scene())


def test_the_earlier_of_deadline_and_parameter_wins(repository: Path) -> None:
    async def scene() -> None:
        async with gated(repository) as here, triton_aio.InferenceServerClient(here.address) as client:
            with pytest.raises(InferenceServerException, match=r"after 0\.2 s"):
                await client.infer("tiny", triton_inputs([M]), client_timeout=30.0, timeout=200_000)

    asyncio.run(scene())


def test_a_full_queue_says_when_to_ask_again(repository: Path) -> None:
    async def scene() -> None:
        async with gated(repository, queued_structures=1) as here, grpc.aio.insecure_channel(here.address) as channel:
            running = [asyncio.ensure_future(infer(channel))]
            await here.engine_begins()
            running.append(asyncio.ensure_future(infer(channel)))
            await until(lambda: here.lane.waiting == 1)
            with pytest.raises(grpc.aio.AioRpcError) as full:
                await infer(channel)
            assert full.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert int(dict(full.value.trailing_metadata())["grpc-retry-pushback-ms"]) >= 1_000
            here.engine.gate.set()
            await asyncio.gather(*running)

    asyncio.run(scene())
