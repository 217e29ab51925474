"""Whom a student learnt from: the gap on its card."""

import numpy as np
import pytest

from training.teacher import gap_between


def test_the_gap_is_a_mean_and_a_bound_that_one_structure_in_twenty_exceeds() -> None:
    atoms, count = 4, 100
    forces = [np.zeros((atoms, 3)) for _ in range(count)]
    off = np.arange(count) / 10.0
    gap = gap_between((off * atoms, [f + x for f, x in zip(forces, off, strict=True)]), (np.zeros(count), forces))
    assert gap.energy_ev_per_atom == pytest.approx(off.mean())
    assert gap.forces_ev_angstrom == pytest.approx(off.mean())
    assert (off > gap.energy_bound_ev_per_atom).mean() == pytest.approx(0.05)
    assert (off > gap.forces_bound_ev_angstrom).mean() == pytest.approx(0.05)
    assert gap.count == count
