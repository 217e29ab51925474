"""`on_out_of_domain`: flagged or refused, over every protocol."""

from typing import Any

import httpx
import pytest
from wires import malonaldehyde

CARBON_MONOXIDE = {"numbers": [6, 8], "positions": [[0, 0, 0], [0, 0, 1.2]]}


def test_refuse_names_structure_reasons_and_atoms(gateway: httpx.Client) -> None:
    asked: dict[str, Any] = {"structures": [malonaldehyde(), CARBON_MONOXIDE]}
    flagged = gateway.post("/v1/predict/tiny", json=asked)
    verdicts = [result["domain"]["verdict"] for result in flagged.json()["results"]]
    assert verdicts[1] == "out"
    refused = gateway.post("/v1/predict/tiny", json={**asked, "on_out_of_domain": "refuse"})
    assert (refused.status_code, refused.json()["code"]) == (422, "out_of_domain")
    first = verdicts.index("out")
    assert refused.json()["index"] == first
    assert refused.json()["reasons"] == flagged.json()["results"][first]["domain"]["reasons"]


def test_refuse_answers_what_is_in_the_domain(gateway: httpx.Client) -> None:
    asked = {"structures": [malonaldehyde()], "on_out_of_domain": "refuse"}
    assert gateway.post("/v1/predict/tiny", json=asked).status_code == 200


@pytest.mark.parametrize("choice", ["never", None, 1, True])
def test_another_choice_is_refused(gateway: httpx.Client, choice: Any) -> None:
    refused = gateway.post("/v1/predict/tiny", json={"structures": [malonaldehyde()], "on_out_of_domain": choice})
    assert (refused.status_code, refused.json()["field"]) == (400, "on_out_of_domain")


@pytest.mark.parametrize(("choice", "status"), [("flag", 200), ("refuse", 422), ("perhaps", 400)])
def test_the_same_over_kserve(gateway: httpx.Client, choice: str, status: int) -> None:
    inputs = [
        {"name": "numbers", "datatype": "INT64", "shape": [2], "data": [6, 8]},
        {"name": "positions", "datatype": "FP64", "shape": [2, 3], "data": [0, 0, 0, 0, 0, 1.2]},
    ]
    asked = {"inputs": inputs, "parameters": {"us_on_out_of_domain": choice}}
    assert gateway.post("/v2/models/tiny/infer", json=asked).status_code == status
