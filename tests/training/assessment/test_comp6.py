"""COMP6's protocol: its identities, its window, and errors that are known."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.units import KCAL_MOL_EV
from training.assessment.comp6 import comp6, inside_window, relative_sums
from training.assessment.judged import Judged
from training.assessment.labelled import Reading

FORCES = Reading(forces_are="forces")
SHIFT_KCAL = 0.05 / KCAL_MOL_EV


@given(st.lists(st.floats(-5.0, 5.0), min_size=2, max_size=12), st.integers(1, 4))
def test_sums_over_pairs_are_those_of_every_pair_written_out(error: list[float], molecules: int) -> None:
    e, molecule = np.array(error), np.arange(len(error)) % molecules
    sums = relative_sums(e, molecule, molecules)
    for m in range(molecules):
        mine = e[molecule == m]
        apart = [mine[i] - mine[j] for i in range(len(mine)) for j in range(i)]
        assert sums.size[m] == pytest.approx(np.abs(apart).sum(), abs=1e-9)
        assert sums.square[m] == pytest.approx((np.array(apart) ** 2).sum(), abs=1e-9)
        assert sums.count[m] == len(apart)


def test_the_relative_rmse_of_one_molecule_is_root_two_times_its_standard_deviation() -> None:
    error = np.random.default_rng(0).normal(size=30)
    sums = relative_sums(error, np.zeros(30, np.int64), 1)
    assert sums.square[0] / sums.count[0] == pytest.approx(2.0 * error.std(ddof=1) ** 2)


def test_pairs_with_the_lowest_conformer_alone_may_be_asked_for() -> None:
    sums = relative_sums(np.array([1.0, 3.0, -1.0]), np.zeros(3, np.int64), 1, np.array([0.5, 0.0, 2.0]))
    assert (sums.size[0], sums.square[0], sums.count[0]) == (6.0, 20.0, 2.0)


def test_the_window_is_counted_from_the_lowest_conformer_of_each_molecule() -> None:
    inside = inside_window(np.array([0.0, 5.0, 100.0, 104.0, 111.0]), np.array([0, 0, 1, 1, 1]), 10.0)
    assert inside.tolist() == [True, True, True, True, False]


def test_errors_are_in_kcal_mol_and_relative_energies_do_not_see_a_shift(model: Judged, hdf5: Path) -> None:
    (subset,) = comp6(model, [hdf5], how=FORCES)
    assert (subset.name, subset.molecules, subset.kept, subset.total) == ("small", 3, 17, 18)
    energy = subset.errors["energy"]
    assert energy.mae.value == pytest.approx(SHIFT_KCAL, rel=1e-3)
    assert energy.mae.low == pytest.approx(energy.mae.high, rel=1e-3)
    assert subset.errors["relative energy"].mae.value < 1e-3
    assert subset.errors["relative energy"].count == 15 + 15 + 10
    assert subset.errors["forces"].rmse.value < 1e-3
    assert subset.errors["forces"].count == 3 * (5 * 3 + 6 * 5 + 6 * 3)


def test_a_wider_window_keeps_what_lies_high(model: Judged, hdf5: Path) -> None:
    (subset,) = comp6(model, [hdf5], window=1000.0, how=FORCES)
    assert subset.kept == 18
    assert subset.errors["energy"].rmse.value > 10.0


def test_several_files_are_counted_apart_and_together(model: Judged, hdf5: Path) -> None:
    first, second, together = comp6(model, [hdf5, hdf5], how=FORCES)
    assert (together.name, together.molecules, together.kept) == ("all", 6, 34)
    assert together.errors["energy"].mae.value == pytest.approx(first.errors["energy"].mae.value)
    assert second.errors == first.errors
