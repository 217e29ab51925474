"""Dynamics of beads samples the distribution of its temperature, and says where it broke."""

from typing import Any

import numpy as np
import pytest
import torch

from contract.graphs import Graph
from contract.structures import checked_structure
from training.coarse.distributions import displacements
from training.coarse.dynamics import DynamicsConfig, NetworkForces, simulate
from training.sampling.langevin import BOLTZMANN_EV

KELVIN = 400.0


@pytest.mark.physics
def test_dimers_on_springs_have_the_lengths_that_their_temperature_gives() -> None:
    centres = 20.0 * np.stack(np.meshgrid([0.5, 1.5], [0.5, 1.5], [0.5, 1.5]), axis=-1).reshape(-1, 1, 3)
    places = (centres + np.array([[-2.0, 0, 0], [2.0, 0, 0]])).reshape(-1, 3)
    start = checked_structure([16] * 16, places, 40.0 * np.eye(3), True)
    stiffness = 0.05

    def spring(graph: Graph) -> np.ndarray:
        mate = (np.arange(graph.n_atoms) ^ 1)[:, None]
        vector = displacements(graph)[graph.neighbours == mate]
        r = np.linalg.norm(vector, axis=1, keepdims=True)
        return stiffness * (r - 4.0) * vector / r

    how = DynamicsConfig(settling_ps=3, sampling_ps=30, frame_every_ps=0.25, step_fs=25, friction_per_ps=5, seed=1)
    frames = simulate(start, 32.0, spring, 9.0, KELVIN, how).frames
    lengths = np.linalg.norm([f.positions[1::2] - f.positions[::2] for f in frames], axis=2)
    r = np.linspace(0.5, 7.5, 400)  # p(r) = r^2 exp(-k (r - 4)^2 / 2 kT)
    weight = r**2 * np.exp(-0.5 * stiffness * (r - 4.0) ** 2 / (BOLTZMANN_EV * KELVIN))
    mean = np.average(r, weights=weight)
    assert lengths.mean() == pytest.approx(mean, abs=0.1)
    assert lengths.var() == pytest.approx(np.average((r - mean) ** 2, weights=weight), rel=0.25)


def test_the_same_seed_gives_the_same_frames_with_a_network_too(liquid: Any, network_of: Any) -> None:
    network = network_of(
        dtype=torch.float32, elements=[16], cutoff_angstrom=5.0, soft_min_angstrom=2.0, soft_max_angstrom=4.5
    )
    how = DynamicsConfig(settling_ps=0.01, sampling_ps=0.05, frame_every_ps=0.01, seed=4)
    one, other = (simulate(liquid.frames[0], 32.0, NetworkForces(network), 5.0, KELVIN, how) for _ in range(2))
    assert one.failed_at_ps is None
    assert len(one.frames) == 5
    np.testing.assert_array_equal(one.frames[-1].positions, other.frames[-1].positions)


def test_forces_without_bound_end_a_trajectory_and_the_time_is_told(liquid: Any) -> None:
    def broken(graph: Graph) -> np.ndarray:
        return np.full((graph.n_atoms, 3), np.nan)

    ran = simulate(liquid.frames[0], 32.0, broken, 5.0, KELVIN, DynamicsConfig())
    assert ran.failed_at_ps == 0.0
    assert ran.frames == []
