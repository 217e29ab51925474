"""The ASE calculator: ASE's own checks and programs run on answers that come over the wire."""

import copy
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from ase.calculators.calculator import PropertyNotImplementedError
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.calculators.lj import LennardJones
from ase.filters import FrechetCellFilter
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from starlette.applications import Starlette
from understudy import Client, ModelChanged, OutOfDomain, OutOfDomainWarning, UnderstudyCalculator
from understudy.errors import InvalidStructure

LJ = {"sigma": 2.5, "epsilon": 0.1, "rc": 6.0, "smooth": True}


def cluster(calculator: Any) -> Atoms:
    atoms = Atoms("Ar4", [[0, 0, 0], [2.9, 0, 0], [0, 3.1, 0], [0.2, 0.1, 2.8]])
    atoms.calc = calculator
    return atoms


def crystal(calculator: Any) -> Atoms:
    atoms = bulk("Ar", "fcc", 3.9, cubic=True)
    atoms.rattle(0.05, seed=3)
    atoms.calc = calculator
    return atoms


@pytest.mark.parametrize("build", [cluster, crystal])
def test_every_property_is_what_the_same_potential_gives_locally(lj_client: Client, build: Any) -> None:
    remote, local = build(UnderstudyCalculator(lj_client, "argon")), build(LennardJones(**LJ))
    assert remote.get_potential_energy() == pytest.approx(local.get_potential_energy(), abs=1e-12)
    assert remote.get_potential_energy(force_consistent=True) == remote.get_potential_energy()
    assert remote.get_forces() == pytest.approx(local.get_forces(), abs=1e-6)
    assert remote.get_potential_energies() == pytest.approx(local.get_potential_energies(), abs=1e-12)
    if remote.pbc.all():
        assert remote.get_stress() == pytest.approx(local.get_stress(), abs=1e-12)


def test_a_molecule_has_no_stress(lj_client: Client) -> None:
    with pytest.raises(PropertyNotImplementedError):
        cluster(UnderstudyCalculator(lj_client, "argon")).get_stress()


@pytest.mark.physics
def test_forces_and_stress_are_derivatives_of_the_energy_in_ases_signs(lj_client: Client) -> None:
    atoms = crystal(UnderstudyCalculator(lj_client, "argon"))
    assert atoms.get_forces() == pytest.approx(calculate_numerical_forces(atoms, eps=1e-4), abs=1e-5)
    assert atoms.get_stress() == pytest.approx(calculate_numerical_stress(atoms, eps=1e-5), abs=1e-6)


def test_one_call_answers_all_properties_until_the_atoms_change(lj_client: Client, lj_app: Starlette) -> None:
    atoms = crystal(UnderstudyCalculator(lj_client, "argon"))
    for ask in (atoms.get_potential_energy, atoms.get_forces, atoms.get_stress, atoms.get_potential_energies):
        ask()
    atoms.set_initial_charges([1, -1, 0, 0])
    atoms.get_forces()
    assert len(lj_app.state.batches) == 1
    atoms.positions[0, 0] += 0.01
    atoms.get_forces()
    assert len(lj_app.state.batches) == 2


def test_results_hold_uncertainty_domain_and_digest(lj_client: Client) -> None:
    atoms = cluster(UnderstudyCalculator(lj_client, "argon", forces_std=True))
    atoms.get_forces()
    results = atoms.calc.results
    assert results["energy_std"] == 0.0
    assert results["domain"].in_domain
    assert results["digest"] == "d" * 64
    assert results["forces_std"].shape == (4, 3)
    assert "energy_std" not in atoms.calc.export_properties()


@pytest.mark.physics
def test_a_relaxation_ends_at_the_minimum_of_the_local_potential(lj_client: Client) -> None:
    remote, local = cluster(UnderstudyCalculator(lj_client, "argon")), cluster(LennardJones(**LJ))
    for atoms in (remote, local):
        assert BFGS(atoms, logfile=None).run(fmax=0.002, steps=200)
    assert remote.get_potential_energy() == pytest.approx(local.get_potential_energy(), abs=1e-6)


def test_a_cell_relaxation_runs(lj_client: Client) -> None:
    atoms = crystal(UnderstudyCalculator(lj_client, "argon"))
    assert BFGS(FrechetCellFilter(atoms), logfile=None).run(fmax=0.01, steps=200)
    assert np.abs(atoms.get_stress()).max() < 1e-3


@pytest.mark.physics
def test_nve_dynamics_conserves_the_energy(lj_client: Client) -> None:
    atoms = crystal(UnderstudyCalculator(lj_client, "argon"))
    atoms.set_momenta(np.random.default_rng(1).normal(scale=np.sqrt(units.kB * 20 * 39.9), size=(4, 3)))
    start = atoms.get_total_energy()
    VelocityVerlet(atoms, timestep=2 * units.fs).run(100)
    assert atoms.get_total_energy() == pytest.approx(start, abs=2e-4)


def test_outside_the_domain_warns_fails_or_only_notes_as_chosen(lj_client: Client) -> None:
    platinum = Atoms("Pt2", [[0, 0, 0], [0, 0, 2.9]])
    platinum.calc = UnderstudyCalculator(lj_client, "m")
    with pytest.warns(OutOfDomainWarning, match="platinum"):
        platinum.get_potential_energy()
    platinum.calc = UnderstudyCalculator(lj_client, "m", on_out_of_domain="answer")
    with warnings.catch_warnings(action="error"):
        platinum.get_potential_energy()
    assert platinum.calc.results["domain"].verdict == "out"
    platinum.calc = UnderstudyCalculator(lj_client, "m", on_out_of_domain="refuse")
    with pytest.raises(OutOfDomain) as caught:
        platinum.get_potential_energy()
    assert caught.value.facts["reasons"] == ["platinum"]


def test_a_failed_calculation_leaves_no_stale_results(lj_client: Client) -> None:
    atoms = cluster(UnderstudyCalculator(lj_client, "m", on_out_of_domain="refuse"))
    atoms.get_potential_energy()
    atoms.numbers[:] = 78
    for _ in range(2):
        with pytest.raises(OutOfDomain):
            atoms.get_potential_energy()


def test_a_model_that_is_replaced_during_a_run_stops_it(lj_client: Client, lj_app: Starlette) -> None:
    atoms = cluster(UnderstudyCalculator(lj_client, "argon"))
    atoms.get_forces()
    lj_app.state.digest = "e" * 64
    atoms.rattle(0.01)
    with pytest.raises(ModelChanged, match="new weights"):
        atoms.get_forces()
    atoms.calc = UnderstudyCalculator(lj_client, "argon")
    atoms.get_forces()


def test_changing_the_model_discards_the_old_answers(lj_client: Client, lj_app: Starlette) -> None:
    atoms = cluster(UnderstudyCalculator(lj_client, "argon"))
    atoms.get_forces()
    atoms.calc.set(model="water")
    atoms.get_forces()
    assert len(lj_app.state.batches) == 2


def test_a_copied_calculator_asks_over_connections_of_its_own() -> None:
    original = UnderstudyCalculator("http://example.org:1", "argon")
    twin = copy.deepcopy(original)
    assert twin.client is not original.client
    assert twin.client.url == original.client.url
    assert twin.parameters == original.parameters
    original.client.close()
    twin.client.close()


def test_ase_writes_the_results_and_reads_them_back(lj_client: Client, tmp_path: Any) -> None:
    atoms = crystal(UnderstudyCalculator(lj_client, "argon"))
    energy = atoms.get_potential_energy()
    for name in ("a.traj", "a.extxyz"):
        write(tmp_path / name, atoms)
        assert read(tmp_path / name).get_potential_energy() == pytest.approx(energy, abs=1e-7)


@pytest.mark.parametrize("wrong", [{"model": ""}, {"model": "m", "on_out_of_domain": "panic"}])
def test_a_calculator_that_cannot_work_is_refused_when_it_is_made(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"understudy models|'flag'"):
        UnderstudyCalculator("http://example.org", **wrong)


def test_a_calculator_without_atoms_says_what_to_call(lj_client: Client) -> None:
    with pytest.raises(InvalidStructure, match="get_potential_energy"):
        UnderstudyCalculator(lj_client, "argon").calculate()


def test_the_client_works_without_ase_and_names_the_extra_where_ase_is_needed() -> None:
    code = """
import sys
sys.modules["ase"] = None
import understudy
assert understudy.Client and understudy.AsyncClient
for act in (lambda: understudy.UnderstudyCalculator, lambda: understudy.structures.read_frames("a.xyz")):
    try:
        act()
    except (ImportError, understudy.InvalidStructure) as error:
        assert "pip install ase" in str(error)
    else:
        raise SystemExit("worked without ASE")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_molecule_in_a_box_without_periodicity_needs_no_changes(lj_client: Client) -> None:
    atoms = molecule("CH3CH2OH", pbc=False, vacuum=3.0)
    atoms.calc = UnderstudyCalculator(lj_client, "hydrides")
    assert atoms.get_forces().shape == (9, 3)
