"""Every example runs as a stranger would run it: against a real gateway, over the network, with the shipped models."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

READY_WITHIN_S = 120


@pytest.fixture(scope="module")
def gateway(project: Path) -> Iterator[str]:
    """Address of a gateway with the shipped models, started by its own command."""
    port, grpc_port = _free_port(), _free_port()
    command = [sys.executable, "-m", "understudy", "serve", "--port", str(port), "--grpc-port", str(grpc_port)]
    command += ["--model-repo", "model_repo"]
    with subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            _wait(url, process)
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv("UNDERSTUDY_GRPC_URL", f"127.0.0.1:{grpc_port}")
                yield url
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < end and process.poll() is None:
        try:
            if httpx.get(f"{url}/v2/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail("the gateway was not ready in time")


def run(project: Path, gateway: str, *command: str) -> str:
    environment = os.environ | {"UNDERSTUDY_URL": gateway, "UNDERSTUDY_EXAMPLE_STEPS": "40", "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("model", ["malonaldehyde", "malonaldehyde-committee"])
def test_relaxation_and_dynamics_conserve_energy(project: Path, gateway: str, model: str) -> None:
    shown = run(project, gateway, "examples/relax_and_md.py", model)
    spread = re.search(r"total energy within ([0-9.]+) meV/atom", shown)
    assert spread is not None
    assert float(spread.group(1)) < 2.0
    assert "in the model's domain: True" in shown


def test_beads_of_methanol_keep_the_distance_of_their_first_shell(project: Path, gateway: str) -> None:
    shown = run(project, gateway, "examples/coarse_grained_md.py")
    rows = {float(r): float(g) for r, g in re.findall(r"r ([0-9.]+) angstrom +g +([0-9.]+)", shown)}
    assert rows[2.75] < 0.2
    assert max(rows.values()) > 1.2
    assert "S stands for one molecule CH3OH" in shown


@pytest.mark.parametrize("model", ["aluminium", "aluminium-student"])
def test_aluminium_is_a_crystal_with_vacancies_and_conserves_energy(project: Path, gateway: str, model: str) -> None:
    shown = run(project, gateway, "examples/aluminium.py", model)
    found = re.search(r"constant ([0-9.]+) .*vacancy +([0-9.]+) eV.*within ([0-9.]+) meV", shown, re.DOTALL)
    assert found is not None
    assert 3.9 < float(found.group(1)) < 4.2
    assert 0.2 < float(found.group(2)) < 1.2
    assert float(found.group(3)) < 5.0


def test_butane_is_lowest_with_its_chain_stretched_and_highest_with_its_ends_together(
    project: Path, gateway: str
) -> None:
    shown = run(project, gateway, "examples/torsion_scan.py")
    above = {int(angle): float(energy) for angle, energy in re.findall(r"(\d+)° +([0-9.]+) kcal/mol", shown)}
    assert list(above) == list(range(0, 361, 10))
    assert above[180] == min(above.values()) < above[60] < above[120] < above[0]
    assert above[0] == pytest.approx(above[360], abs=0.02)
    assert " in\n" in shown


def test_the_rock_of_the_examples_is_made_again_and_has_a_permeability(
    project: Path, gateway: str, tmp_path: Path
) -> None:
    run(project, gateway, "examples/make_rock.py", str(tmp_path / "rock.npz"))
    with np.load(tmp_path / "rock.npz") as made, np.load(project / "examples" / "rock.npz") as shipped:
        assert np.array_equal(made["image"], shipped["image"])
        assert np.array_equal(made["shape"], shipped["shape"])
    rock = ["examples/rock.npz", "--voxel-um", "2", "--axis", "z", "--json", "--url", gateway]
    answer = json.loads(run(project, gateway, "-m", "understudy", "permeability", *rock))
    assert 305 < answer["k_mD"]["z"] < 370
    assert answer["domain"]["verdict"] == "in"


@pytest.mark.physics
def test_a_real_rock_has_the_permeability_of_its_simulation_within_the_recorded_error(
    project: Path, gateway: str
) -> None:
    record = json.loads((project / "benchmarks" / "records" / "permeability.json").read_text())
    simulated = {b["axis"]: b["simulated"] for b in record["values"]["berea"] if b["crop"] == "low corner"}
    rock = ["examples/berea.npz", "--voxel-um", "1", "--json", "--url", gateway]
    answer = json.loads(run(project, gateway, "-m", "understudy", "permeability", *rock))
    assert answer["domain"]["in_domain"]
    for axis, k in simulated.items():
        assert answer["k_voxel2"][axis] == pytest.approx(k, rel=0.25)


def test_no_example_is_left_out(project: Path) -> None:
    tests = Path(__file__).read_text()
    assert [path.name for path in (project / "examples").glob("*.py") if f"examples/{path.name}" not in tests] == []


def test_many_structures_grow_more_uncertain_the_further_they_are_displaced(project: Path, gateway: str) -> None:
    shown = run(project, gateway, "examples/many_structures.py")
    rows = re.findall(r"([0-9.]+) angstrom +(-?[0-9.]+) eV +([0-9.]+) eV +(True|False)", shown)
    assert len(rows) == 6
    assert float(rows[0][2]) < float(rows[-1][2])
    assert [rows[0][3], rows[-1][3]] == ["True", "False"]


def test_an_unmodified_tritonclient_calls_the_same_models(project: Path, gateway: str) -> None:
    shown = run(project, gateway, "examples/triton_client.py")
    assert "ready: True True" in shown
    assert "forces (9, 3)" in shown


def test_an_unmodified_tritonclient_calls_the_same_models_over_grpc(project: Path, gateway: str) -> None:
    shown = run(project, gateway, "examples/triton_grpc_client.py")
    assert "ready: True True" in shown
    assert "forces (9, 3)" in shown
    assert len(re.findall(r"displaced by 0.0[0-4] angstrom: -?[0-9.]+ eV", shown)) == 5


def test_the_command_predicts_a_file_and_names_its_units(project: Path, gateway: str, tmp_path: Path) -> None:
    out = tmp_path / "out.extxyz"
    shown = run(project, gateway, "-m", "understudy", "predict", "examples/malonaldehyde.xyz", "--out", str(out))
    assert "eV" in shown
    assert "energy" in out.read_text()


def test_another_molecule_is_answered_as_out_of_the_domain_with_the_reason(project: Path, gateway: str) -> None:
    shown = run(
        project, gateway, "-m", "understudy", "predict", "examples/ethanol.xyz", "--model", "malonaldehyde", "--json"
    )
    assert '"in_domain": false' in shown or '"in_domain":false' in shown
    assert "C2H6O" in shown
