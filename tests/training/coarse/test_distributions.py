"""Distributions against beads whose arrangement is known: independent ones, a crystal, three in a triangle."""

import numpy as np
import pytest

from contract.structures import checked_structure
from training.coarse.distributions import RadialDistribution, angular_distribution, radial_distribution
from training.coarse.errors import Unresolved


def test_independent_beads_have_a_flat_distribution_whatever_the_shape_of_the_cell() -> None:
    rng = np.random.default_rng(0)
    cell = np.array([[14.0, 0.0, 0.0], [4.0, 15.0, 0.0], [-3.0, 2.0, 16.0]])
    frames = [checked_structure(np.full(60, 16), rng.random((60, 3)) @ cell, cell, True) for _ in range(60)]
    found = radial_distribution(frames, 6.0, 12)
    pairs = 60 * 60 * 59 / 2 * (4 / 3 * np.pi) * np.diff(np.linspace(0, 6, 13) ** 3) / np.linalg.det(cell)
    assert (np.abs(found.g - 1.0) < 4.0 / np.sqrt(pairs)).all()


def test_the_distribution_counts_the_neighbours_of_a_crystal() -> None:
    grid = np.stack(np.meshgrid(*[np.arange(4)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * 3.0
    crystal = checked_structure(np.full(64, 16), grid, 12.0 * np.eye(3), True)
    found = radial_distribution([crystal], 6.0, 60)
    shells = 4 / 3 * np.pi * np.diff(np.linspace(0, 6, 61) ** 3)
    neighbours = found.g * shells * 63 / 12.0**3
    first = np.abs(found.r - 3.0) < 0.2
    assert neighbours[first].sum() == pytest.approx(6.0)
    assert found.g[found.r < 2.8].sum() == 0.0


def test_angles_of_a_triangle_are_its_own() -> None:
    corners = [[5.0, 5, 5], [8.0, 5, 5], [5.0, 9.0, 5]]
    found = angular_distribution([checked_structure([16] * 3, corners, 20.0 * np.eye(3), True)], 6.0)
    seen = found.degrees[found.p > 0]
    np.testing.assert_allclose(seen, [36.5, 53.5, 90.5], atol=1.0)
    assert found.p.sum() == pytest.approx(1.0)
    assert found.error(found) == 0.0


def test_beads_in_a_line_make_no_angle_that_is_no_number() -> None:
    line = checked_structure([16] * 3, [[2.0, 5, 5], [5.0, 5, 5], [8.0, 5, 5]], 20.0 * np.eye(3), True)
    found = angular_distribution([line], 4.0)
    assert found.p[-1] == pytest.approx(1.0)


def test_errors_and_peaks_of_curves_that_are_known() -> None:
    r = np.linspace(0.05, 9.95, 100)
    one = RadialDistribution(r, 1.0 + np.exp(-((r - 4.0) ** 2)) - 0.3 * np.exp(-((r - 6.0) ** 2)))
    other = RadialDistribution(r, one.g + 0.1)
    assert one.error(other) == pytest.approx(0.1)
    assert one.weighted_error(other) == pytest.approx(0.1)
    assert one.first_peak()[0] == pytest.approx(4.0, abs=0.1)
    assert one.first_minimum() == pytest.approx(6.0, abs=0.15)


def test_a_reach_beyond_half_of_the_cell_is_refused() -> None:
    frame = checked_structure([16] * 2, [[0.0, 0, 0], [4.0, 0, 0]], 10.0 * np.eye(3), True)
    with pytest.raises(Unresolved, match="half of the cell of frame 0 is 5"):
        radial_distribution([frame], 6.0)
