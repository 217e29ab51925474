"""The scale, the coverage and the rank correlation of an uncertainty, on errors of known size."""

import numpy as np
import pytest
from scipy.stats import t as student

from training.calibration import (
    calibrate,
    calibration_scale,
    conformal,
    coverage,
    half_width,
    rank_correlation,
    scores,
)
from training.report.figures import Spread

MEMBERS = 4
RNG = np.random.default_rng(0)


def committee(frames: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Error of the mean and spread of four members that scatter a third as much as the truth, frame by frame."""
    generator = np.random.default_rng(seed)
    size = generator.lognormal(0.0, 0.7, frames)
    members = size * generator.normal(size=(MEMBERS, frames))
    return members.mean(axis=0) - 3.0 * size * generator.normal(size=frames), members.std(axis=0, ddof=1)


def test_a_committee_that_scatters_too_little_is_calibrated_by_one_scale_at_every_level() -> None:
    found = calibrate(committee(4000, 1), committee(20_000, 2), MEMBERS)
    assert [held.observed for held in found.coverage] == pytest.approx([0.68, 0.95], abs=0.02)
    error, std = committee(20_000, 3)
    for nominal in (0.2, 0.5, 0.9, 0.99):
        assert coverage(error, found.scale * std, nominal, MEMBERS) == pytest.approx(nominal, abs=0.02)
    assert coverage(error, std, 0.68, MEMBERS) < 0.4


def test_a_thousand_frames_on_either_side_are_enough_for_five_points() -> None:
    found = calibrate(committee(1000, 4), committee(1000, 5), MEMBERS)
    assert [held.observed for held in found.coverage] == pytest.approx([0.68, 0.95], abs=0.05)
    assert found.fitted_to == found.coverage[0].count == 1000


def test_the_scale_finds_by_how_much_a_spread_is_too_small() -> None:
    error, std = committee(20_000, 6)
    scale = calibration_scale(error, std)
    assert scale == pytest.approx(np.sqrt(9 + 1 / MEMBERS) * student(MEMBERS - 1).ppf(0.84), rel=0.03)
    assert calibration_scale(error, scale * std) == pytest.approx(1.0)


def test_few_members_make_long_tails() -> None:
    assert half_width(0.68, MEMBERS) == pytest.approx(1.0)
    assert half_width(0.95, 4) == pytest.approx(3.1824 / 1.1889, rel=1e-3)
    assert half_width(0.95, 1000) == pytest.approx(1.96 / 0.9945, rel=1e-2)


def test_rank_correlation_sees_whether_spread_goes_with_error() -> None:
    error, std = committee(20_000, 7)
    assert rank_correlation(error, std) > 0.3
    assert abs(rank_correlation(error, RNG.permutation(std))) < 0.05
    assert rank_correlation(std, std) == pytest.approx(1.0)


def test_components_of_forces_are_taken_one_by_one() -> None:
    error, std = committee(300, 8)
    apart = calibrate((error, std), (error, std), MEMBERS)
    together = calibrate(*[(error.reshape(-1, 3), std.reshape(-1, 3))] * 2, MEMBERS)
    assert apart == together


def test_a_spread_that_never_changes_has_no_rank_correlation() -> None:
    assert np.isnan(rank_correlation(committee(9, 9)[0], np.ones(9)))


def test_an_exact_answer_without_spread_is_no_error() -> None:
    assert coverage(np.zeros(4), np.zeros(4), 0.68, MEMBERS) == 1.0
    assert calibration_scale(np.zeros(4), np.zeros(4)) == 0.0


def test_quantiles_of_held_out_errors_hold_what_they_are_called_to_whatever_the_law() -> None:
    rng = np.random.default_rng(3)
    std = rng.uniform(0.5, 2.0, 4000)
    error = 0.3 + std * rng.laplace(size=4000)  # biased, long tails, known to no Student
    found = conformal((error[:2000], std[:2000]), (error[2000:], std[2000:]))
    assert [c.observed for c in found.coverage] == pytest.approx([0.68, 0.95], abs=0.03)
    assert found.floor == pytest.approx(np.median(std[:2000]))


def test_members_that_agree_by_chance_promise_no_exact_answer() -> None:
    error, std = np.ones(50), np.full(50, 0.1)
    found = conformal((error, std), (np.ones(1), np.zeros(1)))
    assert found.scale * np.hypot(0.0, found.floor) == pytest.approx(1.0 / np.sqrt(2.0))


def test_the_figure_of_conformal_intervals_shows_what_the_card_says() -> None:
    error, std = committee(3000, 3)
    valid, test = (error[:60], std[:60]), (error[60:], std[60:])
    fitted = conformal(valid, test)
    ranked = np.sort(np.abs(scores(valid[0], fitted.scale * np.hypot(valid[1], fitted.floor))))
    spread = Spread("energy", "eV", test[0], np.hypot(test[1], fitted.floor), fitted.scale, ranked)
    for held in fitted.coverage:
        assert spread.held(fitted.scale, held.nominal, MEMBERS) == pytest.approx(100 * held.observed)
