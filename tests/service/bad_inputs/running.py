"""The real server as a process of its own, asked over every protocol, and what came back in one shape."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub
from understudy.framing import DTYPES
from understudy.wire import Problem
from wires import Call, Item, kserve_binary, kserve_json, raw, rest_binary, rest_json, results, tensors_of

PROJECT = Path(__file__).parents[3]
MODEL = "malonaldehyde"
REST, KSERVE = "/v1/predict/{model}", "/v2/models/{model}/infer"
TENSOR_PROTOCOLS = ("REST binary", "KServe JSON", "KServe binary", "gRPC raw", "gRPC typed")
PROTOCOLS = ("REST JSON", "REST xyz", *TENSOR_PROTOCOLS)
LIMITS = {
    "JSON_BYTES": 1_000_000,
    "XYZ_BYTES": 1_000_000,
    "BINARY_BYTES": 8_000_000,
    "BODY_CHUNKS": 200,
    "BODY_GRACE_S": 2,
    "HEAD_S": 2,
    "STREAM_IDLE_S": 1,
}
SYMBOLS = {1: "H", 6: "C", 8: "O", 26: "Fe"}
GRPC_STATUS = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    413: "RESOURCE_EXHAUSTED",
    415: "INVALID_ARGUMENT",
    422: "INVALID_ARGUMENT",
    501: "UNIMPLEMENTED",
    504: "DEADLINE_EXCEEDED",
}
_TYPED = {
    "BOOL": "bool_contents",
    "INT64": "int64_contents",
    "INT32": "int_contents",
    "UINT8": "uint_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


@dataclass
class Answered:
    """One answer or refusal, whatever the protocol.

    Attributes:
        grpc: status code by name, of a gRPC call.
        seconds: until it was there.
    """

    status: int
    seconds: float
    results: list[dict[str, Any]] = field(default_factory=list)
    problem: dict[str, Any] = field(default_factory=dict)
    grpc: str | None = None

    @property
    def code(self) -> str | None:
        return self.problem.get("code")


@dataclass
class Tensor:
    """One input: what it claims, and what it holds.

    Attributes:
        size: bytes it says it has behind a JSON head; as many as it has, if None.
    """

    name: str
    datatype: str
    shape: list[int]
    values: np.ndarray
    size: int | None = None

    @property
    def data(self) -> bytes:
        return self.values.tobytes()

    @property
    def said(self) -> int:
        return len(self.data) if self.size is None else self.size


def inputs_of(items: Sequence[Item]) -> list[Tensor]:
    """Structures as right tensors."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    return [Tensor(n, names[a.dtype], list(a.shape), np.ascontiguousarray(a)) for n, a in tensors_of(items).items()]


class Server:
    """A running gateway with the shipped models."""

    def __init__(self, process: subprocess.Popen[bytes], http_port: int, grpc_port: int) -> None:
        self.process = process
        self.port = http_port
        self.address = f"127.0.0.1:{grpc_port}"
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{http_port}", timeout=60.0)
        self.channel = grpc.insecure_channel(self.address)
        self.stub = GRPCInferenceServiceStub(self.channel)

    def ask(self, protocol: str, items: Sequence[Item]) -> Answered:
        """The same structures over any protocol."""
        if protocol == "REST xyz":
            return self.post(Call(REST, xyz_of(items), {"Content-Type": "chemical/x-xyz"}))
        calls: dict[str, Callable[..., Call]] = {
            "REST JSON": rest_json,
            "REST binary": rest_binary,
            "KServe JSON": kserve_json,
            "KServe binary": kserve_binary,
        }
        return self.post(calls[protocol](items)) if protocol in calls else self.send(protocol, inputs_of(items))

    def send(self, protocol: str, inputs: Sequence[Tensor], model: str = MODEL) -> Answered:
        """Tensors, right or wrong, over a protocol that has tensors."""
        if protocol.startswith("gRPC"):
            return self.call(message_of(inputs, typed=protocol == "gRPC typed", model=model))
        path = REST if protocol.startswith("REST") else KSERVE
        if protocol == "KServe JSON":
            head = {"inputs": [{**claim(t), "data": _plain(t.values)} for t in inputs]}
            return self.post(Call(path, json.dumps(head).encode()), model)
        sized = [{**claim(t), "parameters": {"binary_data_size": t.said}} for t in inputs]
        binary = {} if path == REST else {"parameters": {"binary_data_output": True}}
        return self.post(raw(path, {"inputs": sized, **binary}, b"".join(t.data for t in inputs)), model)

    def post(self, call: Call, model: str = MODEL) -> Answered:
        """One HTTP request."""
        begin = time.monotonic()
        response = call(self.http, model)
        seconds = time.monotonic() - begin
        if response.status_code == 200:
            return Answered(200, seconds, results(response) if model == MODEL else [])
        return Answered(response.status_code, seconds, problem=problem_of(response))

    def call(self, request: pb.ModelInferRequest) -> Answered:
        """One gRPC call."""
        begin = time.monotonic()
        try:
            response = self.stub.ModelInfer(request, timeout=60)
        except grpc.RpcError as error:
            refusal = error
        else:
            found = _results(response) if request.model_name == MODEL else []
            return Answered(200, time.monotonic() - begin, found)
        seconds, metadata = time.monotonic() - begin, dict(refusal.trailing_metadata())
        problem = json.loads(metadata["problem-bin"])
        assert problem["request_id"] == metadata["x-request-id"]
        assert refusal.details() == problem["error"]
        refuse_leaks(refusal.details())
        return Answered(problem["status"], seconds, problem=problem, grpc=refusal.code().name)

    @property
    def resident_mib(self) -> float:
        """Memory of the server."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def claim(tensor: Tensor) -> dict[str, Any]:
    return {"name": tensor.name, "datatype": tensor.datatype, "shape": tensor.shape}


def message_of(inputs: Sequence[Tensor], typed: bool, model: str = MODEL) -> pb.ModelInferRequest:
    """Tensors as a message, right or wrong."""
    request = pb.ModelInferRequest(model_name=model)
    for tensor in inputs:
        entry = request.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if not typed:
            request.raw_input_contents.append(tensor.data)
        elif tensor.datatype == "BYTES":
            entry.contents.bytes_contents.extend(tensor.values.tolist())
        else:
            getattr(entry.contents, _TYPED[tensor.datatype]).extend(_plain(tensor.values))
    return request


def xyz_of(items: Sequence[Item]) -> bytes:
    """Structures as frames of extended XYZ, right or wrong."""
    lines = []
    for item in items:
        said = [f'Lattice="{" ".join(map(repr, np.ravel(item["cell"]).tolist()))}"'] if "cell" in item else []
        said += [f"{name}={item[name]}" for name in ("charge", "spin") if name in item]
        if "pbc" in item:
            said.append(f'pbc="{" ".join("FT"[int(p)] for p in np.broadcast_to(item["pbc"], 3))}"')
        lines += [str(len(item["numbers"])), " ".join([*said, "Properties=species:S:1:pos:R:3"])]
        for z, position in zip(item["numbers"], np.asarray(item["positions"]).tolist(), strict=False):
            lines.append(" ".join([SYMBOLS.get(int(z), "Xx"), *map(repr, position)]))
    return ("\n".join(lines) + "\n").encode()


def problem_of(response: httpx.Response) -> dict[str, Any]:
    """The document of a refusal, after a look at everything that each must say and none may."""
    assert response.headers["content-type"] == "application/problem+json", response.text
    body: dict[str, Any] = response.json()
    problem = Problem.model_validate(body)
    assert problem.status == response.status_code
    assert problem.detail
    assert problem.hint
    assert problem.error.startswith(problem.detail)
    assert problem.request_id == response.headers["x-request-id"]
    refuse_leaks(response.text)
    return body


def refuse_leaks(text: str) -> None:
    assert not [word for word in ("Traceback", "/service", "site-packages", "object at 0x") if word in text]


def _plain(values: np.ndarray) -> list[Any]:
    return [v.decode() if isinstance(v, bytes) else v for v in values.ravel().tolist()]


def _results(response: pb.ModelInferResponse) -> list[dict[str, Any]]:
    tensors = {
        output.name: np.frombuffer(raw, DTYPES[output.datatype]).reshape(list(output.shape))
        for output, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }
    return [
        {"energy": energy, "in_domain": bool(inside), "all_forces": tensors["forces"]}
        for energy, inside in zip(tensors["energy"], tensors["in_domain"], strict=True)
    ]


def forces_of(answered: Answered) -> np.ndarray:
    """Forces of all structures, concatenated."""
    if "all_forces" in answered.results[0]:
        return np.asarray(answered.results[0]["all_forces"])
    return np.concatenate([result["forces"] for result in answered.results])


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(log: Path, **environment: str) -> Iterator[Server]:
    """`understudy serve` with the shipped models, on free ports; its standard error goes to a file."""
    http_port, grpc_port = free_port(), free_port()
    limits = {f"UNDERSTUDY_LIMITS__{name}": str(value) for name, value in LIMITS.items()}
    command = [sys.executable, "-m", "understudy", "serve", "--port", str(http_port), "--grpc-port", str(grpc_port)]
    command += ["--model-repo", str(PROJECT / "model_repo"), "--workers", "2"]
    environment = os.environ | limits | environment
    with log.open("wb") as written, subprocess.Popen(command, stderr=written, env=environment) as process:
        try:
            server = Server(process, http_port, grpc_port)
            _wait(server, log)
            yield server
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            server.channel.close()
            server.http.close()


def _wait(server: Server, log: Path) -> None:
    for _ in range(1_200):
        assert server.process.poll() is None, log.read_text()
        try:
            assert server.http.get("/v2/health/ready").status_code == 200
            return
        except httpx.ConnectError:
            time.sleep(0.1)
    raise AssertionError(log.read_text())
