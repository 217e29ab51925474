"""The factor, the coverage and the rank correlation of an uncertainty, on errors of known size."""

import numpy as np
import pytest

from training.calibration import calibration_factor, coverage, interval, rank_correlation

RNG = np.random.default_rng(0)
STD = RNG.uniform(0.5, 2.0, 40_000)
ERROR = 3.0 * STD * RNG.normal(size=len(STD))


def test_the_factor_finds_by_how_much_a_spread_is_too_small() -> None:
    assert calibration_factor(ERROR, STD) == pytest.approx(3.0, rel=0.01)
    assert calibration_factor(ERROR, 3.0 * STD) == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("nominal", [0.5, 0.68, 0.95])
def test_intervals_of_a_calibrated_spread_hold_what_they_promise(nominal: float) -> None:
    assert coverage(ERROR, 3.0 * STD, nominal) == pytest.approx(nominal, abs=0.01)
    assert coverage(ERROR, STD, nominal) < nominal - 0.1


def test_intervals_are_those_of_the_normal_law() -> None:
    assert interval(0.95) == pytest.approx(1.959964, rel=1e-6)


def test_rank_correlation_sees_whether_spread_goes_with_error() -> None:
    assert rank_correlation(ERROR, STD) > 0.3
    assert abs(rank_correlation(ERROR, RNG.permutation(STD))) < 0.05
    assert rank_correlation(STD, STD) == pytest.approx(1.0)


def test_a_spread_that_never_changes_has_no_rank_correlation() -> None:
    assert np.isnan(rank_correlation(ERROR, np.ones_like(ERROR)))


def test_an_exact_answer_without_spread_is_no_error() -> None:
    assert coverage(np.zeros(4), np.zeros(4), 0.68) == 1.0
    assert calibration_factor(np.zeros(4), np.zeros(4)) == 0.0
