"""Plans: what a request would cost, told before any work; and whether that is true."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from test_teachers import gateway_of, school
from understudy import Client, NotFound
from wires import malonaldehyde

__all__ = ["school"]
ROOT = Path(__file__).parents[2]
M = malonaldehyde()
CO: dict[str, Any] = {"numbers": [6, 8], "positions": [[0.0, 0.0, 0.0], [0.0, 0.0, 1.2]]}


def plan(gateway: httpx.Client, model: str = "tiny", **asked: Any) -> dict[str, Any]:
    response = gateway.post("/v1/plan", json={"model": model, **asked})
    assert response.status_code == 200, response.text
    return dict(response.json())


def metric(gateway: httpx.Client, name: str, model: str) -> float:
    lines = gateway.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name + "{") and f'"{model}"' in line)


def test_a_plan_tells_what_the_engine_will_be_charged_and_runs_nothing(repository: Path) -> None:
    with gateway_of(repository) as gateway:
        planned = plan(gateway, structures=[M, CO] * 3)
        assert metric(gateway, "understudy_batches_total", "tiny") == 0
        gateway.post("/v1/predict/tiny", json={"structures": [M, CO] * 3, "deterministic": True}).raise_for_status()
        assert planned["fits"]
        assert planned["slots"] == metric(gateway, "understudy_slots_total", "tiny")
        alone = plan(gateway, structures=[M, CO] * 3, deterministic=True)
        assert alone["batches"] == metric(gateway, "understudy_batches_total", "tiny") == 6
        assert planned["batches"] < 6
        assert 0.0 < planned["seconds"]["total"] <= alone["seconds"]["total"]


def test_the_verdict_is_what_can_be_told_before_a_run(gateway: httpx.Client) -> None:
    structures = plan(gateway, structures=[M, CO])["structures"]
    assert [structure["domain"]["verdict"] for structure in structures] == ["in", "out"]
    assert "not trained on CO:" in structures[1]["domain"]["reasons"][0]


def test_a_structure_that_would_be_refused_is_named_and_the_others_are_planned(gateway: httpx.Client) -> None:
    gold = {"numbers": [79, 79], "positions": [[0, 0, 0], [0, 0, 2.9]]}
    double = {"numbers": [6, 6], "positions": [[0, 0, 0], [0, 0, 0.001]]}
    planned = plan(gateway, structures=[M, gold, double])
    codes = [structure["refusal"] and structure["refusal"]["code"] for structure in planned["structures"]]
    assert (planned["fits"], codes) == (False, [None, "unsupported_element", "coincident_atoms"])


def test_sizes_alone_are_enough(gateway: httpx.Client) -> None:
    assert plan(gateway, sizes=[{"atoms": 1000, "neighbours": 20}])["slots"] == 24_000
    density = 20 / (4 / 3 * np.pi * 3.0**3)
    assert plan(gateway, sizes=[{"atoms": 1000, "atoms_per_cubic_angstrom": density * 0.999}])["slots"] == 24_000
    large = plan(gateway, sizes=[{"atoms": 10**8, "neighbours": 20}])
    assert not large["fits"]
    assert large["structures"][0]["refusal"]["code"] == "too_large"
    assert {hit["name"] for hit in large["limits"]} == {"atoms", "queued_slots"}
    assert [(hit["limit"], hit["got"]) for hit in large["limits"] if hit["name"] == "atoms"] == [(1_000_000, 10**8)]


def test_a_faster_model_is_offered_where_it_would_do_as_well(school: Path, tmp_path: Path) -> None:
    from tiny import publish_tiny

    root = tmp_path / "model_repo"
    points = [{"slots": 3000, "milliseconds": 30.0}]
    curve = {"device": "cpu", "engine": "onnxruntime", "threads": 1, "points": points, "best_slots": 3000}
    publish_tiny(
        root, "slow", batching={**curve, "memory": {"model.onnx": {"bytes_per_slot": 100.0, "bytes_per_atom": 10.0}}}
    )
    publish_tiny(root, "fast", member_forces=False)
    with gateway_of(root) as gateway:
        planned = plan(gateway, "slow", structures=[M])
        assert planned["alternative"]["model"] == "fast"
        assert planned["memory_bytes"] == 100 * planned["slots"] + 10 * 9
        fast = plan(gateway, "fast", structures=[M])
        assert (fast["alternative"], fast["memory_bytes"]) == (None, None)
        members = plan(gateway, "slow", structures=[M], outputs=["forces_std"])
        assert (members["seconds"], members["memory_bytes"]) == (None, None)  # the card does not know that graph


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"structures": [M], "sizes": [{"atoms": 1, "neighbours": 1}]}, "sizes"),
        ({}, "sizes"),
        ({"sizes": []}, "sizes"),
        ({"sizes": [1]}, "sizes"),
        ({"sizes": [{"neighbours": 4}]}, "atoms"),
        ({"sizes": [{"atoms": 0, "neighbours": 4}]}, "atoms"),
        ({"sizes": [{"atoms": True, "neighbours": 4}]}, "atoms"),
        ({"sizes": [{"atoms": 9}]}, "neighbours"),
        ({"sizes": [{"atoms": 9, "neighbours": 1, "atoms_per_cubic_angstrom": 1}]}, "neighbours"),
        ({"sizes": [{"atoms": 9, "neighbours": -1}]}, "neighbours"),
        ({"sizes": [{"atoms": 9, "neighbors": 1}]}, "neighbors"),
        ({"structures": [M], "model": None}, "model"),
        ({"structures": [M], "outputs": ["hessian"]}, "outputs"),
    ],
)
def test_what_is_no_plan_is_refused(gateway: httpx.Client, change: dict[str, Any], field: str) -> None:
    refused = gateway.post("/v1/plan", json={"model": "tiny", **change})
    assert (refused.status_code, refused.json()["field"]) == (400, field)


def test_the_client_plans(sdk: Client) -> None:
    planned = sdk.plan("tiny", [M, CO])
    assert (planned.fits, len(planned.structures), planned.structures[0].atoms) == (True, 2, 9)
    assert not sdk.plan("tiny", sizes=[{"atoms": 10**7, "neighbours": 40}]).fits
    with pytest.raises(NotFound):
        sdk.plan("nobody", M)


TRUTH = """
import os, sys
from pathlib import Path
import numpy as np
from contract.repository import ModelRepository
from contract.structures import checked_structure
from service.engines.onnxruntime import OnnxRuntime
from service.families.potential import Potential

def resident():
    return os.sysconf("SC_PAGE_SIZE") * int(open("/proc/self/statm").read().split()[1])

stored = ModelRepository(Path(sys.argv[1])).load(sys.argv[2])
family, run = Potential.of(stored.card), OnnxRuntime(1).open(stored, "model.onnx")
grid = np.stack(np.unravel_index(np.arange(216), (6, 6, 6)), -1) * 2.0
sample = family.encode(checked_structure(np.full(216, 6), grid))
small = family.encode(checked_structure([6], [[0.0, 0.0, 0.0]]))
run(family.collate([small]))
before = resident()
run(family.collate([sample]))
print(resident() - before)
"""


@pytest.mark.parametrize("model", ["malonaldehyde"])
def test_planned_memory_is_within_a_factor_of_two_of_the_truth(model: str) -> None:
    repository = ROOT / "model_repo"
    grid = (np.stack(np.unravel_index(np.arange(216), (6, 6, 6)), -1) * 2.0).tolist()
    with gateway_of(repository) as gateway:
        planned = plan(gateway, model, structures=[{"numbers": [6] * 216, "positions": grid}])
    command = [sys.executable, "-c", TRUTH, str(repository), model]
    truth = int(subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout)
    assert truth > 10_000_000
    assert 0.5 < planned["memory_bytes"] / truth < 2.0
