"""Canonical trajectories of beads under any force field: Langevin dynamics (training/sampling/langevin.py).

Beads diffuse faster than the molecules that they stand for, because the atoms that are left out gave friction. That is
no error of a coarse-grained model by itself; arrangements are compared, not times.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from contract.errors import InvalidInput
from contract.graphs import Graph, build_graph
from contract.structures import Structure, checked_structure
from training.batches import to_batch
from training.networks.hipnn import HipNN
from training.sampling.langevin import Walker

Array = NDArray[np.float64]
BeadForces = Callable[[Graph], Array]
"""Forces of one structure, eV/angstrom [n, 3], from its neighbour list."""

FASTEST_EV_ANGSTROM: Final = 1e3


class DynamicsConfig(BaseModel):
    """How beads are simulated. Times in ps, steps in fs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    settling_ps: float = Field(2.5, ge=0)
    sampling_ps: float = Field(10.0, gt=0)
    frame_every_ps: float = Field(0.1, gt=0)
    step_fs: float = Field(5.0, gt=0)
    friction_per_ps: float = Field(2.0, gt=0)
    seed: int = 0

    def steps(self, picoseconds: float) -> int:
        """Time steps in so many ps."""
        return round(1e3 * picoseconds / self.step_fs)


@dataclass(frozen=True, slots=True, eq=False)
class Trajectory:
    """Frames after settling, and where it broke: ps, or None if it came to its end."""

    frames: list[Structure]
    failed_at_ps: float | None = None


class NetworkForces:
    """The mean force of a network's members."""

    def __init__(self, network: HipNN) -> None:
        self._network = network.eval()

    def __call__(self, graph: Graph) -> Array:
        """Forces of one structure, eV/angstrom [n, 3]."""
        with torch.no_grad():
            forces: Array = self._network.evaluate(to_batch([graph])).forces.double().numpy()
        return forces


def simulate(
    start: Structure, bead_mass_u: float, forces: BeadForces, cutoff: float, kelvin: float, how: DynamicsConfig
) -> Trajectory:
    """Beads in a bath.

    Args:
        start: periodic in three directions.
        bead_mass_u: of every bead.
        forces: of a neighbour list.
        cutoff: angstrom, of the force field.
        kelvin: of the bath.
        how: times, friction and seed.

    Returns:
        The frames; fewer where a force was not finite, beyond 1000 eV/angstrom, or beads met in one place.
    """
    rng = np.random.default_rng(how.seed)
    masses = np.full(len(start), bead_mass_u)
    walker = Walker(start.positions, start.numbers, kelvin, how.step_fs, how.friction_per_ps, rng, masses)
    settling, every = how.steps(how.settling_ps), max(1, how.steps(how.frame_every_ps))
    frames: list[Structure] = []
    for step in range(settling + how.steps(how.sampling_ps) + 1):
        force = _force(walker, start, forces, cutoff)
        if force is None:
            return Trajectory(frames, 1e-3 * step * how.step_fs)
        walker.force = force
        if step:
            walker.kick()
        if step > settling and (step - settling) % every == 0:
            frames.append(_structure(walker, start))
        walker.kick_and_drift(kelvin)
    return Trajectory(frames)


def _force(walker: Walker, start: Structure, forces: BeadForces, cutoff: float) -> Array | None:
    """The force of this place, or None where there is none that dynamics could go on with."""
    try:
        force = forces(build_graph(_structure(walker, start), cutoff))
    except InvalidInput:
        return None
    return force if np.abs(force).max() < FASTEST_EV_ANGSTROM else None


def _structure(walker: Walker, start: Structure) -> Structure:
    return checked_structure(start.numbers, walker.positions.copy(), start.cell, start.pbc)
