"""The gateway against the bare engine, a bare FastAPI echo and offline batches: same model, same machine, one run.

Client and server share the cores. Requests are encoded before the clock starts, answers are read to the last byte but
not decoded. Variants are interleaved; medians over rounds; the ratios are what counts.
"""

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from understudy.framing import encode

from benchmarks.structures import chain
from contract.graphs import build_graph, collate
from contract.repository import ModelRepository, StoredModel
from contract.structures import Structure

ROUNDS = 3
CALLS = 200
SECONDS = 1.5
CALLERS = 64
ELEMENTS = [1, 6, 8]
ECHO = """
from fastapi import FastAPI, Request, Response
app = FastAPI()
@app.post("/echo")
async def echo(request: Request):
    return Response(await request.body(), media_type="application/octet-stream")
"""


def request_of(structures: Sequence[Structure], path: str) -> bytes:
    """A complete HTTP/1.1 request with binary tensors."""
    tensors = {
        "numbers": np.concatenate([s.numbers for s in structures]),
        "positions": np.concatenate([s.positions for s in structures]),
        "natoms": np.array([len(s) for s in structures]),
    }
    body, header_length = encode({}, tensors)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\n"
        f"Accept: application/octet-stream\r\n"
        f"Inference-Header-Content-Length: {header_length}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + bytes(body)


class Connection:
    """One keep-alive connection that sends bytes and reads whole answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> "Connection":
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 24)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return cls(reader, writer)

    async def call(self, request: bytes) -> None:
        """Send a request and read its answer; anything but 200 ends the benchmark."""
        self.writer.write(request)
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"\r\ncontent-length:")[1].split(b"\r\n")[0])
        body = await self.reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{head[:80]!r} {body[:300]!r}")


@contextmanager
def server(command: list[str], port: int, ready: str, **environment: str) -> Iterator[None]:
    """A server as a child process, ended on leaving."""
    variables = os.environ | environment | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            asyncio.run(_wait(port, ready))
            yield
        finally:
            process.terminate()


async def _wait(port: int, path: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            connection = await Connection.open(port)
            connection.writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            if (await connection.reader.readline()).startswith(b"HTTP/1.1 200"):
                return
        except (OSError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(0.2)
    raise TimeoutError(f"no server on port {port}")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def engine_of(model: StoredModel) -> ort.InferenceSession:
    """The model's graph as the gateway loads it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model.file("model.onnx"), options, providers=["CPUExecutionProvider"])


def lone_caller(model: StoredModel, gateway: int, echo: int) -> dict[str, Any]:
    """Median latency in ms of one caller with 20, 200 and 1,000 atoms.

    Beside it: the engine alone, the same work in process (neighbour lists, collate, engine), and an echo of the bytes.
    """
    generator, engine, cutoff = np.random.default_rng(0), engine_of(model), model.card.domain.cutoff_angstrom
    rows = {}
    for atoms in (20, 200, 1000):
        structure = chain(atoms, generator, ELEMENTS)
        graph = build_graph(structure, cutoff)
        batch = collate([graph])
        if batch["neighbours"].size > model.card.max_slots:
            continue
        alone = _median_call(lambda b=batch: engine.run(None, b), 3)
        calls = min(CALLS, max(5, int(1e3 * SECONDS / alone)))
        requests = [request_of([structure], p) for p in (f"/v1/predict/{model.card.name}", "/echo")]
        rounds = [
            {
                "gateway": asyncio.run(_median(gateway, requests[0], calls)),
                "echo": asyncio.run(_median(echo, requests[1], calls)),
                "engine": _median_call(lambda b=batch: engine.run(None, b), calls),
                "in process": _median_call(
                    lambda s=structure: engine.run(None, collate([build_graph(s, cutoff)])), calls
                ),
            }
            for _ in range(ROUNDS)
        ]
        row = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
        row["gateway - engine"] = row["gateway"] - row["engine"]
        row["gateway - in process"] = row["gateway"] - row["in process"]
        row["(gateway - engine) / echo"] = row["gateway - engine"] / row["echo"]
        rows[f"{atoms} atoms"] = row
    return rows


async def _median(port: int, request: bytes, calls: int) -> float:
    connection = await Connection.open(port)
    times = []
    for _ in range(calls + calls // 5):
        start = time.perf_counter()
        await connection.call(request)
        times.append(1e3 * (time.perf_counter() - start))
    connection.writer.close()
    return statistics.median(times[calls // 5 :])


def _median_call(call: Callable[[], object], calls: int) -> float:
    times = []
    for _ in range(calls + calls // 5):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times[calls // 5 :])


def many_callers(model: StoredModel, gateway: int) -> dict[str, Any]:
    """Atoms per second of 64 callers with molecules of 9 to 60 atoms, beside offline batches on the same cores."""
    generator = np.random.default_rng(1)
    structures = [chain(int(n), generator, ELEMENTS) for n in generator.integers(9, 61, 256)]
    requests = [request_of([s], f"/v1/predict/{model.card.name}") for s in structures]
    rounds = [
        {
            "served": asyncio.run(_served(gateway, structures, requests)),
            "offline": _offline(model, structures),
        }
        for _ in range(ROUNDS)
    ]
    row = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    row["served / offline"] = statistics.median(r["served"] / r["offline"] for r in rounds)
    return row


async def _served(port: int, structures: list[Structure], requests: list[bytes], seconds: float = 4.0) -> float:
    connections = [await Connection.open(port) for _ in range(CALLERS)]
    atoms, end = 0, time.perf_counter() + seconds

    async def caller(k: int) -> None:
        nonlocal atoms
        step = k
        while time.perf_counter() < end:
            await connections[k].call(requests[step % len(requests)])
            atoms += len(structures[step % len(requests)])
            step += CALLERS + 1

    start = time.perf_counter()
    await asyncio.gather(*(caller(k) for k in range(CALLERS)))
    for connection in connections:
        connection.writer.close()
    return atoms / (time.perf_counter() - start)


def _offline(model: StoredModel, structures: list[Structure]) -> float:
    """Neighbour lists, collate and engine over batches of the card's best size, one thread a core."""
    engine, cutoff, best = engine_of(model), model.card.domain.cutoff_angstrom, model.card.batching.best_slots

    def run(part: list[Structure]) -> None:
        graphs, waiting = sorted((build_graph(s, cutoff) for s in part), key=lambda g: g.degree), []
        for graph in graphs:
            if waiting and (sum(g.n_atoms for g in waiting) + graph.n_atoms) * graph.degree > best:
                engine.run(None, collate(waiting))
                waiting = []
            waiting.append(graph)
        engine.run(None, collate(waiting))

    cores = os.cpu_count() or 1
    parts = [structures[k::cores] for k in range(cores)]
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(run, parts))
        start = time.perf_counter()
        for _ in range(3):
            list(pool.map(run, parts))
        return 3 * sum(map(len, structures)) / (time.perf_counter() - start)


def run(model_repo: Path = Path("model_repo")) -> dict[str, Any]:
    """Both loads on every shipped potential."""
    repository, results = ModelRepository(model_repo), {}
    gateway, echo = free_port(), free_port()
    serve = [sys.executable, "-m", "understudy", "serve", "--no-grpc", "--port", str(gateway)]
    serve += ["--model-repo", str(model_repo)]
    echoing = [sys.executable, "-c", f"{ECHO}\nimport uvicorn; uvicorn.run(app, port={echo}, access_log=False)"]
    with server(serve, gateway, "/v2/health/ready"), server(echoing, echo, "/openapi.json"):
        for name in repository.names():
            model = repository.load(name)
            results[name] = {
                "digest": model.digest,
                "lone caller": lone_caller(model, gateway, echo),
                f"{CALLERS} callers": many_callers(model, gateway),
            }
    return results
