"""The `understudy` command against a gateway behind a real socket."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read, write
from typer.testing import CliRunner
from understudy.cli import app
from understudy.flows import MAX_STRUCTURES_A_CALL
from understudy.tables import plain

WIDE = {"COLUMNS": "200", "NO_COLOR": "1"}


@pytest.fixture
def water(tmp_path: Path) -> Path:
    path = tmp_path / "water.xyz"
    write(path, molecule("H2O"))
    return path


def run(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(a) for a in arguments], env=WIDE, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def test_models_lists_what_is_served(lj_url: str) -> None:
    table = run("models", "--url", lj_url).stdout
    assert all(word in table for word in ("argon", "water", "potential", "H O", "One water molecule.", "d" * 12))
    listed = json.loads(run("models", "--url", lj_url, "--json").stdout)
    assert [m["name"] for m in listed["models"]] == ["a-field", "argon", "water", "hydrides"]


def test_predict_shows_energy_forces_uncertainty_and_domain_with_units(lj_url: str, water: Path) -> None:
    result = run("predict", water, "--model", "water", "--url", lj_url)
    words = ("water", "H2O", "energy", "eV", "committee std", "max |force|", "eV/Å", "domain", "in", "forces, eV/Å")
    assert all(word in result.stdout for word in words)
    assert len([line for line in result.stdout.splitlines() if line.split()[1:2] in (["O"], ["H"])]) == 3


def test_the_committees_spread_of_the_forces_is_shown_when_asked_for(lj_url: str, water: Path) -> None:
    result = run("predict", water, "--model", "water", "--url", lj_url, "--forces-std")
    assert "std x" in result.stdout
    assert "0.2500" in result.stdout


def test_without_a_model_the_first_one_that_fits_is_taken_and_named(lj_url: str, water: Path) -> None:
    result = run("predict", water, "--url", lj_url)
    assert "'water' was trained on H2O; so were 'hydrides': choose with --model" in result.stderr
    assert "water" in result.stdout


def test_the_address_may_come_from_the_environment(lj_url: str, water: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_URL", lj_url)
    assert "H2O" in run("predict", water, "--model", "water").stdout


def test_json_has_the_shape_of_the_gateways_own_answer(lj_url: str, water: Path) -> None:
    answer = json.loads(run("predict", water, "--model", "water", "--url", lj_url, "--json").stdout)
    assert (answer["model"], answer["version"], answer["digest"]) == ("water", "1", "d" * 64)
    assert answer["units"]["forces"] == "eV/angstrom"
    assert np.array(answer["results"][0]["forces"]).shape == (3, 3)
    assert answer["results"][0]["domain"]["verdict"] == "in"


def test_the_written_file_is_read_back_by_ase_with_everything_in_it(lj_url: str, tmp_path: Path) -> None:
    crystal = bulk("Ar", "fcc", 3.9, cubic=True)
    crystal.info["origin"] = "mine"
    crystal.info["in_domain"] = "stale"
    platinum = bulk("Pt", cubic=True)
    source, out = tmp_path / "in.extxyz", tmp_path / "out.extxyz"
    write(source, [crystal, platinum])
    result = run("predict", source, "--model", "m", "--url", lj_url, "--out", out, "--json", "--forces-std")
    answer = json.loads(result.stdout)
    frames = read(out, ":")
    for frame, expected in zip(frames, answer["results"], strict=True):
        assert frame.get_potential_energy() == pytest.approx(expected["energy"], abs=1e-7)
        assert frame.get_forces() == pytest.approx(np.array(expected["forces"]), abs=1e-7)
        assert frame.get_stress() == pytest.approx(np.array(expected["stress"]), abs=1e-7)
        assert frame.arrays["forces_std"] == pytest.approx(0.25)
        assert (frame.info["model"], frame.info["model_digest"]) == ("m", "d" * 64)
    assert [bool(frame.info["in_domain"]) for frame in frames] == [True, False]
    assert [float(frame.info["energy_std"]) for frame in frames] == [0.0, 0.01]
    assert frames[1].info["domain_reasons"] == "platinum"
    assert frames[0].info["origin"] == "mine"
    assert "Wrote 2 structures" in result.stderr


def test_labels_of_the_input_file_are_never_shown_or_written_as_results(lj_url: str, tmp_path: Path) -> None:
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = molecule("H2O")
    atoms.calc = SinglePointCalculator(atoms, energy=-999.0, forces=np.full((3, 3), 999.0), dipole=[9.0, 9.0, 9.0])
    source, out = tmp_path / "labelled.extxyz", tmp_path / "out.extxyz"
    write(source, atoms)
    result = run("predict", source, "--model", "m", "--url", lj_url, "--out", out)
    assert "999" not in result.stdout
    assert "999" not in out.read_text()


def test_a_long_file_is_sent_in_parts_and_shown_in_short(lj_url: str, lj_app: Any, tmp_path: Path) -> None:
    source = tmp_path / "long.xyz"
    write(source, [Atoms("Ar2", [[0, 0, 0], [0, 0, 3 + 0.001 * i]]) for i in range(MAX_STRUCTURES_A_CALL + 4)])
    result = run("predict", source, "--model", "m", "--url", lj_url)
    assert lj_app.state.batches == [MAX_STRUCTURES_A_CALL, 4]
    assert f"{MAX_STRUCTURES_A_CALL + 4 - 30} more structures" in result.stdout


def test_help_names_both_commands_without_touching_a_gateway() -> None:
    text = run("--help").stdout
    assert "models" in text
    assert "predict" in text


def shell(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "understudy", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**WIDE, "COLUMNS": "500"})


def test_errors_are_one_message_with_a_remedy_and_no_traceback(lj_url: str, tmp_path: Path, water: Path) -> None:
    broken, platinum = tmp_path / "broken.xyz", tmp_path / "platinum.xyz"
    broken.write_text("3\n\nH 0 0\n")
    write(platinum, bulk("Pt"))
    for arguments, words in [
        (("models", "--url", "http://127.0.0.1:9"), ["No gateway answers at http://127.0.0.1:9", "serve"]),
        (("models", "--url", "nonsense"), ["nonsense", "http://HOST:PORT"]),
        (("predict", broken, "--url", lj_url), ["broken.xyz", "format"]),
        (("predict", platinum, "--url", lj_url), ["trained on Pt", "argon, water, hydrides"]),
        (("predict", water, "--model", "water", "--url", lj_url, "--out", tmp_path / "no" / "o.xyz"), ["No such file"]),
    ]:
        result = shell(*arguments)
        assert result.returncode == 1, result
        assert result.stderr.startswith("Error: ") or "No --model given" in result.stderr
        assert "Traceback" not in result.stderr
        assert all(word in result.stderr for word in words), result.stderr


def test_a_missing_file_is_a_usage_error(tmp_path: Path) -> None:
    assert "does not exist" in run("predict", tmp_path / "missing.xyz", code=2).stderr


@pytest.mark.parametrize(
    ("value", "digits", "said"),
    [(313.06, 4, "313.1"), (5284.2, 3, "5280"), (148432.0, 4, "148400"), (2.5e8, 3, "2.5e+08"), (3e-7, 3, "3e-07")],
)
def test_permeabilities_are_plain_numbers_where_people_write_them_so(value: float, digits: int, said: str) -> None:
    assert plain(value, digits) == said
