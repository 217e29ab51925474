"""The pair force is found again where it is known, and is that of a published method on published data."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.graphs import build_graph
from contract.structures import checked_structure
from contract.units import KCAL_MOL_EV
from training.coarse.errors import Unresolved
from training.coarse.pair_splines import fit_pair_force
from training.networks.repulsion import RepulsionConfig

CUTOFF = 6.0


def test_a_known_pair_force_is_found_again_and_gives_the_forces_that_it_was_fitted_to(liquid: Any) -> None:
    found = fit_pair_force(liquid.frames, liquid.forces, CUTOFF, spacing=0.3, ridge=1e-10)
    r = np.linspace(2.6, 5.9, 30)
    np.testing.assert_allclose(found.force(r), liquid.force(r), atol=2e-3)
    forces = found.forces(build_graph(liquid.frames[0], CUTOFF))
    np.testing.assert_allclose(forces, liquid.forces[0], atol=5e-3)
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=1e-5)


def test_the_energy_is_the_integral_of_the_force_and_zero_at_the_cutoff(liquid: Any) -> None:
    found = fit_pair_force(liquid.frames, liquid.forces, CUTOFF, spacing=0.3)
    r, h = np.linspace(2.6, 5.8, 20), 1e-2
    slope = (found.energy(r + h) - found.energy(r - h)) / (2 * h)
    np.testing.assert_allclose(-slope, found.force(r), atol=2e-3)
    assert found.energy(np.array([CUTOFF]))[0] == pytest.approx(0.0, abs=1e-6)
    assert (found.force(np.array([CUTOFF + 0.1])) == 0.0).all()


def test_with_a_prior_the_same_total_force_is_found(liquid: Any) -> None:
    prior = RepulsionConfig(onset_angstrom=2.5, force_ev_angstrom=1.0)
    found = fit_pair_force(liquid.frames, liquid.forces, CUTOFF, spacing=0.3, ridge=1e-10, prior=prior)
    r = np.linspace(2.7, 5.9, 30)
    np.testing.assert_allclose(found.force(r), liquid.force(r), atol=2e-2)
    near = np.array([2.2, 2.0])
    assert (found.force(near) > 5.0).all()


def test_beads_out_of_each_others_reach_cannot_be_fitted() -> None:
    apart = checked_structure([16] * 2, [[0.0, 0, 0], [9.0, 0, 0]], 20.0 * np.eye(3), True)
    with pytest.raises(Unresolved, match="no two beads"):
        fit_pair_force([apart], [np.zeros((2, 3))], CUTOFF, spacing=0.5)


@pytest.mark.physics
def test_it_reproduces_the_published_table_of_multiscale_coarse_graining(shared_data: Path) -> None:
    folder = shared_data / "cg_methanol_mscg_gpl2"
    if not folder.is_dir():
        pytest.skip("no cg_methanol_mscg_gpl2: the example `mscg` of LAMMPS")
    with np.load(folder / "meoh_cg.npz") as stored:
        cells = [np.diag(box[:, 1] - box[:, 0]) for box in stored["box"][:19]]
        frames = [
            checked_structure(np.full(len(x), 16), x, c, True)
            for x, c in zip(stored["positions"][:19], cells, strict=True)
        ]
        forces = list(stored["forces"][:19] * KCAL_MOL_EV)
    found = fit_pair_force(frames, forces, 10.0, spacing=0.7, degree=5, vanishing=False)
    _, r, energy, force = np.loadtxt(folder / "1_1.table", skiprows=5).T
    seen = (r > 3.15) & (r < 9.95)  # below are few pairs, and the splines' ends differ
    ours = found.force(r[seen]) / KCAL_MOL_EV
    assert np.sqrt(np.mean((ours - force[seen]) ** 2)) < 0.1  # kcal/mol/angstrom, of forces up to 3.9
    assert np.abs(found.energy(r[seen]) / KCAL_MOL_EV - energy[seen]).max() < 0.06  # kcal/mol
