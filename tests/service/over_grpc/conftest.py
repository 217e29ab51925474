"""Gateways with both ports, and callers of the gRPC one."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

sys.path.append(str(Path(__file__).parent))  # behind tests/service, whose modules others import by name

from grpc_gateway import Ports, message, run, stub, tensors_in
from messages import ENERGY, M

from service.settings import Limits, Settings


@pytest.fixture(scope="module")
def ports(repository: Path) -> Iterator[Ports]:
    running = run(Settings(model_repo=repository, workers=2))
    yield running.ports
    running.stop()


@pytest.fixture(scope="module")
def small_ports(repository: Path) -> Iterator[Ports]:
    limits = Limits(binary_bytes=20_000, json_bytes=2_000, atoms=60, structures=4, stream_idle_s=0.2)
    running = run(Settings(model_repo=repository, workers=1, limits=limits))
    yield running.ports
    running.stop()


@pytest.fixture
def client(ports: Ports) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(ports.address) as client:
        yield client


@pytest.fixture
def calls(ports: Ports) -> Iterator[Any]:
    """The generated stub, for what tritonclient would not send."""
    with grpc.insecure_channel(ports.address) as channel:
        yield stub(channel)
        (energy,) = np.frombuffer(tensors_in(stub(channel).ModelInfer(message([M])))["energy"])
        assert energy == pytest.approx(ENERGY, abs=1e-4)  # whatever was asked before, the next request is right
