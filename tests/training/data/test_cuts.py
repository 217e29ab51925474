from collections.abc import Callable

import numpy as np
import pytest

from contract.card import DataSource
from training.data.cuts import cut_energy, drop_duplicates, drop_unlabelled
from training.data.dataset import Dataset, ragged, uniform
from training.data.errors import DataError


def energies(values: list[float], source: DataSource, numbers: list[list[int]] | None = None) -> Dataset:
    atoms = numbers or [[1]] * len(values)
    positions = [np.full((len(z), 3), float(i)) + np.arange(len(z))[:, None] for i, z in enumerate(atoms)]
    return ragged(atoms, positions, values, [source])


def test_relative_energies_are_cut_above_zero(source: DataSource) -> None:
    cut = cut_energy(energies([1.0, 3.9, 4.1], source), 4.0, "zero")
    assert cut.energy.tolist() == [1.0, 3.9]
    assert cut.sources[0].notes == "Energy cut 4 eV above the set's own zero: 1 of 3 frames dropped."
    assert cut.sources[0].count == 2


def test_total_energies_are_cut_above_the_lowest_of_the_same_formula(source: DataSource) -> None:
    dataset = energies([-100.0, -95.0, -10.0, -9.0], source, [[6], [6], [1], [1]])
    assert cut_energy(dataset, 2.0, "composition").energy.tolist() == [-100.0, -10.0, -9.0]


def test_conformers_are_cut_above_the_lowest_of_their_molecule(source: DataSource) -> None:
    dataset = ragged([[1]] * 4, [np.full((1, 3), i) for i in range(4)], [0, 3, 10, 11], [source], groups=[7, 7, 2, 2])
    assert cut_energy(dataset, 2.0, "group").energy.tolist() == [0, 10, 11]


def test_a_cut_leaves_unlabelled_frames_for_the_checks_to_find(source: DataSource) -> None:
    assert len(cut_energy(energies([0.0, np.nan, 9.0], source), 1.0, "composition")) == 2


def test_a_cut_of_nothing_is_refused(source: DataSource) -> None:
    with pytest.raises(DataError, match="positive number of eV"):
        cut_energy(energies([0.0], source), 0.0, "zero")


def test_exact_repeats_go_and_the_first_stays(source: DataSource) -> None:
    positions = np.zeros((4, 2, 3))
    positions[:, 1, 0] = [1.0, 2.0, 1.0, 1.0]
    dataset = drop_duplicates(uniform([1, 1], positions, [5.0, 6.0, 5.0, 5.25], [source]))
    assert dataset.frames.tolist() == [0, 1]
    assert dataset.sources[0].notes.startswith("2 exact repeats of a geometry dropped")
    assert "at most 0.25 eV" in dataset.sources[0].notes


def test_minus_zero_is_the_same_place_as_zero(source: DataSource) -> None:
    positions = np.zeros((2, 1, 3))
    positions[1] = -0.0
    assert len(drop_duplicates(uniform([1], positions, [0, 0], [source]))) == 1


def test_data_without_repeats_get_no_note(springs: Callable[..., Dataset]) -> None:
    assert drop_duplicates(springs(10)).sources[0].notes == ""


def test_frames_without_a_force_label_go(springs: Callable[..., Dataset]) -> None:
    dataset = springs(5)
    assert dataset.forces is not None
    dataset.forces[dataset.atoms_of(3), 1] = np.nan
    dataset.energy[1] = np.nan
    kept = drop_unlabelled(dataset)
    assert kept.frames.tolist() == [0, 2, 4]
    assert kept.sources[0].notes == "2 of 5 frames without these labels dropped."
