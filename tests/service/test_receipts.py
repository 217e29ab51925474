"""Receipts: in every answer over every wire, the same for the same question; and weights that a caller pins."""

import json
from pathlib import Path
from typing import Any

import grpc
import httpx
import onnxruntime
import pytest
import tritonclient.grpc as triton
from ase import Atoms
from grpc_gateway import run, triton_inputs
from understudy import Client, DigestMismatch, UnderstudyCalculator
from understudy.framing import HEADER_LENGTH, decode
from understudy.receipts import HEADER, Receipt, short_form
from wires import WIRES, call, malonaldehyde, structure_of

from service.receipts import sha256_of
from service.settings import Settings

M = malonaldehyde()
CARBON_MONOXIDE: dict[str, Any] = {"numbers": [6, 8], "positions": [[0.0, 0.0, 0.0], [0.0, 0.0, 1.2]]}


def receipt_in(response: httpx.Response) -> dict[str, Any]:
    """The whole receipt of an answer, whatever the wire."""
    assert response.status_code == 200, response.text
    length = response.headers.get(HEADER_LENGTH)
    head = decode(response.content, int(length), field="outputs")[0] if length else response.json()
    receipt = head["receipt"] if "receipt" in head else json.loads(head["parameters"]["us_receipt"])
    assert response.headers[HEADER] == short_form(receipt)
    Receipt.model_validate(receipt)
    return dict(receipt)


def digest_of(gateway: httpx.Client, model: str = "tiny") -> str:
    return str(gateway.get(f"/v1/models/{model}").json()["digest"])


@pytest.mark.parametrize("wire", WIRES)
def test_every_answer_has_a_receipt_of_what_it_depends_on(gateway: httpx.Client, wire: str) -> None:
    receipt = receipt_in(call(wire, [M, CARBON_MONOXIDE])(gateway))
    assert receipt["inputs"] == [sha256_of(structure_of(item)) for item in (M, CARBON_MONOXIDE)]
    assert (receipt["model"], receipt["version"], receipt["digest"]) == ("tiny", "1", digest_of(gateway))
    assert receipt["batch_mode"] == "batched"
    assert (receipt["engine"], receipt["engine_version"]) == ("onnxruntime", onnxruntime.__version__)
    assert (receipt["device"], receipt["dtype"]) == ("cpu", "float32")
    assert set(receipt["software"]) == {"understudy", "python", "numpy", "vesin"}


def test_one_question_has_one_receipt_whatever_the_wire(gateway: httpx.Client) -> None:
    receipts = [receipt_in(call(wire, [M])(gateway)) for wire in WIRES]
    rows = [
        f"{'HCO'['168'.index(str(z))]} {x!r} {y!r} {w!r}"
        for z, (x, y, w) in zip(M["numbers"], M["positions"], strict=True)
    ]
    xyz = "\n".join(["9", "", *rows])
    receipts.append(
        receipt_in(gateway.post("/v1/predict/tiny", content=xyz, headers={"Content-Type": "chemical/x-xyz"}))
    )
    assert all(receipt == receipts[0] for receipt in receipts)


def test_the_batch_mode_says_how_it_was_run(gateway: httpx.Client) -> None:
    modes = {
        (count, asked): receipt_in(
            gateway.post("/v1/predict/tiny", json={"structures": [M] * count, "deterministic": asked})
        )["batch_mode"]
        for count in (1, 2)
        for asked in (False, True)
    }
    assert modes == {(1, False): "alone", (1, True): "deterministic", (2, False): "batched", (2, True): "deterministic"}


def test_grpc_gives_the_receipt_in_a_response_parameter(repository: Path, gateway: httpx.Client) -> None:
    running = run(Settings(model_repo=repository, workers=1))
    try:
        with triton.InferenceServerClient(running.ports.address) as client:
            response = client.infer("tiny", triton_inputs([M])).get_response()
            said = json.loads(response.parameters["us_receipt"].string_param)
            assert said == receipt_in(call("REST JSON", [M])(gateway))
            with pytest.raises(triton.InferenceServerException, match="is served with digest") as refusal:
                client.infer("tiny", triton_inputs([M]), parameters={"us_model_digest": "0" * 64})
            assert refusal.value.status() == str(grpc.StatusCode.FAILED_PRECONDITION)
    finally:
        running.stop()


def test_the_client_keeps_a_receipt_for_each_structure(sdk: Client) -> None:
    atoms = [Atoms(**M), Atoms(**CARBON_MONOXIDE)]
    receipts = [prediction.receipt for prediction in sdk.predict("tiny", atoms)]
    expected = [sha256_of(structure_of(item)) for item in (M, CARBON_MONOXIDE)]
    assert [receipt.inputs for receipt in receipts if receipt] == [[sha256] for sha256 in expected]
    atoms[0].calc = UnderstudyCalculator(sdk, "tiny", deterministic=True)
    atoms[0].get_forces()
    receipt = atoms[0].calc.results["receipt"]
    assert (receipt.input_sha256, receipt.batch_mode) == (expected[0], "deterministic")


@pytest.mark.parametrize("wire", ["REST", "KServe"])
@pytest.mark.parametrize("digits", [12, 64])
def test_pinned_weights_answer_or_both_digests_are_named(gateway: httpx.Client, wire: str, digits: int) -> None:
    served, other = digest_of(gateway), "0123456789abcdef" * 4
    inputs = [
        {"name": "numbers", "datatype": "INT64", "shape": [9], "data": M["numbers"]},
        {"name": "positions", "datatype": "FP64", "shape": [9, 3], "data": [x for row in M["positions"] for x in row]},
    ]

    def ask(digest: str) -> httpx.Response:
        if wire == "REST":
            return gateway.post("/v1/predict/tiny", json={"structures": [M], "model_digest": digest})
        return gateway.post("/v2/models/tiny/infer", json={"inputs": inputs, "parameters": {"us_model_digest": digest}})

    assert ask(served[:digits]).status_code == 200
    problem = ask(other[:digits])
    assert (problem.status_code, problem.json()["code"]) == (412, "digest_mismatch")
    assert (problem.json()["expected"], problem.json()["got"]) == (other[:digits], served)


@pytest.mark.parametrize("digest", ["", "abc", "G" * 64, "A" * 64, "a" * 65, 7, None, ["a" * 64]])
def test_what_is_no_digest_is_refused(gateway: httpx.Client, digest: Any) -> None:
    refused = gateway.post("/v1/predict/tiny", json={"structures": [M], "model_digest": digest})
    assert (refused.status_code, refused.json()["field"]) == (400, "model_digest")


def test_the_client_pins_weights_too(sdk: Client) -> None:
    with pytest.raises(DigestMismatch) as refusal:
        sdk.predict("tiny", M, model_digest="0" * 64)
    assert refusal.value.facts["expected"] == "0" * 64
    assert sdk.predict("tiny", M, model_digest=str(refusal.value.facts["got"])).digest == refusal.value.facts["got"]
