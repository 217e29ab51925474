"""One Triton server over gRPC: is it ready, does it hold our graphs, and what does it answer."""

import os
from dataclasses import dataclass
from typing import Any, Final
from weakref import WeakSet

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what happens is told by exceptions, not by lines of its C library

import grpc
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import model_config_pb2, service_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from understudy.framing import DTYPES, datatype_of

from contract.errors import RepositoryError, UnsafeArtefact
from contract.layout import folder_of
from contract.repository import StoredModel
from contract.signatures import GRAPHS, Signature
from service.engines import Stop, Tensors
from service.engines.reference import refuse_other_answers
from service.errors import DeadlineExceeded, EngineAway, QueueFull, ServiceError

RETRY_AFTER_S: Final = 2
_PROBE_S: Final = 10.0
_OPTIONS: Final = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of our own, whoever else in this process calls that server
]
_CPU: Final = {model_config_pb2.ModelInstanceGroup.KIND_CPU}
_AWAY: Final = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED}


@dataclass(frozen=True, eq=False)
class Graph:
    """A graph that is served, and its name on the servers."""

    stored: StoredModel
    file: str

    @property
    def name(self) -> str:
        """As Triton knows it."""
        return folder_of(self.stored.card.name, self.file)

    @property
    def version(self) -> str:
        """Of the model."""
        return self.stored.card.version

    @property
    def signature(self) -> Signature:
        """What it takes and gives."""
        return GRAPHS[self.stored.card.family][self.file]

    def __str__(self) -> str:
        return f"'{self.name}' version {self.version}"


class Elsewhere(Exception):
    """This server cannot answer now; another may.

    Args:
        refusal: what the caller is told if no other does.
        away: it is not to be asked again before it was inspected.
    """

    def __init__(self, refusal: ServiceError, away: bool) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
        self.away = away


class TritonServer:
    """A server, by the address of its gRPC port.

    Attributes:
        holds: the graphs that were found on it, for as long as it answers.
        in_flight: calls that it runs for us.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.holds: WeakSet[Graph] = WeakSet()
        self.in_flight = 0
        self._channel = grpc.insecure_channel(url, options=_OPTIONS)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    def is_ready(self) -> bool:
        """Whether it answers, with every one of its models loaded."""
        try:
            return bool(self._stub.ServerReady(pb.ServerReadyRequest(), timeout=_PROBE_S).ready)
        except grpc.RpcError:
            return False

    def version(self) -> str:
        """Of Triton.

        Raises:
            EngineAway
        """
        return str(self._ask("ServerMetadata", pb.ServerMetadataRequest()).version)

    def device(self, graph: Graph) -> str:
        """What a graph runs on there.

        Raises:
            EngineAway
        """
        config = self._ask("ModelConfig", pb.ModelConfigRequest(name=graph.name, version=graph.version)).config
        return "cpu" if {group.kind for group in config.instance_group} == _CPU else "cuda"

    def inspect(self, graph: Graph, timeout_s: float) -> None:
        """Make sure that the server holds a graph: its tensors, and the answers that it was admitted with.

        Raises:
            UnsafeArtefact: it has none under this name, or one with other tensors.
            NotReproduced: it has one that gives other answers.
            ServiceError: it does not answer.
        """
        if not self._ask("ModelReady", pb.ModelReadyRequest(name=graph.name, version=graph.version)).ready:
            raise UnsafeArtefact(
                f"Triton at {self.url} has no model {graph}: start it on the folder that UNDERSTUDY_MODEL_REPO names"
            )
        metadata = self._ask("ModelMetadata", pb.ModelMetadataRequest(name=graph.name, version=graph.version))
        wanted, found = _tensors_of(graph.signature), _tensors_on(metadata)
        if differing := sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)):
            raise UnsafeArtefact(f"Triton at {self.url} has another model {graph}: {', '.join(differing)} differ")

        def run(tensors: Tensors, stop: Stop | None = None) -> dict[str, NDArray[Any]]:
            return self.infer(message_of(graph, tensors, timeout_s), timeout_s, stop)

        try:
            refuse_other_answers(graph.stored, graph.file, run)
        except Elsewhere as error:
            raise error.refusal from None
        except RepositoryError as error:
            raise type(error)(f"Triton at {self.url}: {error}") from None

    def infer(self, message: Any, timeout_s: float, stop: Stop | None = None) -> dict[str, NDArray[Any]]:
        """Run one batch; told to stop, the call is cancelled.

        Raises:
            Elsewhere: another server may answer.
            ServiceError: no other would.
            RuntimeError: the execution failed, in Triton's words.
        """
        call = self._stub.ModelInfer.future(message, timeout=timeout_s)
        if stop is not None:
            stop.by(call.cancel)
        try:
            answer = call.result()
        except grpc.RpcError as error:
            raise translated(error.code(), error.details(), timeout_s) from None
        return {
            output.name: np.frombuffer(raw, DTYPES[output.datatype]).reshape(output.shape)
            for output, raw in zip(answer.outputs, answer.raw_output_contents, strict=True)
        }

    def close(self) -> None:
        """End the connection and what runs on it."""
        self._channel.close()

    def _ask(self, method: str, request: Any) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=_PROBE_S)
        except grpc.RpcError as error:
            raise engine_away(f"Triton at {self.url}: {error.details()}") from None


def message_of(graph: Graph, tensors: Tensors, timeout_s: float) -> Any:
    """A batch as a request; waiting longer than `timeout_s` in Triton's queue, it is refused there."""
    message = pb.ModelInferRequest(model_name=graph.name, model_version=graph.version)
    message.parameters["timeout"].int64_param = int(1e6 * timeout_s)
    for spec in graph.signature.inputs:
        array = tensors[spec.name]
        message.inputs.add(name=spec.name, datatype=datatype_of(array.dtype), shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    for spec in graph.signature.outputs:
        message.outputs.add(name=spec.name)
    return message


def translated(code: grpc.StatusCode, text: str, timeout_s: float) -> Exception:
    """What a failed call means; a full queue and an expired request are UNAVAILABLE too, told apart by their words."""
    if "maximum queue size" in text:
        return Elsewhere(_queue_full(), away=False)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED or "timeout expired" in text:
        return DeadlineExceeded(
            f"Triton did not answer within {timeout_s:g} s.",
            hint="Send less, or ask again later.",
            limit=timeout_s,
            unit="s",
        )
    if code in _AWAY:
        return Elsewhere(engine_away("The server that ran the model is gone."), away=True)
    return RuntimeError(f"Triton: {text}")


def engine_away(detail: str) -> EngineAway:
    """The refusal of a request that no server can answer now."""
    return EngineAway(
        detail,
        hint=f"Ask again in {RETRY_AFTER_S} s; the gateway looks for a server all the time.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
        retry_after_s=RETRY_AFTER_S,
    )


def _queue_full() -> QueueFull:
    return QueueFull(
        "The servers that run this model have all that they may queue.",
        hint=f"Ask again in {RETRY_AFTER_S} s.",
        headers={"Retry-After": str(RETRY_AFTER_S)},
        retry_after_s=RETRY_AFTER_S,
    )


def _tensors_of(signature: Signature) -> dict[str, tuple[str, int]]:
    specs = {f"input {spec.name}": spec for spec in signature.inputs}
    specs |= {f"output {spec.name}": spec for spec in signature.outputs}
    return {name: (str(datatype_of(np.dtype(spec.dtype))), len(spec.dims)) for name, spec in specs.items()}


def _tensors_on(metadata: Any) -> dict[str, tuple[str, int]]:
    tensors = {f"input {tensor.name}": tensor for tensor in metadata.inputs}
    tensors |= {f"output {tensor.name}": tensor for tensor in metadata.outputs}
    return {name: (tensor.datatype, len(tensor.shape)) for name, tensor in tensors.items()}
