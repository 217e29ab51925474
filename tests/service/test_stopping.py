"""Work on another thread ends with its time, and with its caller."""

import asyncio

import numpy as np
import pytest

from contract.conduction import Stopped, conduct
from contract.voxels import pores_of
from service.errors import DeadlineExceeded
from service.stopping import stopping

PORE = pores_of(np.random.default_rng(0).random((72, 72, 72)) < 0.7, 2).conducting


def test_the_estimate_of_a_request_ends_with_its_time() -> None:
    async def ask() -> None:
        with stopping(asyncio.get_running_loop().time() + 0.1, 0.1) as stop:
            await asyncio.to_thread(conduct, PORE, 0.0, stop)

    with pytest.raises(DeadlineExceeded, match=r"0\.1 s"):
        asyncio.run(ask())


def test_it_ends_with_a_caller_who_leaves() -> None:
    ended = []

    def work(stop: np.ndarray) -> None:
        try:
            conduct(PORE, 0.0, stop)
        except Stopped:
            ended.append("stopped")

    async def ask() -> None:
        with stopping(asyncio.get_running_loop().time() + 60.0, 60.0) as stop:
            await asyncio.to_thread(work, stop)

    async def leave() -> None:
        asked = asyncio.create_task(ask())
        await asyncio.sleep(0.1)
        asked.cancel()

    asyncio.run(leave())  # waits for its threads
    assert ended == ["stopped"]
