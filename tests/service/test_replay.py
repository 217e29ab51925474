"""Replay: the answer of a receipt once more; other inputs and other weights are refused with both hashes."""

import copy
import json
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from test_teachers import gateway_of, school
from tiny import publish_tiny
from typer.testing import CliRunner
from understudy import BadRequest, Client, DigestMismatch
from understudy.cli import app
from wires import malonaldehyde

from contract.card import ALONE_OR_BATCHED, Check
from contract.repository import ModelRepository
from service.tolerance import Tolerance

__all__ = ["school"]
M = malonaldehyde()
CO: dict[str, Any] = {"numbers": [6, 8], "positions": [[0.0, 0.0, 0.0], [0.0, 0.0, 1.2]]}
CRYSTAL: dict[str, Any] = {**CO, "cell": [[4.1, 0, 0], [0.2, 4.2, 0], [0, 0.1, 4.3]], "pbc": True}


def first(gateway: httpx.Client, *structures: Any, model: str = "tiny", **options: Any) -> dict[str, Any]:
    response = gateway.post(f"/v1/predict/{model}", json={"structures": list(structures), **options})
    assert response.status_code == 200, response.text
    return dict(response.json())


def again(gateway: httpx.Client, answer: dict[str, Any], *structures: Any, **others: Any) -> httpx.Response:
    body = {"receipt": answer["receipt"], "results": answer["results"], "structures": list(structures), **others}
    return gateway.post("/v1/replay", json=body)


@pytest.mark.parametrize("structures", [[M], [M, CO, M], [CRYSTAL]])
def test_a_deterministic_answer_is_promised_and_found_bitwise(gateway: httpx.Client, structures: list[Any]) -> None:
    answer = first(gateway, *structures, model="anything", deterministic=True)
    replayed = again(gateway, answer, *structures).json()
    report = replayed["replay"]
    assert (report["verdict"], report["promised"], report["changed"]) == ("bitwise", "bitwise", {})
    assert (report["energy_difference_ev"], report["forces_difference_ev_angstrom"]) == (0.0, 0.0)
    assert [r["forces"] for r in replayed["results"]] == [r["forces"] for r in answer["results"]]
    assert replayed["receipt"]["inputs"] == answer["receipt"]["inputs"]


def test_another_answer_is_promised_within_the_tolerance(gateway: httpx.Client) -> None:
    answer = first(gateway, M, CO)
    report = again(gateway, answer, M, CO).json()["replay"]
    assert report["promised"] == "tolerance"
    assert report["verdict"] in ("bitwise", "within_tolerance")
    assert report["tolerance"]["energy_ev_per_atom"] == 1e-6


def test_what_answers_may_differ_by_grows_with_what_they_say_and_with_what_the_gate_allowed(tmp_path: Path) -> None:
    usual = Tolerance()
    sample = SimpleNamespace(graph=SimpleNamespace(n_atoms=10), reference_ev=-1e5)
    assert usual.energies_agree(-1e5 - 2.0, -1e5 - 2.0 + 9e-6, sample)
    assert not usual.energies_agree(-1e5 - 2.0, -1e5 - 2.0 + 2e-5, sample)
    assert usual.energies_agree(-1e5 - 45.0, -1e5 - 45.0 + 4e-5, sample)
    force = np.array([[20.0, 0.0, 0.0]], np.float32)
    assert usual.forces_agree(force + np.float32([0, 1e-4, 0]), force)
    assert not usual.forces_agree(force + np.float32([0, 1e-3, 0]), force)
    assert not usual.forces_agree(force / 20 + np.float32([0, 1e-4, 0]), force / 20)
    allowed = [Check(name=f"model.onnx, {ALONE_OR_BATCHED}: energy", measured=2e-6, bound=4e-6)]
    publish_tiny(tmp_path, checks=allowed)
    found = Tolerance.of(ModelRepository(tmp_path).load("tiny").potential_card)
    assert (found.energy, found.forces) == (4e-6, 1e-5)


@pytest.mark.parametrize(
    ("energy", "force", "verdict"),
    [
        (1e-6, 0.0, "within_tolerance"),
        (0.0, 1e-6, "within_tolerance"),
        (1.0, 0.0, "different"),
        (0.0, 1e-2, "different"),
    ],
)
def test_recorded_results_are_compared(gateway: httpx.Client, energy: float, force: float, verdict: str) -> None:
    answer = first(gateway, M, deterministic=True)
    answer["results"][0]["energy"] += energy
    answer["results"][0]["forces"][0][0] += force
    report = again(gateway, answer, M).json()["replay"]
    assert report["verdict"] == verdict
    assert report["reason"]
    assert report["energy_difference_ev"] == pytest.approx(energy, abs=1e-9)


def test_what_changed_since_is_named_and_takes_the_promise_back(gateway: httpx.Client) -> None:
    answer = first(gateway, M, deterministic=True)
    answer["receipt"]["engine_version"] = "0.1"
    report = again(gateway, answer, M).json()["replay"]
    assert (report["promised"], list(report["changed"])) == ("tolerance", ["engine_version"])
    assert report["changed"]["engine_version"][0] == "0.1"


def test_without_results_there_is_the_answer_and_no_comparison(gateway: httpx.Client) -> None:
    answer = first(gateway, M)
    replayed = gateway.post("/v1/replay", json={"receipt": answer["receipt"], "structures": [M]}).json()
    assert replayed["replay"]["verdict"] == "not_compared"
    assert replayed["results"][0]["energy"] == pytest.approx(answer["results"][0]["energy"])


def test_other_inputs_are_refused_with_both_hashes(gateway: httpx.Client) -> None:
    answer = first(gateway, M, CO)
    moved = copy.deepcopy(CO)
    moved["positions"][1][2] = float(np.nextafter(1.2, 2.0))
    refused = again(gateway, answer, M, moved)
    problem = refused.json()
    assert (refused.status_code, problem["code"], problem["index"]) == (422, "input_mismatch", 1)
    assert problem["expected"] == answer["receipt"]["inputs"][1]
    assert problem["got"] != problem["expected"]
    fewer = again(gateway, answer, M)
    assert (fewer.status_code, fewer.json()["expected"], fewer.json()["got"]) == (422, 2, 1)


def test_other_weights_are_refused_with_both_digests(gateway: httpx.Client) -> None:
    answer = first(gateway, M)
    served = answer["receipt"]["digest"]
    answer["receipt"]["digest"] = "0" * 64
    refused = again(gateway, answer, M)
    assert (refused.status_code, refused.json()["code"]) == (412, "digest_mismatch")
    assert (refused.json()["expected"], refused.json()["got"]) == ("0" * 64, served)
    answer["receipt"]["model"] = "nobody"
    assert again(gateway, answer, M).status_code == 404


def test_an_escalated_answer_is_replayed_with_its_teacher(school: Path) -> None:
    with gateway_of(school, teacher_fraction=0.0) as gateway:
        answer = first(gateway, M, CO, model="student", escalate="flagged", deterministic=True)
        report = again(gateway, answer, M, CO).json()
        assert report["replay"]["verdict"] == "bitwise"
        assert [result["answered_by"]["model"] for result in report["results"]] == ["student", "teacher"]
        answer["receipt"]["teacher"]["digest"] = "0" * 64
        assert again(gateway, answer, M, CO).status_code == 412


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"receipt": None}, "receipt"),
        ({"receipt": []}, "receipt"),
        ({"receipt": {"kind": "understudy.receipt"}}, "receipt"),
        ({"results": {}}, "results"),
        ({"results": []}, "results"),
        ({"results": [{"energy": "high"}]}, "results"),
        ({"results": [{"energy": 1.0, "forces": [[0, 0, 0]]}]}, "results"),
        ({"structures": []}, "structures"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_no_replay_is_refused(gateway: httpx.Client, change: dict[str, Any], field: str) -> None:
    refused = again(gateway, first(gateway, M), M, **change)
    assert (refused.status_code, refused.json()["field"]) == (400, field)


def test_the_client_replays(sdk: Client) -> None:
    prediction = sdk.predict("tiny", M, deterministic=True)
    assert prediction.receipt is not None
    assert sdk.replay(prediction.receipt, M, [prediction.to_dict()]).verdict == "bitwise"
    with pytest.raises(BadRequest, match="SHA-256"):
        sdk.replay(prediction.receipt, CO)
    with pytest.raises(DigestMismatch):
        sdk.replay(prediction.receipt.model_copy(update={"digest": "0" * 64}), M)


def test_the_command_replays_what_the_command_printed(
    sdk: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("understudy.cli.Client", lambda *_, **__: nullcontext(sdk))
    write(tmp_path / "m.extxyz", [Atoms(**M), Atoms(**M)])
    structures, kept = str(tmp_path / "m.extxyz"), tmp_path / "answer.json"
    asked = CliRunner().invoke(app, ["predict", structures, "--model", "tiny", "--json", "--deterministic"])
    kept.write_text(asked.stdout)
    same = CliRunner().invoke(app, ["replay", str(kept), structures])
    assert same.exit_code == 0, same.output
    assert "bitwise: Every bit of energies and forces is the same." in same.output
    assert "Promised bit for bit" in same.output
    answer = json.loads(asked.stdout)
    answer["results"][1]["energy"] += 0.1
    kept.write_text(json.dumps(answer))
    other = CliRunner().invoke(app, ["replay", str(kept), structures])
    assert (other.exit_code, "different" in other.output) == (1, True)
    kept.write_text("[]")
    assert "holds no receipt" in str(CliRunner().invoke(app, ["replay", str(kept), structures]).exception)
