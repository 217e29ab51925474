"""The gateway behind a real socket: bodies in every coding, size and pace, callers who leave, clients of others."""

import gzip
import http.client
import json
import re
import socket
import time
import zlib
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tiny import pair_energy
from tritonclient.utils import InferenceServerException
from wires import Call, malonaldehyde, structure_of, tensors_of

M = malonaldehyde()
ENERGY = pair_energy(structure_of(M))
BODY = json.dumps({"structures": [M]}).encode()
PATH = "/v1/predict/tiny"


def ask(
    port: int, body: Any = BODY, headers: dict[str, str] | None = None, path: str = PATH
) -> tuple[int, dict[str, Any]]:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json", **(headers or {})})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def energy_of(answer: tuple[int, dict[str, Any]]) -> float:
    status, body = answer
    assert status == 200, body
    return float(body["results"][0]["energy"])


@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity", "GZIP"])
def test_bodies_in_every_legal_coding_are_read(port: int, coding: str) -> None:
    squeeze = {"gzip": gzip.compress, "deflate": zlib.compress}.get(coding.lower(), bytes)
    assert energy_of(ask(port, squeeze(BODY), {"Content-Encoding": coding})) == pytest.approx(ENERGY, abs=1e-4)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:80"])
def test_names_of_this_machine_are_answered(port: int, host: str) -> None:
    assert energy_of(ask(port, BODY, {"Host": host})) == pytest.approx(ENERGY, abs=1e-4)


def test_a_request_id_is_kept_if_it_is_harmless_and_made_if_not(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert client.get("/v2", headers={"X-Request-Id": "mine-1"}).headers["x-request-id"] == "mine-1"
        made = client.get("/v2", headers={"X-Request-Id": "x" * 200}).headers["x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", made)
        assert client.get("/v2").headers["x-request-id"] != made


def test_a_caller_who_leaves_in_the_middle_of_a_body_is_only_counted(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 30) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{{".encode())
    assert wait_for(port, 'understudy_answers_total{method="POST",route="/v1/predict/{model}",status="499"}') >= 1


def wait_for(port: int, metric: str, at_least: float = 1.0) -> float:
    """A metric's value as soon as it is large enough."""
    for _ in range(200):
        lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
        values = [float(line.rpartition(" ")[2]) for line in lines if line.startswith(metric)]
        if values and values[0] >= at_least:
            return values[0]
        time.sleep(0.05)
    raise AssertionError(f"{metric} never came")


@pytest.fixture
def client(port: int) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    yield client
    client.close()


def triton_inputs(binary: bool = True) -> list[triton.InferInput]:
    kinds = {"int64": "INT64", "float64": "FP64", "bool": "BOOL"}
    inputs = []
    for name, array in tensors_of([M, M]).items():
        inputs.append(triton.InferInput(name, list(array.shape), kinds[str(array.dtype)]))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    return inputs


def test_an_unmodified_triton_client_finds_server_and_model(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("tiny", "2")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("tiny")
    assert [t["name"] for t in metadata["inputs"]] == ["numbers", "positions", "natoms", "cell", "pbc"]
    assert {"name": "forces", "datatype": "FP32", "shape": [-1, 3]} in metadata["outputs"]
    config = client.get_model_config("tiny")
    assert [t["name"] for t in config["input"] if t.get("optional")] == ["natoms", "cell", "pbc"]


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False], ids=["binary", "JSON"])
def test_an_unmodified_triton_client_is_answered(
    client: triton.InferenceServerClient, binary: bool, compression: str | None
) -> None:
    answer = client.infer("tiny", triton_inputs(binary), request_id="7", request_compression_algorithm=compression)
    np.testing.assert_allclose(answer.as_numpy("energy"), [ENERGY, ENERGY], atol=1e-4)
    assert answer.as_numpy("forces").shape == (18, 3)
    assert answer.as_numpy("virial").shape == (2, 3, 3)
    assert answer.as_numpy("in_domain").tolist() == [True, True]
    assert answer.as_numpy("energy_std").shape == (2,)
    assert answer.as_numpy("stress") is None
    assert answer.get_response()["id"] == "7"


def test_a_triton_client_chooses_outputs_and_version(client: triton.InferenceServerClient) -> None:
    outputs = [triton.InferRequestedOutput("forces_std"), triton.InferRequestedOutput("energy", binary_data=False)]
    answer = client.infer("tiny", triton_inputs(), model_version="1", outputs=outputs, timeout=5_000_000)
    assert [o["name"] for o in answer.get_response()["outputs"]] == ["forces_std", "energy"]
    np.testing.assert_allclose(answer.as_numpy("energy"), [ENERGY, ENERGY], atol=1e-4)


def test_a_client_that_asks_for_every_listed_output_is_answered(client: triton.InferenceServerClient) -> None:
    """As load testers do; perf_analyzer 2.51 among them."""
    for model in ("tiny", "anything"):
        listed = [tensor["name"] for tensor in client.get_model_metadata(model)["outputs"]]
        answer = client.infer(model, triton_inputs(), outputs=[triton.InferRequestedOutput(name) for name in listed])
        assert [o["name"] for o in answer.get_response()["outputs"]] == listed


def test_a_triton_client_reads_our_refusals(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="There are: anything, tiny") as refusal:
        client.infer("nobody", triton_inputs())
    assert refusal.value.status() == "404"


def test_a_caller_who_cannot_wait_is_told_so(port: int) -> None:
    status, problem = ask(port, json.dumps({"structures": [M], "timeout_s": 1e-9}).encode())
    assert (status, problem["code"]) == (504, "deadline_exceeded")


def test_the_page_of_the_documentation_offers_requests_that_work(port: int) -> None:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        assert client.get("/").headers["location"] == "/docs"
        assert client.get("/docs").status_code == 200
        document = client.get("/openapi.json").json()
        asked = 0
        for path, operations in document["paths"].items():
            content = operations.get("post", {}).get("requestBody", {}).get("content", {})
            for media_type, described in content.items():
                bodies = [e["value"] for e in described.get("examples", {}).values()]
                bodies += [described["example"]] if "example" in described else []
                for body in bodies:
                    text = body if isinstance(body, str) else json.dumps(body)
                    call = Call(path.replace("{version}", "1"), text.encode(), {"Content-Type": media_type})
                    answer = call(client)
                    assert answer.status_code == 200, answer.text
                    asked += 1
        assert asked == 7
        models = {
            path: operations["post"]["parameters"][0]["schema"]
            for path, operations in document["paths"].items()
            if path in ("/v1/predict/{model}", "/v1/fields/{model}")
        }
        assert models["/v1/predict/{model}"]["enum"] == ["anything", "tiny"]
        assert "enum" not in models["/v1/fields/{model}"]
        summaries = {o["summary"] for operations in document["paths"].values() for o in operations.values()}
        assert "How much of an upload has arrived" in summaries
        missing = [r for r in _references(document) if r.rpartition("/")[2] not in document["components"]["schemas"]]
        assert missing == []


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for child in node:
            yield from _references(child)


def test_metrics_count_answers_and_batches(port: int) -> None:
    assert energy_of(ask(port)) == pytest.approx(ENERGY, abs=1e-4)
    text = httpx.get(f"http://127.0.0.1:{port}/metrics").text
    assert 'understudy_batches_total{graph="model.onnx",model="tiny"}' in text
    assert 'understudy_waiting{graph="model.onnx",model="tiny"} 0.0' in text
    assert 'status="200"' in text


@pytest.mark.parametrize("path", ["/v1/models/nobody", "/v2/models/nobody", "/v2/models/nobody/config"])
def test_a_model_that_is_not_there_is_named_on_every_route(gateway: httpx.Client, path: str) -> None:
    refused = gateway.get(path)
    assert (refused.status_code, refused.json()["code"]) == (404, "unknown_model")
    assert refused.headers["x-request-id"] == refused.json()["request_id"]
