"""A FastAPI server with a timed batcher, as other atomistic servers have: it gathers for 0.1 s or until 512 atoms wait.

python -m benchmarks.peers.timed PORT GRAPH CUTOFF
"""

import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import uvicorn
from fastapi import FastAPI, Request, Response
from understudy.framing import decode, encode

from benchmarks.peers.direct import Direct
from contract.structures import checked_structure

WINDOW_S = 0.1
ATOMS = 512


def application(direct: Direct) -> FastAPI:
    """POST /predict with the same binary tensors that the gateway takes."""
    app, waiting = FastAPI(), asyncio.Queue()  # type: ignore[var-annotated]
    pool = ThreadPoolExecutor(1)

    async def gather() -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await waiting.get()]
            end = loop.time() + WINDOW_S
            while sum(len(structure) for structure, _ in batch) < ATOMS:
                try:
                    batch.append(await asyncio.wait_for(waiting.get(), end - loop.time()))
                except TimeoutError:
                    break
            answers = await loop.run_in_executor(pool, direct, [structure for structure, _ in batch])
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)

    tasks = []

    @app.on_event("startup")
    async def start() -> None:
        tasks.append(asyncio.create_task(gather()))

    @app.get("/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        _, tensors = decode(await request.body(), int(request.headers["inference-header-content-length"]))
        future = asyncio.get_running_loop().create_future()
        await waiting.put((checked_structure(tensors["numbers"], tensors["positions"]), future))
        energy, forces = await future
        body, _ = encode({}, {"energy": np.asarray(energy), "forces": np.asarray(forces)})
        return Response(bytes(body), media_type="application/octet-stream")

    return app


if __name__ == "__main__":
    port, graph, cutoff = sys.argv[1:]
    uvicorn.run(application(Direct(Path(graph), float(cutoff))), port=int(port), access_log=False, log_level="error")
