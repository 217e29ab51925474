"""The domain of a model, measured from what it was trained on."""

import numpy as np
import pytest

from contract.card import Domain
from training.data.dataset import Dataset, ragged, uniform
from training.domain import closest_pairs, training_domain

STILL = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


@pytest.fixture
def waters() -> Dataset:
    """Water with its first bond at 0.96, 0.90 and 1.05 angstrom."""
    positions = np.stack([STILL, STILL, STILL])
    positions[:, 1, 0] = [0.96, 0.90, 1.05]
    return uniform([8, 1, 1], positions, [0.0, 0.5, 1.0], [])


def test_the_closest_pair_of_each_kind_is_found_among_nearest_neighbours(waters: Dataset) -> None:
    assert closest_pairs(waters, 3.0) == {"H-O": 0.9}


def test_neighbours_across_a_periodic_boundary_count() -> None:
    crystal = ragged([[13]], [[[0.0, 0.0, 0.0]]], [0.0], [], cells=[2.5 * np.eye(3)], pbc=[[True] * 3])
    assert closest_pairs(crystal, 4.0) == {"Al-Al": 2.5}
    assert training_domain(crystal, 4.0, None).periodic


def test_elements_and_formulas_are_those_of_the_training_data(waters: Dataset) -> None:
    domain = training_domain(waters, 3.0, None)
    assert domain.elements == ["H", "O"]
    assert domain.formulas == ["H2O"]
    assert not domain.periodic
    assert domain.energy_std_in_ev is None
    assert "up to 1.0 eV above the lowest" in domain.description


def test_a_spread_is_inside_up_to_the_95_percent_quantile_of_held_out_frames_and_outside_beyond_twice_that(
    waters: Dataset,
) -> None:
    std = np.linspace(0.0, 0.1, 101)
    domain = training_domain(waters, 3.0, std)
    assert domain.energy_std_in_ev == pytest.approx(0.095)
    assert domain.energy_std_out_ev == pytest.approx(0.19)


def test_so_many_formulas_that_composition_is_free_are_not_listed() -> None:
    chains = [np.stack([np.array([1.1 * i, 0.0, 0.0]) for i in range(n)]) for n in range(2, 60)]
    domain = training_domain(ragged([[6] * len(c) for c in chains], chains, np.zeros(58), []), 3.0, None)
    assert domain.formulas is None


def test_limits_on_the_std_of_a_material_grow_with_the_cell() -> None:
    fields = {"elements": ["Al"], "cutoff_angstrom": 5.0, "periodic": True, "description": "cells"}
    limits = {"energy_std_in_ev": 0.1, "energy_std_out_ev": 0.2}
    assert Domain(**fields, **limits).energy_std_limits(64) == (0.1, 0.2)
    assert Domain(**fields, **limits, energy_std_atoms=32).energy_std_limits(64) == (0.2, 0.4)
    assert Domain(**fields).energy_std_limits(64) == (None, None)
