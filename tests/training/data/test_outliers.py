"""Single frames with labels that cannot be right, in files that are sound as a whole."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.units import BOHR_ANGSTROM, HARTREE_EV, KCAL_MOL_EV
from training.data.checks import UnsoundData, inspect, require_sound
from training.data.dataset import Dataset
from training.data.provenance import Provenance
from training.data.qm22 import read_qm22

Springs = Callable[..., Dataset]
WRONG = (17, 60, 111, 150)
TOTAL_EV = -4160.0  # about the free atoms of C, O, H and H


def totals(dataset: Dataset) -> Dataset:
    """The same with total energies."""
    return replace(dataset, energy=dataset.energy + TOTAL_EV)


@pytest.mark.parametrize(
    ("factor", "says"),
    [(1 / HARTREE_EV, "hartree"), (1 / KCAL_MOL_EV, "kcal/mol"), (0.0, "another unit"), (-1.0, "unit")],
)
def test_a_few_energies_in_another_unit_are_named(springs: Springs, factor: float, says: str) -> None:
    dataset = replace(totals(springs()), forces=None)
    dataset.energy[list(WRONG)] *= factor
    with pytest.raises(UnsoundData, match=rf"energy_outliers.*{says}.*Frames 17, 60, 111, 150\."):
        require_sound(dataset)


@pytest.mark.parametrize("factor", [-1.0, BOHR_ANGSTROM / HARTREE_EV])
def test_a_few_forces_of_another_sign_or_unit_are_named(springs: Springs, factor: float) -> None:
    dataset = springs()
    assert dataset.forces is not None
    for frame in WRONG:
        dataset.forces[dataset.atoms_of(frame)] *= factor
    with pytest.raises(UnsoundData, match=rf"odd_forces.*taken {1 / factor:.2g}.*Frames 17, 60, 111, 150\."):
        require_sound(dataset)


def test_a_few_energies_that_were_exchanged_are_named(springs: Springs) -> None:
    dataset = springs()
    dataset.energy[list(WRONG)] += [0.4, -0.4, 0.5, -0.5]
    with pytest.raises(UnsoundData, match=r"odd_energies.*off by 0\.4.*Frames 17, 60, 111, 150\."):
        require_sound(dataset)


@pytest.mark.parametrize(("unit", "factor"), [("bohr", 1 / BOHR_ANGSTROM), ("nanometres", 0.1)])
def test_positions_in_another_unit_are_told_by_the_bonds_of_hydrogen(
    springs: Springs, unit: str, factor: float
) -> None:
    dataset = replace(springs(), forces=None)
    found = inspect(replace(dataset, positions=factor * dataset.positions))
    assert [f.code for f in found] == ["length_unit"]
    assert unit in found[0].message


@pytest.mark.parametrize("name", ["methane", "n_methylacetamide"])
def test_public_data_have_no_odd_frames_and_flipped_forces_in_them_are_found(
    shared_data: Path, provenance: Provenance, name: str
) -> None:
    dataset = read_qm22(shared_data / f"qm22/{name}.npz", provenance, "total").select(np.arange(2500))
    require_sound(dataset)
    assert dataset.forces is not None
    wrong = np.random.default_rng(0).choice(2500, 20, replace=False)
    forces = dataset.forces.copy()
    for frame in wrong:
        forces[dataset.atoms_of(int(frame))] *= -1.0
    (found,) = inspect(replace(dataset, forces=forces))
    assert found.code == "odd_forces"
    assert set(found.frames) <= set(dataset.frames[wrong].tolist())
    assert len(found.frames) >= 15
