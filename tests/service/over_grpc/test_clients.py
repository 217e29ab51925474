"""Unmodified tritonclients over gRPC get HTTP's numbers, raw or typed."""

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from grpc_gateway import Ports, message, tensors_in, triton_inputs, typed_message
from messages import CRYSTAL, ENERGY, USUAL, M, cloud
from understudy.framing import HEADER_LENGTH, decode
from wires import Item, kserve_binary, tensors_of


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


TYPED = {
    "as the signature says": {"numbers": ("INT64", "int64_contents"), "positions": ("FP64", "fp64_contents")},
    "signed": {"numbers": ("INT8", "int_contents"), "natoms": ("INT32", "int_contents")},
    "unsigned": {"numbers": ("UINT8", "uint_contents"), "natoms": ("UINT64", "uint64_contents")},
    "single precision": {"positions": ("FP32", "fp32_contents")},
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
