"""The Open Inference Protocol over gRPC: unmodified tritonclients, HTTP's numbers and refusals, callers who leave."""

import asyncio
import json
import queue
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc_gateway import (
    Ports,
    gated,
    message,
    run,
    stub,
    tensors_in,
    triton_inputs,
    typed_message,
    until,
)
from tiny import pair_energy
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException
from understudy.framing import HEADER_LENGTH, decode
from wires import Item, kserve_binary, malonaldehyde, structure_of, tensors_of

from service.access import Access
from service.api.grpc_refusals import refusal_of
from service.api.grpc_server import PortTaken, start
from service.doors import grpc_door
from service.errors import NotReady, QueueFull
from service.models import Models
from service.plane import Plane
from service.settings import Limits, Settings

M = malonaldehyde()
ENERGY = pair_energy(structure_of(M))
RNG = np.random.default_rng(7)
CRYSTAL = {"numbers": [6, 8], "positions": [[0, 0, 0], [2.0, 1.9, 2.1]], "cell": np.eye(3) * 4.2, "pbc": True}


def cloud(atoms: int) -> Item:
    grid = np.stack(np.unravel_index(np.arange(atoms), (8, 8, 8)), -1) * 1.4
    return {"numbers": RNG.choice([1, 6, 8], atoms), "positions": grid + RNG.uniform(-0.2, 0.2, (atoms, 3))}


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


def refused(call: Any, request: Any, **options: Any) -> tuple[str, dict[str, Any]]:
    """Status code and problem document of a call that must fail."""
    with pytest.raises(grpc.RpcError) as refusal:
        call(request, **options)
    metadata = dict(refusal.value.trailing_metadata())
    problem = json.loads(metadata["problem-bin"])
    assert problem["request_id"] == metadata["x-request-id"]
    assert refusal.value.details() == problem["error"]
    assert not [word for word in ("Traceback", "/service", "0x") if word in refusal.value.details()]
    return refusal.value.code().name, problem


# ---------------------------------------------------------------- an unmodified tritonclient


def test_an_unmodified_triton_client_finds_server_and_model(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert [client.is_model_ready(*m) for m in (("tiny",), ("tiny", "1"), ("tiny", "2"), ("nobody",))] == [
        True,
        True,
        False,
        False,
    ]
    assert client.get_server_metadata().name == "understudy"
    metadata = client.get_model_metadata("tiny", as_json=True)
    assert [t["name"] for t in metadata["inputs"]] == ["numbers", "positions", "natoms", "cell", "pbc"]
    assert {"name": "forces", "datatype": "FP32", "shape": ["-1", "3"]} in metadata["outputs"]
    config = client.get_model_config("tiny", "1", as_json=True)["config"]
    assert [t["name"] for t in config["input"] if t.get("optional")] == ["natoms", "cell", "pbc"]
    assert [m.name for m in client.get_model_repository_index().models] == ["anything", "tiny"]


def test_both_protocols_describe_a_model_alike(ports: Ports, client: triton.InferenceServerClient) -> None:
    said = httpx.get(f"http://127.0.0.1:{ports.http}/v2/models/anything").json()
    metadata = client.get_model_metadata("anything")
    for side in ("inputs", "outputs"):
        tensors = [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in getattr(metadata, side)]
        assert tensors == said[side]
    assert (metadata.name, list(metadata.versions), metadata.platform) == (
        said["name"],
        said["versions"],
        said["platform"],
    )


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_an_unmodified_triton_client_is_answered(client: triton.InferenceServerClient, compression: str | None) -> None:
    answer = client.infer("tiny", triton_inputs([M, M]), request_id="7", compression_algorithm=compression)
    np.testing.assert_allclose(answer.as_numpy("energy"), [ENERGY, ENERGY], atol=1e-4)
    assert answer.as_numpy("forces").shape == (18, 3)
    assert answer.as_numpy("in_domain").tolist() == [True, True]
    assert answer.as_numpy("stress") is None
    response = answer.get_response()
    assert (response.id, response.model_name, response.model_version) == ("7", "tiny", "1")
    assert len(response.parameters["us_digest"].string_param) == 64


def test_an_unmodified_asynchronous_triton_client_is_answered(ports: Ports) -> None:
    async def ask() -> list[Any]:
        async with triton_aio.InferenceServerClient(ports.address) as client:
            assert await client.is_model_ready("tiny")
            assert (await client.get_model_metadata("tiny")).name == "tiny"
            return await asyncio.gather(*[client.infer("tiny", triton_inputs([M] * n)) for n in range(1, 9)])

    for n, answer in enumerate(asyncio.run(ask()), 1):
        np.testing.assert_allclose(answer.as_numpy("energy"), [ENERGY] * n, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "items"),
    [
        ("tiny", [M]),
        ("tiny", [M, M, M]),
        ("anything", [cloud(1), M, cloud(400), cloud(2), CRYSTAL, cloud(37)]),
        ("anything", [CRYSTAL, CRYSTAL]),
        ("anything", [cloud(500)]),
    ],
    ids=["a molecule", "three molecules", "mixed sizes and periodicity", "crystals", "500 atoms"],
)
def test_answers_are_those_of_http_bit_for_bit(
    ports: Ports, client: triton.InferenceServerClient, model: str, items: list[Item]
) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{ports.http}") as http:
        response = kserve_binary(items)(http, model)
    head, expected = decode(response.content, int(response.headers[HEADER_LENGTH]), field="outputs")
    answer = client.infer(model, triton_inputs(items))
    assert [output.name for output in answer.get_response().outputs] == list(expected)
    for name, array in expected.items():
        got = answer.as_numpy(name)
        assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, array.shape, array.tobytes()), name
    said = answer.get_response().parameters
    assert {name: said[name].string_param for name in said} == head["parameters"]


def test_outputs_come_as_they_were_asked_for_in_that_order(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput(name) for name in ("forces_std", "energy")]
    answer = client.infer("tiny", triton_inputs([M]), model_version="1", outputs=outputs, timeout=5_000_000)
    assert [output.name for output in answer.get_response().outputs] == ["forces_std", "energy"]
    assert answer.as_numpy("forces_std").shape == (9, 3)


def test_statistics_count_structures_and_engine_calls(client: triton.InferenceServerClient) -> None:
    before = client.get_inference_statistics("tiny").model_stats[0]
    client.infer("tiny", triton_inputs([M, M]))
    after = client.get_inference_statistics("tiny").model_stats[0]
    assert after.inference_count - before.inference_count == 2
    assert 1 <= after.execution_count - before.execution_count <= 2
    assert [stats.name for stats in client.get_inference_statistics().model_stats] == ["anything", "tiny"]


# ---------------------------------------------------------------- typed contents


TYPED = {
    "as the signature says": {"numbers": ("INT64", "int64_contents"), "positions": ("FP64", "fp64_contents")},
    "signed": {"numbers": ("INT8", "int_contents"), "natoms": ("INT32", "int_contents")},
    "unsigned": {"numbers": ("UINT8", "uint_contents"), "natoms": ("UINT64", "uint64_contents")},
    "single precision": {"positions": ("FP32", "fp32_contents")},
}
USUAL = {
    "numbers": ("INT64", "int64_contents"),
    "positions": ("FP64", "fp64_contents"),
    "natoms": ("INT64", "int64_contents"),
    "cell": ("FP64", "fp64_contents"),
    "pbc": ("BOOL", "bool_contents"),
}


@pytest.mark.parametrize("name", TYPED)
def test_typed_contents_mean_the_same_as_raw_ones(calls: Any, name: str) -> None:
    items = [CRYSTAL, {**CRYSTAL, "pbc": [True, True, False]}]
    kinds = {**USUAL, **TYPED[name]}
    request = typed_message({n: (*kinds[n], a) for n, a in tensors_of(items).items()}, "anything")
    typed, raw = (tensors_in(calls.ModelInfer(r)) for r in (request, message(items, "anything")))
    if name == "single precision":
        np.testing.assert_allclose(np.frombuffer(typed["energy"]), np.frombuffer(raw["energy"]), atol=1e-4)
    else:
        assert typed == raw


# ---------------------------------------------------------------- refusals


def test_every_refusal_of_http_has_its_status_code() -> None:
    full = QueueFull("Full.", hint="Ask again.", headers={"Retry-After": "2"})
    refusal = refusal_of(full, "r")
    assert refusal.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ("grpc-retry-pushback-ms", "2000") in refusal.metadata
    assert refusal_of(NotReady("Starting.", hint="Ask again."), "r").code is grpc.StatusCode.UNAVAILABLE
    internal = refusal_of(KeyError("secret"), "r")
    assert internal.code is grpc.StatusCode.INTERNAL
    assert "secret" not in internal.text


def test_a_refusal_never_outgrows_the_metadata_that_callers_take() -> None:
    long = refusal_of(QueueFull("ü" * 50_000, hint="Ask again.", models=["x"] * 10_000), "r")
    assert len(json.dumps(long.text)) + len(dict(long.metadata)["problem-bin"]) * 4 / 3 < 8_000
    assert json.loads(dict(long.metadata)["problem-bin"])["code"] == "queue_full"


def altered(tensor: str, **changes: Any) -> pb.ModelInferRequest:
    """A right message with one input changed."""
    request = message([M])
    entry = next(entry for entry in request.inputs if entry.name == tensor)
    for name, value in changes.items():
        if name == "shape":
            entry.shape[:] = value
        else:
            setattr(entry, name, value)
    return request


def typed(tensor: str, datatype: str, field: str, values: Any) -> pb.ModelInferRequest:
    tensors = {n: (*USUAL[n], a) for n, a in tensors_of([M]).items()}
    return typed_message({**tensors, tensor: (datatype, field, np.asarray(values))})


def both() -> pb.ModelInferRequest:
    request = message([M])
    request.inputs[0].contents.int64_contents.extend(M["numbers"])
    return request


def without_last_buffer() -> pb.ModelInferRequest:
    request = message([M])
    del request.raw_input_contents[-1]
    return request


def in_shared_memory(side: str) -> pb.ModelInferRequest:
    request = message([M])
    entry = request.inputs[0] if side == "inputs" else request.outputs.add(name="energy")
    entry.parameters["shared_memory_region"].string_param = "region"
    return request


def with_parameter(name: str, **value: Any) -> pb.ModelInferRequest:
    request = message([M])
    request.parameters[name].CopyFrom(pb.InferParameter(**value))
    return request


def asking_for(*names: str) -> pb.ModelInferRequest:
    return message([M], outputs=[{"name": name} for name in names])


BAD_MESSAGES = {
    "text for a datatype": (altered("positions", datatype="float64"), 400, "unsupported_datatype"),
    "BF16": (altered("positions", datatype="BF16"), 400, "unsupported_datatype"),
    "a tensor that is not known": (altered("natoms", name="charges"), 400, "unknown_field"),
    "a tensor without a name": (altered("natoms", name=""), 400, "unknown_field"),
    "no tensors": (pb.ModelInferRequest(model_name="tiny"), 400, "missing_field"),
    "raw contents without inputs": (
        pb.ModelInferRequest(model_name="tiny", raw_input_contents=[b"x"]),
        400,
        "malformed_tensors",
    ),
    "fewer raw contents than inputs": (without_last_buffer(), 400, "malformed_tensors"),
    "raw and typed contents": (both(), 400, "ambiguous_tensor"),
    "neither raw nor typed contents": (
        pb.ModelInferRequest(model_name="tiny", inputs=[{"name": "numbers", "datatype": "INT64", "shape": [9]}]),
        400,
        "size_mismatch",
    ),
    "1,000 inputs": (
        pb.ModelInferRequest(model_name="tiny", inputs=[{"name": "numbers"}] * 1_000),
        413,
        "request_too_large",
    ),
    "typed contents in the field of another datatype": (
        typed("positions", "FP64", "fp32_contents", M["positions"]),
        400,
        "malformed_data",
    ),
    "typed contents beyond their datatype": (
        typed("numbers", "INT8", "int_contents", [300] * 9),
        400,
        "malformed_data",
    ),
    "typed FP16": (typed("positions", "FP16", "fp32_contents", M["positions"]), 400, "malformed_data"),
    "fewer typed values than the shape says": (
        typed("positions", "FP64", "fp64_contents", M["positions"][:8]),
        400,
        "bad_shape",
    ),
    "an input in shared memory": (in_shared_memory("inputs"), 501, "not_served"),
    "an output in shared memory": (in_shared_memory("outputs"), 501, "not_served"),
    "an output that does not exist": (asking_for("energy", "dipole"), 400, "unknown_output"),
    "stress of a molecule": (asking_for("stress"), 400, "unknown_output"),
    "a timeout that is text": (with_parameter("timeout", string_param="5"), 400, "malformed_request"),
    "a negative timeout": (with_parameter("timeout", int64_param=-1), 400, "malformed_request"),
    "an id of 300 bytes": (message([M], id="x" * 300), 400, "malformed_request"),
    "a model that is not there": (message([M], "nobody"), 404, "unknown_model"),
    "a model without a name": (message([M], ""), 404, "unknown_model"),
    "a model with a path for a name": (message([M], "../../etc/passwd"), 404, "unknown_model"),
    "a version that is not there": (message([M], model_version="2"), 404, "unknown_model"),
    "forces_std of a model without it": (
        message([M], "anything", outputs=[{"name": "forces_std"}]),
        400,
        "unknown_output",
    ),
}
STATUS_CODES = {400: "INVALID_ARGUMENT", 404: "NOT_FOUND", 413: "RESOURCE_EXHAUSTED", 501: "UNIMPLEMENTED"}


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_messages_that_cannot_be_answered_are_refused_by_name(calls: Any, name: str) -> None:
    request, status, code = BAD_MESSAGES[name]
    got, problem = refused(calls.ModelInfer, request)
    assert (got, problem["status"], problem["code"]) == (STATUS_CODES[status], status, code)


def test_bytes_that_are_no_message_are_refused_also_within_a_stream(ports: Ports, calls: Any) -> None:
    garbage = b"\xff\xff\xff\xff not protobuf"
    with grpc.insecure_channel(ports.address) as channel:
        code, problem = refused(channel.unary_unary("/inference.GRPCInferenceService/ModelInfer"), garbage)
        assert (code, problem["code"]) == ("INVALID_ARGUMENT", "malformed_message")
        stream = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        sent = [garbage, message([M]).SerializeToString()]
        bad, good = (pb.ModelStreamInferResponse.FromString(answer) for answer in stream(iter(sent)))
        assert bad.error_message.startswith("The message is not what this method takes.")
        assert tensors_in(good.infer_response)


def test_a_triton_client_reads_our_refusals(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="There are: anything, tiny") as refusal:
        client.infer("nobody", triton_inputs([M]))
    assert refusal.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException, match="served in version 1"):
        client.get_model_metadata("tiny", "3")


UNSERVED = [
    "RepositoryModelLoad",
    "RepositoryModelUnload",
    "SystemSharedMemoryStatus",
    "SystemSharedMemoryRegister",
    "SystemSharedMemoryUnregister",
    "CudaSharedMemoryStatus",
    "CudaSharedMemoryRegister",
    "CudaSharedMemoryUnregister",
    "TraceSetting",
    "LogSettings",
]


@pytest.mark.parametrize("method", UNSERVED)
def test_calls_that_are_not_served_say_so_plainly(calls: Any, method: str) -> None:
    request = getattr(pb, f"{method}Request")()
    code, problem = refused(getattr(calls, method), request)
    assert (code, problem["code"]) == ("UNIMPLEMENTED", "not_served")


def test_a_message_over_the_limit_is_refused_before_it_is_read(small_ports: Ports) -> None:
    with grpc.insecure_channel(small_ports.address) as channel:
        with pytest.raises(grpc.RpcError) as refusal:
            stub(channel).ModelInfer(message([cloud(500), cloud(500)], "anything"))
        assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        code, problem = refused(stub(channel).ModelInfer, message([cloud(61)], "anything"))
        assert (code, problem["code"], problem["limit"], problem["got"]) == (
            "RESOURCE_EXHAUSTED",
            "request_too_large",
            60,
            61,
        )
        assert tensors_in(stub(channel).ModelInfer(message([M])))


def test_everything_beside_raw_contents_is_bounded_as_a_json_head_is(small_ports: Ports) -> None:
    request = typed_message({n: (*USUAL[n], a) for n, a in tensors_of([cloud(60), cloud(60)]).items()})
    with grpc.insecure_channel(small_ports.address) as channel:
        code, problem = refused(stub(channel).ModelInfer, request)
    assert (code, problem["code"], problem["limit"]) == ("RESOURCE_EXHAUSTED", "body_too_large", 2_000)


def test_a_request_id_is_kept_if_it_is_harmless_and_made_if_not(calls: Any) -> None:
    def id_for(given: str) -> str:
        _, call = calls.ServerLive.with_call(pb.ServerLiveRequest(), metadata=[("x-request-id", given)])
        return str(dict(call.trailing_metadata())["x-request-id"])

    assert id_for("mine-1") == "mine-1"
    assert id_for("x" * 200) != "x" * 200


def test_answers_over_grpc_are_counted_among_the_metrics(ports: Ports, calls: Any) -> None:
    calls.ModelInfer(message([M]))
    refused(calls.ModelInfer, message([M], "nobody"))
    text = httpx.get(f"http://127.0.0.1:{ports.http}/metrics").text
    for status in (200, 404):
        route = 'method="gRPC",route="/inference.GRPCInferenceService/ModelInfer"'
        assert f'understudy_answers_total{{{route},status="{status}"}}' in text


# ---------------------------------------------------------------- time, and callers who leave


def test_a_caller_who_cancels_takes_its_work_out_and_its_neighbours_are_answered(repository: Path) -> None:
    async def scene() -> None:
        async with gated(repository) as here, triton_aio.InferenceServerClient(here.address) as client:
            first = asyncio.create_task(client.infer("tiny", triton_inputs([M])))
            await here.engine_begins()
            leaving, staying = (asyncio.create_task(client.infer("tiny", triton_inputs([M] * 2))) for _ in range(2))
            await until(lambda: here.lane.waiting == 4)
            leaving.cancel()
            await until(lambda: here.lane.waiting == 2)
            first.cancel()
            await until(lambda: here.lane.counts.cancelled == 2)
            here.engine.gate.set()
            answer = await staying
            np.testing.assert_allclose(answer.as_numpy("energy"), [ENERGY] * 2, atol=1e-4)
            assert here.counts["/inference.GRPCInferenceService/ModelInfer", "gRPC", 499] == 2

    asyncio.run(scene())


@pytest.mark.parametrize("given", [{"client_timeout": 0.3}, {"timeout": 300_000}], ids=["deadline", "parameter"])
def test_work_that_is_late_never_begins(repository: Path, given: dict[str, Any]) -> None:
    async def scene() -> None:
        async with gated(repository) as here, triton_aio.InferenceServerClient(here.address) as client:
            first = asyncio.create_task(client.infer("tiny", triton_inputs([M])))
            await here.engine_begins()
            with pytest.raises(InferenceServerException) as late:
                await client.infer("tiny", triton_inputs([M] * 3), **given)
            assert late.value.status() == "StatusCode.DEADLINE_EXCEEDED"
            await until(lambda: here.lane.waiting == 0)
            here.engine.gate.set()
            await first
            assert here.lane.counts.samples == 1

    asyncio.run(scene())


def test_the_earlier_of_deadline_and_parameter_wins(repository: Path) -> None:
    async def scene() -> None:
        async with gated(repository) as here, triton_aio.InferenceServerClient(here.address) as client:
            with pytest.raises(InferenceServerException, match=r"after 0\.2 s"):
                await client.infer("tiny", triton_inputs([M]), client_timeout=30.0, timeout=200_000)

    asyncio.run(scene())


def test_a_full_queue_says_when_to_ask_again(repository: Path) -> None:
    async def scene() -> None:
        async with gated(repository, queued_structures=1) as here, grpc.aio.insecure_channel(here.address) as channel:
            running = [asyncio.ensure_future(_infer(channel))]
            await here.engine_begins()
            running.append(asyncio.ensure_future(_infer(channel)))
            await until(lambda: here.lane.waiting == 1)
            with pytest.raises(grpc.aio.AioRpcError) as full:
                await _infer(channel)
            assert full.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert int(dict(full.value.trailing_metadata())["grpc-retry-pushback-ms"]) >= 1_000
            here.engine.gate.set()
            await asyncio.gather(*running)

    asyncio.run(scene())


async def _infer(channel: grpc.aio.Channel) -> Any:
    return await stub(channel).ModelInfer(message([M]))


# ---------------------------------------------------------------- streams


def test_a_bad_message_in_a_stream_is_refused_and_the_stream_goes_on(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))
    for number, model in enumerate(["tiny", "nobody", "tiny", "tiny"]):
        client.async_stream_infer(model, triton_inputs([M] * (number + 1)), request_id=str(number))
    got = [answers.get(timeout=30) for _ in range(4)]
    client.stop_stream()
    assert [error is None for _, error in got] == [True, False, True, True]
    assert "There are: anything, tiny" in str(got[1][1])
    for number in (0, 2, 3):
        result = got[number][0]
        np.testing.assert_allclose(result.as_numpy("energy"), [ENERGY] * (number + 1), atol=1e-4)
        assert result.get_response().id == str(number)
        assert result.get_response().parameters["triton_final_response"].bool_param


def test_an_asynchronous_stream_answers_more_messages_than_it_reads_ahead_in_their_order(ports: Ports) -> None:
    async def requests() -> AsyncIterator[dict[str, Any]]:
        for number in range(40):
            inputs = triton_inputs([cloud(1 + number * 7 % 50)] if number != 20 else [{**M, "numbers": [0] * 9}])
            yield {"model_name": "anything", "inputs": inputs, "request_id": str(number)}

    async def ask() -> list[tuple[Any, Any]]:
        async with triton_aio.InferenceServerClient(ports.address) as client:
            return [answer async for answer in client.stream_infer(requests())]

    answers = asyncio.run(ask())
    assert [number for number, (_, error) in enumerate(answers) if error] == [20]
    ids = [result.get_response().id for result, error in answers if error is None]
    assert ids == [str(number) for number in range(40) if number != 20]
    assert [len(result.as_numpy("forces")) for result, error in answers[:20]] == [1 + n * 7 % 50 for n in range(20)]


def test_a_refused_message_names_its_request_and_its_code(calls: Any) -> None:
    (answer,) = calls.ModelStreamInfer(iter([message([M], "nobody", id="mine")]))
    assert answer.error_message.startswith("No model 'nobody' is served here.")
    assert answer.infer_response.id == "mine"
    assert answer.infer_response.parameters["us_code"].string_param == "unknown_model"
    assert answer.infer_response.parameters["triton_final_response"].bool_param


def test_a_stream_that_is_left_open_and_silent_is_ended(small_ports: Ports) -> None:
    silent: queue.Queue[Any] = queue.Queue()
    silent.put(message([M]))
    with grpc.insecure_channel(small_ports.address) as channel:
        answers = stub(channel).ModelStreamInfer(iter(silent.get, None))
        assert tensors_in(next(answers).infer_response)
        with pytest.raises(grpc.RpcError) as ended:
            next(answers)
        silent.put(None)
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "no message for 0.2 s" in ended.value.details()


def test_a_caller_who_leaves_a_stream_takes_all_its_messages_out_of_the_queue(repository: Path) -> None:
    async def scene() -> None:
        async with gated(repository) as here, grpc.aio.insecure_channel(here.address) as channel:
            call = stub(channel).ModelStreamInfer()
            for _ in range(4):
                await call.write(message([M]))
            await here.engine_begins()
            await until(lambda: here.lane.waiting == 3)
            call.cancel()
            await until(lambda: here.lane.waiting == 0 and here.lane.counts.cancelled == 4)
            here.engine.gate.set()
            assert np.frombuffer(tensors_in(await _infer(channel))["energy"]) == pytest.approx(ENERGY, abs=1e-4)

    asyncio.run(scene())


# ---------------------------------------------------------------- the port


def test_a_port_that_is_taken_is_told_at_once(repository: Path) -> None:
    async def scene() -> None:
        async with gated(repository) as here:
            plane = Plane(Models([]), Limits(), ThreadPoolExecutor(1))
            with pytest.raises(PortTaken, match="taken"):
                await start(plane, here.counts, here.address, Access(None))

    asyncio.run(scene())


def test_without_a_grpc_port_only_http_is_served(repository: Path) -> None:
    async def said(settings: Settings) -> str:
        async with grpc_door(
            Plane(Models([]), Limits(), ThreadPoolExecutor(1)), settings, Counter(), Access(None)
        ) as line:
            return line

    assert asyncio.run(said(Settings(grpc_port=None))) == "gRPC is switched off"


def test_the_environment_switches_the_port_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().grpc_port == 8001
    monkeypatch.setenv("UNDERSTUDY_GRPC_PORT", "none")
    assert Settings().grpc_port is None


@contextmanager
def served(repository: Path, *options: str, before: str = "pass") -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own, after some other statement."""
    script = f"import sys; {before}; from understudy.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "serve", "--model-repo", str(repository), "--workers", "1", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_until_ready(process: subprocess.Popen[str]) -> list[str]:
    lines = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if line.startswith("Serving at"):
            return lines
    raise AssertionError("".join(lines))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_the_command_tells_both_ports_and_ends_in_order_when_it_is_told_to(repository: Path) -> None:
    http, port = free_port(), free_port()
    with served(repository, "--port", str(http), "--grpc-port", str(port)) as process:
        lines = lines_until_ready(process)
        assert f"gRPC at 127.0.0.1:{port}\n" in lines
        assert lines[-1].startswith(f"Serving at http://127.0.0.1:{http} ")
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            answer = client.infer("tiny", triton_inputs([M]))
            np.testing.assert_allclose(answer.as_numpy("energy"), [ENERGY], atol=1e-4)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def test_without_its_libraries_http_is_served_all_the_same_and_the_command_says_how_to_get_grpc(
    repository: Path,
) -> None:
    http = free_port()
    with served(repository, "--port", str(http), before="sys.modules['tritonclient'] = None") as process:
        (line,) = [line for line in lines_until_ready(process) if "gRPC" in line]
        assert "pip install 'tritonclient[grpc]" in line
        assert httpx.get(f"http://127.0.0.1:{http}/v2/health/ready").status_code == 200
        process.terminate()
        assert process.wait(60) == 0


def test_a_port_chosen_on_purpose_that_is_taken_ends_the_start_with_the_reason(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with served(repository, "--port", str(free_port()), "--grpc-port", port) as process:
            _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"gRPC cannot listen on 127.0.0.1:{port}" in said
