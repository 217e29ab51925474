from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from contract.card import DataSource
from training.data.dataset import Dataset, uniform
from training.data.force_agreement import force_agreement

Springs = Callable[..., Dataset]


@pytest.mark.physics
def test_exact_forces_have_slope_one_though_molecules_tumble(springs: Springs) -> None:
    found = force_agreement(springs())
    assert found is not None
    assert found.conclusive
    assert found.slope == pytest.approx(1.0, abs=0.02)
    assert found.correlation > 0.99


def test_gradients_have_slope_minus_one(springs: Springs) -> None:
    dataset = springs()
    assert dataset.forces is not None
    found = force_agreement(replace(dataset, forces=-dataset.forces))
    assert found is not None
    assert found.slope == pytest.approx(-1.0, abs=0.02)


def test_a_shuffled_file_is_judged_by_nearest_frames(springs: Springs) -> None:
    dataset = springs(500, spread=0.05)
    found = force_agreement(dataset.select(np.random.default_rng(0).permutation(500)))
    assert found is not None
    assert found.slope == pytest.approx(1.0, abs=0.05)


def test_energies_that_have_nothing_to_do_with_forces_are_inconclusive(springs: Springs) -> None:
    dataset = springs()
    found = force_agreement(replace(dataset, energy=np.random.default_rng(0).normal(size=len(dataset))))
    assert found is not None
    assert not found.conclusive


def test_nothing_is_said_without_forces_or_with_too_few_close_frames(springs: Springs) -> None:
    dataset = springs()
    assert force_agreement(replace(dataset, forces=None)) is None
    assert force_agreement(dataset.select([0, 1, 2])) is None
    assert force_agreement(springs(50, step=5.0, spread=20.0)) is None


def test_isolated_atoms_and_zero_forces_say_nothing(source: DataSource) -> None:
    atoms = uniform([1], np.arange(90.0).reshape(30, 1, 3), np.zeros(30), [source], np.zeros((30, 1, 3)))
    assert force_agreement(atoms) is None


@pytest.mark.parametrize("name", ["ethanol", "methane", "n_methylacetamide", "tropolone"])
def test_published_forces_of_qm22_are_minus_the_gradient(name: str, shared_data: Path, source: DataSource) -> None:
    arrays = np.load(shared_data / "qm22" / f"{name}.npz")
    few = slice(0, 1000)
    dataset = uniform(
        arrays["numbers"], arrays["positions"][few], arrays["energy"][few], [source], arrays["forces"][few]
    )
    found = force_agreement(dataset)
    assert found is not None
    assert found.slope == pytest.approx(1.0, abs=0.05)
    assert found.correlation > 0.97
