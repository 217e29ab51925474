"""The gateway beside other ways to serve the same graph on the same machine, in one run.

Peers: the bare engine and the same work in process; a bare FastAPI echo; real Triton's python backend called directly,
with ragged batching; LitServe; a server with a timed batcher (0.1 s, 512 atoms). Loads: one MD client at 24, 216 and
1,000 atoms of an organic liquid, and at 10,976 of an aluminium crystal; 64 clients with mixed molecules; the same with
a fifth of the clients leaving before their answer. A light model, on which what is around the engine weighs most, bears
the molecules; the committee for organic molecules the crowd too.

The floor of a crowd is the echo: somebody who does the offline work and beside it only what an echo and its callers
take on the same cores would reach the share of offline that is called `an echo's`.

Client and servers share the cores. Requests are encoded before the clock starts, answers are read to the last byte but
not decoded. Peers are asked in turn while the others are stopped (SIGSTOP), medians over rounds; the ratios are what
counts. A peer that is not installed is named in the record and left out.
"""

import asyncio
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from understudy.framing import encode

from benchmarks.peers.direct import Direct
from benchmarks.record import Finding
from benchmarks.structures import aluminium, chain
from contract.graphs import build_graph
from contract.repository import ModelRepository, StoredModel
from contract.structures import Structure, checked_structure

PROJECT = Path(__file__).parent.parent
LIGHT, COMMITTEE, METAL = "malonaldehyde", "organic", "aluminium-student"
ROUNDS = 3
CALLS = 60
SECONDS = 1.5
CALLERS = 64
CALLS_APART_S = 0.2  # of a caller who leaves: about as often as one who stays
ATOMS = (24, 216, 1000)
FEWEST_CALLS = 3
CRYSTAL_CELLS = 14
ELEMENTS = [1, 6, 8]
SEED = 0
ECHO = """
import sys, uvicorn
from fastapi import FastAPI, Request, Response
app = FastAPI()
@app.post("/predict")
async def echo(request: Request):
    return Response(await request.body(), media_type="application/octet-stream")
@app.get("/ready")
async def ready():
    return {}
uvicorn.run(app, port=int(sys.argv[1]), access_log=False)
"""
Encode = Callable[[Structure], bytes]


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody who answers: a name, a port on this machine, and how a structure is put into an HTTP/1.1 request.

    Attributes:
        process: leads the group of the server's processes.
    """

    name: str
    port: int
    encode: Encode
    process: int


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


def run(model_repo: Path = PROJECT / "model_repo") -> Finding:
    """Every load on the light model, the crowd on the committee too; every peer."""
    light, committee, metal = (ModelRepository(model_repo).load(name) for name in (LIGHT, COMMITTEE, METAL))
    with ExitStack() as stack:
        peers, absent = _peers(stack, light, model_repo)
        values = {
            "absent": absent,
            "one MD client": {f"{n} atoms": _lone(light, peers, _liquid(n)) for n in ATOMS},
            f"{CALLERS} clients": _crowd(light, peers),
            "a fifth of the clients leaving": _leaving(peers, peers[0]),
        }
    with ExitStack() as stack:
        values[f"{CALLERS} clients, {COMMITTEE}"] = _crowd(committee, _peers(stack, committee, model_repo)[0])
    with ExitStack() as stack:
        values[f"one MD client, {METAL}"] = _lone(metal, _peers(stack, metal, model_repo)[0], _crystal())
    return Finding(
        values,
        f"Model {LIGHT} unless another is named. ms: median latency of one caller; atoms/s: 64 callers with molecules "
        "of 9 to 60 atoms. `offline` is the same work in batches of the card's best size without a server, one thread "
        "a core, on the same two shared cores. The gateway runs without its students' teachers, as no peer has any.",
        [SEED],
        {model.card.name: model.digest for model in (light, committee, metal)},
    )


def _peers(stack: ExitStack, model: StoredModel, model_repo: Path) -> tuple[list[Peer], dict[str, str]]:
    """Start everybody; the gateway is first."""
    graph, cutoff = str(model.file("model.onnx")), str(model.potential_card.domain.cutoff_angstrom)
    python, absent = sys.executable, {}
    path = f"/v1/predict/{model.card.name}"
    ports = _free_ports(5)
    served = [
        python,
        "-m",
        "understudy",
        "serve",
        "--no-grpc",
        "--port",
        str(ports[0]),
        "--model-repo",
        str(model_repo),
    ]
    peers = [
        _started(
            stack,
            "gateway",
            served,
            ports[0],
            "/v2/health/ready",
            lambda s: _binary(s, path),
            UNDERSTUDY_TEACHER_FRACTION="0",  # no peer has a second model to look after the first
        ),
        _started(
            stack, "echo", [python, "-c", ECHO, str(ports[1])], ports[1], "/ready", lambda s: _binary(s, "/predict")
        ),
        _started(
            stack,
            "timed batcher",
            [python, "-m", "benchmarks.peers.timed", str(ports[2]), graph, cutoff],
            ports[2],
            "/ready",
            lambda s: _binary(s, "/predict"),
        ),
    ]
    for name, start in (("LitServe", _litserve), ("Triton, ragged", _triton)):
        try:
            peers.append(start(stack, graph, cutoff))
        except Exception as error:  # noqa: BLE001 (whatever a peer lacks, the others are measured)
            absent[name] = f"{type(error).__name__}: {error}"[:300]
    return peers, absent


def _started(
    stack: ExitStack, name: str, command: list[str], port: int, ready: str, encode: Encode, **variables: str
) -> Peer:
    process = stack.enter_context(_server(command, port, ready, **variables))
    return Peer(name, port, encode, process)


def _litserve(stack: ExitStack, graph: str, cutoff: str) -> Peer:
    """In a folder of its own: importing it changes limits of the web framework for the whole process."""
    folder = Path(os.environ.get("UNDERSTUDY_CACHE", Path.home() / ".cache" / "understudy")) / "litserve"
    if not (folder / "litserve").exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*pip, "litserve==0.2.19", "pyzmq", "python-multipart"], check=True, capture_output=True)
    (port,) = _free_ports(1)
    command = [sys.executable, "-m", "benchmarks.peers.lit", str(port), graph, cutoff]
    return _started(stack, "LitServe", command, port, "/health", _json, PYTHONPATH=f"{PROJECT}:{folder}")


def _triton(stack: ExitStack, graph: str, cutoff: str) -> Peer:
    """The server that the tests use (tests/service/real_triton.py), with a model that batches structures itself."""
    sys.path.insert(0, str(PROJECT / "tests" / "service"))
    real_triton = import_module("real_triton")
    environment = real_triton.Environment()
    needs = environment.root / "benchmark-complete"
    if not needs.exists():
        pip = [str(environment.root / "bin" / "python"), "-m", "pip", "install", "--quiet", "numpy<2"]
        subprocess.run([*pip, "vesin<0.7", "numba", "pydantic"], check=True, capture_output=True)
        needs.touch()
    root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    folder = root / "repository" / "ragged"
    (folder / "1").mkdir(parents=True)
    source = PROJECT / "benchmarks" / "peers" / "triton_ragged"
    config = (source / "config.pbtxt").read_text()
    for key, value in (("project", str(PROJECT)), ("graph", graph), ("cutoff", cutoff)):
        config = config.replace(f"@{key}@", value)
    (folder / "config.pbtxt").write_text(config)
    (folder / "1" / "model.py").write_text((source / "model.py").read_text())
    server = real_triton.RealTriton(environment, folder.parent, root)
    stack.callback(server.stop)
    server.start()
    return Peer("Triton, ragged", server.http_port, _kserve, server.process)


@contextmanager
def _alone(peers: Sequence[Peer], peer: Peer | None = None) -> Iterator[None]:
    """Everybody else stands still."""
    others = [other for other in peers if other is not peer]
    for other in others:
        os.killpg(other.process, signal.SIGSTOP)
    try:
        yield
    finally:
        for other in others:
            os.killpg(other.process, signal.SIGCONT)


def _liquid(atoms: int) -> Structure:
    return chain(atoms, np.random.default_rng(SEED), ELEMENTS)


def _crystal() -> Structure:
    """A free crystal: peers take no cell."""
    crystal = aluminium(CRYSTAL_CELLS)
    return checked_structure(crystal.numbers, crystal.positions)


def _lone(model: StoredModel, peers: Sequence[Peer], structure: Structure) -> dict[str, Any]:
    """Median latency in ms of one caller, and what the work alone takes in this process."""
    cutoff = model.potential_card.domain.cutoff_angstrom
    direct = Direct(model.file("model.onnx"), cutoff)
    alone = _median_call(lambda: direct([structure]), FEWEST_CALLS)
    calls = min(CALLS, max(FEWEST_CALLS, int(1e3 * SECONDS / alone)))
    rounds = []
    for _ in range(ROUNDS):
        row: dict[str, float] = {}
        for peer in peers:
            with _alone(peers, peer):
                row[peer.name] = asyncio.run(_median(peer.port, peer.encode(structure), calls))
        with _alone(peers):
            row["in process"] = _median_call(lambda: direct([structure]), calls)
            row["neighbour list"] = _median_call(lambda: build_graph(structure, cutoff), calls)
        rounds.append(row)
    found: dict[str, Any] = {f"{name}, ms": statistics.median(r[name] for r in rounds) for name in rounds[0]}
    over = {p.name: statistics.median(r[p.name] - r["in process"] for r in rounds) for p in peers if p.name != "echo"}
    found["overhead over in process, ms"] = over
    found["neighbour list / gateway"] = statistics.median(r["neighbour list"] / r["gateway"] for r in rounds)
    return found


def _crowd(model: StoredModel, peers: Sequence[Peer]) -> dict[str, Any]:
    """Atoms per second of 64 callers."""
    structures = _mixed()
    rounds = []
    for _ in range(ROUNDS):
        row: dict[str, float] = {}
        for peer in peers:
            with _alone(peers, peer):
                requests = [peer.encode(s) for s in structures]
                row[peer.name] = asyncio.run(_served(peer.port, structures, requests))
        with _alone(peers):
            rounds.append(row | {"offline": _offline(model, structures)})
    found: dict[str, Any] = {f"{name}, atoms/s": statistics.median(r[name] for r in rounds) for name in rounds[0]}
    served = [peer.name for peer in peers if peer.name != "echo"]
    share = {name: statistics.median(r[name] / r["offline"] for r in rounds) for name in served}
    # seconds an atom add up where the same cores do both
    floor = statistics.median(1.0 / (1.0 + r["offline"] / r["echo"]) for r in rounds)
    found["share of offline"] = share | {"an echo's": floor}
    return found


def _leaving(peers: Sequence[Peer], gateway: Peer) -> dict[str, float]:
    """Atoms per second a caller that stays, when all stay and when a fifth hang up on every request."""
    structures = _mixed()
    requests = [gateway.encode(s) for s in structures]
    rounds, leave = [], CALLERS // 5
    with _alone(peers, gateway):
        for _ in range(ROUNDS):
            stay = asyncio.run(_served(gateway.port, structures, requests)) / CALLERS
            left = asyncio.run(_served(gateway.port, structures, requests, leaving=leave)) / (CALLERS - leave)
            rounds.append((stay, left))
    stay, left = (statistics.median(r[k] for r in rounds) for k in range(2))
    ratio = statistics.median(b / a for a, b in rounds)
    return {"all stay, atoms/s each": stay, "others leave, atoms/s each": left, "ratio": ratio}


def _mixed() -> list[Structure]:
    generator = np.random.default_rng(SEED + 1)
    return [chain(int(n), generator, ELEMENTS) for n in generator.integers(9, 61, 256)]


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


async def _served(
    port: int, structures: Sequence[Structure], requests: Sequence[bytes], *, leaving: int = 0, seconds: float = 3.0
) -> float:
    """Atoms per second of the callers that stay."""
    connections = [await Connection.open(port) for _ in range(CALLERS)]
    atoms, end = 0, time.perf_counter() + seconds

    async def stays(k: int) -> None:
        nonlocal atoms
        step = k
        while time.perf_counter() < end:
            await connections[k].call(requests[step % len(requests)])
            atoms += len(structures[step % len(requests)])
            step += CALLERS + 1

    async def leaves(k: int) -> None:
        step = k
        while time.perf_counter() < end:
            connection = await Connection.open(port)
            connection.writer.write(requests[step % len(requests)])
            await asyncio.sleep(0.002)
            connection.writer.close()
            await asyncio.sleep(CALLS_APART_S)
            step += CALLERS + 1

    start = time.perf_counter()
    await asyncio.gather(*((leaves if k < leaving else stays)(k) for k in range(CALLERS)))
    for connection in connections:
        connection.writer.close()
    return atoms / (time.perf_counter() - start)


def _offline(model: StoredModel, structures: Sequence[Structure]) -> float:
    """Neighbour lists, collate and engine over batches of the card's best size, one thread a core."""
    direct, cutoff = (
        Direct(model.file("model.onnx"), model.potential_card.domain.cutoff_angstrom),
        model.potential_card.domain.cutoff_angstrom,
    )
    degrees = {id(s): build_graph(s, cutoff).degree for s in structures}

    def run_part(part: Sequence[Structure]) -> None:
        waiting: list[Structure] = []
        for structure in sorted(part, key=lambda s: degrees[id(s)]):
            slots = (sum(map(len, waiting)) + len(structure)) * degrees[id(structure)]
            if waiting and slots > model.card.batching.best_slots:
                direct(waiting)
                waiting = []
            waiting.append(structure)
        direct(waiting)

    cores = os.cpu_count() or 1
    parts = [structures[k::cores] for k in range(cores)]
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(run_part, parts))
        start = time.perf_counter()
        for _ in range(3):
            list(pool.map(run_part, parts))
        return 3 * sum(map(len, structures)) / (time.perf_counter() - start)


def _binary(structure: Structure, path: str) -> bytes:
    """Tensors in the framing of the Open Inference Protocol."""
    tensors = {
        "numbers": structure.numbers,
        "positions": structure.positions,
        "natoms": np.array([len(structure)]),
    }
    body, header_length = encode({}, tensors)
    return _http(path, bytes(body), "application/octet-stream", f"Inference-Header-Content-Length: {header_length}\r\n")


def _kserve(structure: Structure) -> bytes:
    """A call of Triton's ragged model with batch 1."""
    tensors = {"numbers": structure.numbers[None], "positions": structure.positions[None]}
    body, header_length = encode({"parameters": {"binary_data_output": True}}, tensors)
    extra = f"Inference-Header-Content-Length: {header_length}\r\n"
    return _http("/v2/models/ragged/infer", bytes(body), "application/octet-stream", extra)


def _json(structure: Structure) -> bytes:
    content = {"numbers": structure.numbers.tolist(), "positions": structure.positions.tolist()}
    return _http("/predict", json.dumps(content).encode(), "application/json")


def _http(path: str, body: bytes, kind: str, extra: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {kind}\r\n"
    head += f"Accept: {kind}\r\n{extra}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@contextmanager
def _server(command: list[str], port: int, ready: str, **variables: str) -> Iterator[int]:
    """A server as a child process that leads a group, ended on leaving."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | variables
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, start_new_session=True) as process:
        try:
            asyncio.run(_wait(process, port, ready))
            yield process.pid
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # with the workers that some servers leave behind


async def _wait(process: "subprocess.Popen[bytes]", port: int, path: str, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
        try:
            connection = await Connection.open(port)
            connection.writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            if (await connection.reader.readline()).startswith(b"HTTP/1.1 200"):
                return
        except (OSError, asyncio.IncompleteReadError):
            pass
        await asyncio.sleep(0.2)
    raise TimeoutError(f"no server on port {port}")


def _free_ports(number: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports
