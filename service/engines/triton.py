"""The same batches on one or several Triton servers, each call on the one with the fewest in flight.

A server is asked for a graph only after it was found to hold it, with the right tensors and the right answers. One that
is gone is left alone until it was found so again; its call goes to another server, once.
"""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakSet

import structlog
from numpy.typing import NDArray

from contract.errors import UnderstudyError
from contract.repository import StoredModel
from service.engines import Description, EngineUnavailable, Runner, Stop, Tensors
from service.engines.triton_server import Elsewhere, Graph, TritonServer, engine_away, message_of
from service.errors import ServiceError

ATTEMPTS: Final = 2
WATCH_S: Final = 1.0
_log: Final = structlog.get_logger("triton")


class Triton:
    """Triton servers that hold the same model repository.

    Args:
        urls: addresses of their gRPC ports, host:port.
        calls: at once on each server.
        timeout_s: a call takes no longer.

    Raises:
        EngineUnavailable: no address is given.
    """

    def __init__(self, urls: Sequence[str], calls: int, timeout_s: float) -> None:
        if not urls:
            raise EngineUnavailable(
                "UNDERSTUDY_ENGINE=triton needs UNDERSTUDY_TRITON_URL, the address of Triton's gRPC port, such as "
                "triton:8001; several with commas between them"
            )
        self.concurrency = calls * len(urls)
        self.description = Description("triton", "unknown", "unknown")
        self._servers = [TritonServer(url) for url in urls]
        self._timeout_s = timeout_s
        self._graphs: WeakSet[Graph] = WeakSet()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._watch: threading.Thread | None = None

    def opens(self, stored: StoredModel, file: str) -> bool:
        """Whether the model has this graph."""
        return stored.has(file)

    def open(self, stored: StoredModel, file: str) -> Runner:
        """Make sure that every server that is there holds a graph.

        Raises:
            RepositoryError: one holds no such graph, or another under its name.
            EngineUnavailable: no server is there.
        """
        graph = Graph(stored, file)
        there = [server for server in self._servers if server.is_ready()]
        if not there:
            raise EngineUnavailable(
                f"no Triton server is ready at {', '.join(server.url for server in self._servers)}: start one on this "
                "model repository, or name another address in UNDERSTUDY_TRITON_URL"
            )
        for server in there:
            self._inspect(server, graph)
        self.description = Description("triton", there[0].version(), there[0].device(graph))
        with self._lock:
            self._graphs.add(graph)
        if self._watch is None:
            self._watch = threading.Thread(target=self._look_after, name="understudy-triton", daemon=True)
            self._watch.start()

        def run(tensors: Tensors, stop: Stop | None = None) -> dict[str, NDArray[Any]]:
            return self._run(graph, message_of(graph, tensors, self._timeout_s), stop)

        return run

    def is_there(self) -> bool:
        """Whether some server was last found to hold a graph."""
        return any(server.holds for server in self._servers)

    def close(self) -> None:
        """End the connections."""
        self._closed.set()
        if self._watch is not None:
            self._watch.join()
        for server in self._servers:
            server.close()

    def _run(self, graph: Graph, message: Any, stop: Stop | None) -> dict[str, NDArray[Any]]:
        """One call; if its server is gone, or full, the same on another: a prediction may be made twice.

        Raises:
            ServiceError: no server can answer now.
            RuntimeError: the execution failed.
        """
        tried: list[TritonServer] = []
        refusal: ServiceError = engine_away(f"No server that holds the model {graph} is there.")
        while len(tried) < ATTEMPTS:
            with self._chosen(graph, tried) as server:
                if server is None:
                    break
                tried.append(server)
                try:
                    return server.infer(message, self._timeout_s, stop)
                except Elsewhere as error:
                    refusal = error.refusal
                    if error.away:
                        self._leave(server)
        raise refusal

    @contextmanager
    def _chosen(self, graph: Graph, tried: Sequence[TritonServer]) -> Iterator[TritonServer | None]:
        """The server with the fewest calls of those that hold a graph and are not tried; None if there is none."""
        with self._lock:
            holding = [server for server in self._servers if graph in server.holds and server not in tried]
            server = min(holding, key=lambda server: server.in_flight, default=None)
            if server is not None:
                server.in_flight += 1
        try:
            yield server
        finally:
            if server is not None:
                with self._lock:
                    server.in_flight -= 1

    def _look_after(self) -> None:
        """Ask every server, all the time, whether it is there and holds what is served."""
        faults: dict[TritonServer, str] = {}
        while not self._closed.wait(WATCH_S):
            for server in self._servers:
                fault = self._look_at(server)
                if fault and fault != faults.get(server):
                    _log.error("server is left out", server=server.url, reason=fault)
                faults[server] = fault

    def _look_at(self, server: TritonServer) -> str:
        """What is wrong with a server; nothing if it holds every graph."""
        if not server.is_ready():
            self._leave(server)
            return "it is not ready"
        with self._lock:
            missing = set(self._graphs) - set(server.holds)
        for graph in missing:
            try:
                self._inspect(server, graph)
            except (UnderstudyError, RuntimeError) as error:
                return str(error)
            _log.info("server is there", server=server.url, model=graph.name, version=graph.version)
        return ""

    def _inspect(self, server: TritonServer, graph: Graph) -> None:
        server.inspect(graph, self._timeout_s)
        with self._lock:
            server.holds.add(graph)

    def _leave(self, server: TritonServer) -> None:
        """Do not ask a server until it was looked at again."""
        if server.holds:
            _log.warning("server is gone", server=server.url)
        with self._lock:
            server.holds.clear()
