"""What cannot be answered over gRPC is refused as over HTTP, by name, and counted."""

import json
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_gateway import Ports, message, stub, tensors_in, triton_inputs, typed_message
from messages import USUAL, M, cloud, refused
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import InferenceServerException
from wires import tensors_of

from service.api.grpc_refusals import refusal_of
from service.errors import NotReady, QueueFull


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
