"""A gateway with tiny real models: in this process for most tests, behind a real socket where the socket matters."""

import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from understudy import Client
from understudy.inprocess import InProcess

sys.path.insert(0, str(Path(__file__).parent))

from flow_model import publish_flow_model
from real_triton import Environment, NoTriton, RealTriton, overlay
from references import SHIPPED
from tiny import tiny_repository

from service.app import create_app
from service.settings import Limits, Settings

SMALL = Limits(
    json_bytes=4_000,
    xyz_bytes=4_000,
    binary_bytes=20_000,
    structures=4,
    atoms=60,
)


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with the models `tiny` and `anything`."""
    return tiny_repository(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def rocks_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a model of flow."""
    root = tiny_repository(tmp_path_factory.mktemp("fields"))
    publish_flow_model(root, tmp_path_factory.mktemp("staging"))
    return root


@pytest.fixture(scope="session")
def gateway(repository: Path) -> Iterator[httpx.Client]:
    """A caller of a gateway in this process."""
    with in_process(Settings(model_repo=repository, workers=2)) as client:
        yield client


@pytest.fixture(scope="session")
def small_gateway(repository: Path) -> Iterator[httpx.Client]:
    """The same with limits that are easily passed."""
    with in_process(Settings(model_repo=repository, workers=1, limits=SMALL)) as client:
        yield client


@pytest.fixture(scope="session")
def sdk(repository: Path) -> Iterator[Client]:
    """The client library, in front of a gateway in this process."""
    with Client(transport=InProcess(create_app(Settings(model_repo=repository, workers=2)))) as client:
        yield client


def in_process(settings: Settings) -> httpx.Client:
    return httpx.Client(transport=InProcess(create_app(settings)), base_url="http://127.0.0.1", timeout=60.0)


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[[Settings], int]]:
    """Starts gateways behind real sockets of this machine; gives their ports."""
    running = []

    def start(settings: Settings) -> int:
        listener = socket.create_server(("127.0.0.1", 0))
        ready = threading.Event()
        app = create_app(settings, on_ready=lambda _: ready.set())
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        running.append((server, thread, listener))
        assert ready.wait(60.0)
        return int(listener.getsockname()[1])

    yield start
    for server, thread, listener in running:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(scope="session")
def port(serve: Callable[[Settings], int], repository: Path) -> int:
    """Port of a gateway with the usual limits."""
    return serve(Settings(model_repo=repository, workers=2))


@pytest.fixture(scope="session")
def triton_environment() -> Environment:
    """Where Triton is installed; tests that need it are skipped, with the reason, where it cannot be."""
    try:
        return Environment()
    except NoTriton as reason:
        pytest.skip(f"no real Triton: {reason}")


@pytest.fixture(scope="session")
def triton_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped models as that Triton takes them."""
    return overlay(SHIPPED, tmp_path_factory.mktemp("triton") / "repository")


@pytest.fixture(scope="session")
def tritons(triton_environment: Environment, triton_repository: Path) -> Iterator[tuple[RealTriton, RealTriton]]:
    """Two real Triton servers that hold the shipped models. A test that harms one leaves both as they were."""
    folder = triton_repository.parent
    servers = tuple(RealTriton(triton_environment, triton_repository, folder) for _ in range(2))
    try:
        for server in servers:
            server.launch()
        for server in servers:
            server.wait()
        yield servers[0], servers[1]
    finally:
        for server in servers:
            server.stop()
