"""Two small gateways for the client to talk to: one that recites, one that knows the Lennard-Jones potential."""

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import uvicorn
from ase import Atoms
from ase.calculators.lj import LennardJones
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from understudy import Client, Retries
from understudy.framing import HEADER_LENGTH, MEDIA_TYPE, decode, encode
from understudy.inprocess import InProcess
from understudy.wire import UNITS

LJ = {"sigma": 2.5, "epsilon": 0.1, "rc": 6.0, "smooth": True}


@dataclass
class Reciter:
    """Gives the listed answers one after another, the last one for ever, and remembers what it was asked."""

    answers: list[Response]
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await Starlette()(scope, receive, send)
            return
        request = Request(scope, receive)
        self.asked.append((request.method, request.url.path))
        await request.body()
        await self.answers[min(len(self.asked), len(self.answers)) - 1](scope, receive, send)


def unpack(tensors: dict[str, np.ndarray]) -> list[Atoms]:
    ends = np.cumsum(tensors["natoms"])
    frames = []
    for index, (end, n) in enumerate(zip(ends, tensors["natoms"], strict=True)):
        atoms = Atoms(tensors["numbers"][end - n : end], tensors["positions"][end - n : end])
        if "cell" in tensors:
            atoms.set_cell(tensors["cell"][index])
            atoms.set_pbc(tensors["pbc"][index])
        frames.append(atoms)
    return frames


def lennard_jones(frames: list[Atoms], wanted: list[str]) -> dict[str, np.ndarray]:
    for atoms in frames:
        atoms.calc = LennardJones(**LJ)
    tensors = {
        "energy": np.array([atoms.get_potential_energy() for atoms in frames]),
        "forces": np.concatenate([atoms.get_forces() for atoms in frames]).astype(np.float32),
    }
    tensors["energy_std"] = 0.01 * np.arange(len(frames), dtype=np.float64)
    if all(atoms.pbc.all() for atoms in frames):
        tensors["stress"] = np.array([atoms.get_stress() for atoms in frames])
    if "atomic_energies" in wanted:
        tensors["atomic_energies"] = np.concatenate([atoms.get_potential_energies() for atoms in frames])
    if "forces_std" in wanted:
        tensors["forces_std"] = np.full_like(tensors["forces"], 0.25)
    return tensors


async def predict(request: Request) -> Response:
    head, tensors = decode(await request.body(), int(request.headers[HEADER_LENGTH]))
    frames = unpack(tensors)
    request.app.state.batches.append(len(frames))
    outside = [78 in atoms.numbers for atoms in frames]
    results = [
        {"domain": {"in_domain": not out, "verdict": "out" if out else "in", "reasons": ["platinum"] if out else []}}
        for out in outside
    ]
    if head.get("on_out_of_domain") == "refuse" and any(outside):
        reasons = results[outside.index(True)]["domain"]["reasons"]
        refusal = {"status": 422, "code": "out_of_domain", "detail": "Not trained for it.", "reasons": reasons}
        return JSONResponse(refusal, 422)
    answer = {
        "model": request.path_params["model"],
        "version": "1",
        "digest": request.app.state.digest,
        "units": dict(UNITS),
        "results": results,
        "from the future": 1,
    }
    body, length = encode(answer, lennard_jones(frames, head.get("outputs", [])), field="outputs")
    return Response(body, media_type=MEDIA_TYPE, headers={HEADER_LENGTH: str(length)})


SERVED: list[dict[str, Any]] = [
    {"name": "a-field", "family": "field"},
    {"name": "argon", "family": "potential", "version": "1", "digest": "d" * 64, "elements": ["Ar"], "members": 8},
    {"name": "water", "family": "potential", "elements": ["H", "O"], "purpose": "One water molecule."},
    {"name": "hydrides", "family": "potential", "elements": ["C", "H", "N", "O"], "formulas": None},
]


async def models(_: Request) -> Response:
    return JSONResponse({"models": SERVED})


async def card(request: Request) -> Response:
    name = request.path_params["model"]
    return JSONResponse({"name": name, "domain": {"formulas": ["H2O"] if name == "water" else None}})


@pytest.fixture
def lj_app() -> Starlette:
    """Speaks the gateway's wire; its physics is ASE's Lennard-Jones potential, the same for every element."""
    app = Starlette(
        routes=[
            Route("/v1/predict/{model}", predict, methods=["POST"]),
            Route("/v1/models", models),
            Route("/v1/models/{model}", card),
        ]
    )
    app.state.batches = []
    app.state.digest = "d" * 64
    return app


@pytest.fixture
def lj_client(lj_app: Starlette) -> Iterator[Client]:
    with Client(transport=InProcess(lj_app)) as client:
        yield client


@pytest.fixture
def recite() -> Iterator[Callable[..., tuple[Client, Reciter]]]:
    """Makes a client and the gateway that gives it the listed answers; no waiting between tries."""
    clients = []

    def make(*answers: Response, retries: Retries | None = None) -> tuple[Client, Reciter]:
        reciter = Reciter(list(answers))
        clients.append(Client(transport=InProcess(reciter), retries=retries or Retries(first_pause_s=0.0)))
        return clients[-1], reciter

    yield make
    for client in clients:
        client.close()


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    """Puts an application behind a real socket, for the length of the test; gives its address."""
    stops: list[Callable[[], None]] = []

    def start(app: Any) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join()
            listener.close()

        stops.append(stop)
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for stop in stops:
        stop()


@pytest.fixture
def lj_url(lj_app: Starlette, serve: Callable[[Any], str]) -> str:
    """The Lennard-Jones gateway behind a real socket."""
    return serve(lj_app)
