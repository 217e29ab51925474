"""Gateways with a gRPC port: the whole one behind real sockets, and one whose engine waits for the test."""

import asyncio
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
import uvicorn
from tiny import PairEngine
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from wires import tensors_of

from contract.repository import ModelRepository, StoredModel
from service.access import Access
from service.api.grpc_server import start
from service.app import Started, create_app
from service.doors import grpc_door
from service.journal import Journal
from service.lanes import Lane, Turns
from service.models import MEAN, load_models
from service.plane import Plane
from service.settings import Limits, Settings
from service.workers import ThreadWorkers

DATATYPES = {"int64": "INT64", "float64": "FP64", "bool": "BOOL", "float32": "FP32", "int32": "INT32", "uint8": "UINT8"}


@dataclass
class Ports:
    """Where a gateway listens."""

    http: int
    grpc: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.grpc}"


@dataclass
class Running:
    """A gateway on a thread of its own."""

    ports: Ports
    stop: Callable[[], None]


def run(settings: Settings) -> Running:
    """Start a gateway with both ports."""
    listener, ready, said = socket.create_server(("127.0.0.1", 0)), threading.Event(), []

    def on_ready(started: Started) -> None:
        said.extend(started.doors)
        ready.set()

    app = create_app(settings.model_copy(update={"grpc_port": 0}), on_ready, [grpc_door])
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    assert ready.wait(60.0)

    def stop() -> None:
        server.should_exit = True
        thread.join()
        listener.close()

    return Running(Ports(listener.getsockname()[1], int(said[0].rpartition(":")[2])), stop)


class GatedEngine(PairEngine):
    """An engine whose calls begin, and end only while the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Semaphore(0)

    def close(self) -> None:
        """From now on calls wait; those that began before are forgotten."""
        while self.begun.acquire(blocking=False):
            pass
        self.gate.clear()

    def open(self, stored: StoredModel, file: str) -> "GatedEngine":
        return self

    def __call__(self, tensors: Mapping[str, np.ndarray], stop: object = None) -> dict[str, np.ndarray]:
        self.begun.release()
        assert self.gate.wait(30.0)
        return super().__call__(tensors)


@dataclass
class Gated:
    """A gRPC port in front of an engine that waits."""

    address: str
    engine: GatedEngine
    lane: Lane
    counts: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    journal: Journal = field(default_factory=Journal)

    def close_gate(self) -> None:
        self.engine.close()

    async def engine_begins(self) -> None:
        assert await asyncio.to_thread(self.engine.begun.acquire, timeout=30.0)


@asynccontextmanager
async def gated(repository: Path, **limits: Any) -> AsyncIterator[Gated]:
    """One worker, one engine that waits, and a closed gate."""
    engine, workers = GatedEngine(), ThreadWorkers(1, asyncio.get_running_loop())
    with ThreadPoolExecutor(1) as encoders:
        bounds = Limits(**limits)
        models = load_models(ModelRepository(repository), engine, Turns(workers), bounds)
        counts: Counter[tuple[str, str, int]] = Counter()
        journal = Journal()
        plane = Plane(models, bounds, encoders, journal=journal)
        server, port = await start(plane, counts, "127.0.0.1:0", Access(None))
        here = Gated(f"127.0.0.1:{port}", engine, models.get("tiny").lanes[MEAN], counts, journal)
        here.close_gate()
        try:
            yield here
        finally:
            engine.gate.set()
            await server.stop(5.0)
            await asyncio.to_thread(workers.close)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is bound to come."""
    async with asyncio.timeout(30.0):
        while not condition():
            await asyncio.sleep(0.01)


def triton_inputs(items: Sequence[dict[str, Any]]) -> list[triton.InferInput]:
    """Structures as an unmodified tritonclient sends them."""
    inputs = []
    for name, array in tensors_of(items).items():
        inputs.append(triton.InferInput(name, list(array.shape), DATATYPES[str(array.dtype)]))
        inputs[-1].set_data_from_numpy(array)
    return inputs


def message(items: Sequence[dict[str, Any]], model: str = "tiny", **others: Any) -> pb.ModelInferRequest:
    """The same as a message, raw."""
    request = pb.ModelInferRequest(model_name=model, **others)
    for name, array in tensors_of(items).items():
        request.inputs.add(name=name, shape=array.shape, datatype=DATATYPES[str(array.dtype)])
        request.raw_input_contents.append(array.tobytes())
    return request


def typed_message(tensors: Mapping[str, tuple[str, str, np.ndarray]], model: str = "tiny") -> pb.ModelInferRequest:
    """A message of typed contents: by name the datatype, the field of its values, and the values."""
    request = pb.ModelInferRequest(model_name=model)
    for name, (datatype, field_name, array) in tensors.items():
        entry = request.inputs.add(name=name, shape=array.shape, datatype=datatype)
        getattr(entry.contents, field_name).extend(array.ravel().tolist())
    return request


def tensors_in(response: pb.ModelInferResponse) -> dict[str, bytes]:
    """The raw bytes of an answer by name."""
    return {output.name: raw for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)}


def stub(channel: grpc.Channel) -> Any:
    return GRPCInferenceServiceStub(channel)
