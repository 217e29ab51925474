"""How long molecular dynamics lives on a potential: constant energy, many runs side by side, until something breaks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from ase.data import atomic_masses, covalent_radii
from numpy.typing import NDArray

from contract.errors import UnderstudyError
from contract.graphs import Graph, build_graph
from contract.structures import checked_structure
from contract.units import KCAL_MOL_EV
from training.batches import to_batch
from training.networks.hipnn import HipNN
from training.sampling.langevin import BOLTZMANN_EV, FS_IN_ASE

LENGTH_FS: Final = 1000.0
KELVIN: Final = 300.0
STRETCH: Final = (0.6, 1.6)
DRIFT_EV: Final = KCAL_MOL_EV  # an atom
TIMES_FS: Final = tuple(np.linspace(0.0, LENGTH_FS, 21))

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Survival:
    """When each run failed, in fs; infinity for those that lived to the end."""

    step_fs: float
    failed_fs: Array

    def summary(self) -> dict[str, Any]:
        """Share alive at TIMES_FS (Kaplan and Meier's estimate, as nobody leaves early), and the median."""
        median = float(np.median(self.failed_fs))
        return {
            "step fs": self.step_fs,
            "alive": [float((self.failed_fs > time).mean()) for time in TIMES_FS],
            "median fs": median if np.isfinite(median) else f"> {LENGTH_FS:g}",
        }


def survive(network: HipNN, starts: Sequence[Graph], step_fs: float, seed: int) -> Survival:
    """NVE trajectories of molecules, velocities of the seed.

    Args:
        network: one network or a committee, which moves on its mean force.
        starts: one a trajectory; molecules may differ.
        step_fs: of velocity Verlet.
        seed: of the velocities.
    """
    runs = _Runs.start(starts, seed)
    bonds = [_bonds(positions, numbers) for numbers, positions in runs.molecules()]
    failed, cutoff = np.full(len(starts), np.inf), network.config.cutoff_angstrom
    energy, force = _evaluate(network, starts)
    total, dt = energy + runs.kinetic(), step_fs * FS_IN_ASE
    for step in range(1, round(LENGTH_FS / step_fs) + 1):
        runs.velocities += 0.5 * dt * force / runs.masses
        runs.positions += dt * runs.velocities
        found = [_graph(numbers, positions, cutoff) for numbers, positions in runs.molecules()]
        whole = np.array([
            graph is not None and bonds[k].hold(positions)
            for k, graph, (_, positions) in zip(runs.which, found, runs.molecules(), strict=True)
        ])  # fmt: skip
        failed[runs.which[~whole]] = step * step_fs
        runs = runs.only(whole)
        if not len(runs.which):
            break
        energy, force = _evaluate(network, [graph for graph, w in zip(found, whole, strict=True) if w and graph])
        runs.velocities += 0.5 * dt * force / runs.masses
        steady = np.abs(energy + runs.kinetic() - total[runs.which]) < DRIFT_EV * runs.sizes
        failed[runs.which[~steady]] = step * step_fs
        force, runs = force[np.repeat(steady, runs.sizes)], runs.only(steady)
        if not steady.any():
            break
    return Survival(step_fs, failed)


@dataclass(slots=True)
class _Runs:
    """Trajectories that are alive, their A atoms concatenated.

    Attributes:
        which: int64 [r], of those that were started.
        sizes: int64 [r], atoms of each.
        numbers: int64 [A].
        positions: float64 [A, 3], angstrom.
        velocities: float64 [A, 3], sqrt(eV / amu).
    """

    which: NDArray[np.int64]
    sizes: NDArray[np.int64]
    numbers: NDArray[np.int64]
    positions: Array
    velocities: Array

    @classmethod
    def start(cls, graphs: Sequence[Graph], seed: int) -> "_Runs":
        """At these places, with velocities of KELVIN."""
        numbers = np.concatenate([graph.species for graph in graphs])
        positions = np.concatenate([graph.positions for graph in graphs]).astype(np.float64)
        thermal = np.sqrt(BOLTZMANN_EV * KELVIN / atomic_masses[numbers])[:, None]
        velocities = thermal * np.random.default_rng(seed).normal(size=positions.shape)
        return cls(np.arange(len(graphs)), np.array([g.n_atoms for g in graphs]), numbers, positions, velocities)

    @property
    def masses(self) -> Array:
        """Amu [A, 1]."""
        return np.asarray(atomic_masses[self.numbers][:, None])

    def kinetic(self) -> Array:
        """Energy of motion of each, eV [r]."""
        each = (0.5 * self.masses * self.velocities**2).sum(axis=1)
        return np.asarray(np.add.reduceat(each, np.cumsum(self.sizes) - self.sizes))

    def molecules(self) -> list[tuple[NDArray[np.int64], Array]]:
        """Numbers and positions of each."""
        ends = np.cumsum(self.sizes)[:-1]
        return list(zip(np.split(self.numbers, ends), np.split(self.positions, ends), strict=True))

    def only(self, kept: NDArray[np.bool_]) -> "_Runs":
        """Those of the mask [r]."""
        atoms = np.repeat(kept, self.sizes)
        return _Runs(
            self.which[kept], self.sizes[kept], self.numbers[atoms], self.positions[atoms], self.velocities[atoms]
        )


@dataclass(frozen=True, slots=True)
class _Bonds:
    """Pairs of atoms [b, 2] and their lengths at the start, angstrom."""

    pairs: NDArray[np.int64]
    lengths: Array

    def hold(self, positions: Array) -> bool:
        """Whether none is torn or crushed."""
        stretch = _lengths(positions, self.pairs) / self.lengths
        return bool(((stretch > STRETCH[0]) & (stretch < STRETCH[1])).all())


def _bonds(positions: Array, numbers: NDArray[np.int64]) -> _Bonds:
    pairs = np.stack(np.triu_indices(len(numbers), 1), axis=1)
    lengths, radii = _lengths(positions, pairs), covalent_radii[numbers]
    bonded = lengths < 1.3 * (radii[pairs[:, 0]] + radii[pairs[:, 1]])
    return _Bonds(pairs[bonded], lengths[bonded])


def _lengths(positions: Array, pairs: NDArray[np.int64]) -> Array:
    return np.asarray(np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1))


def _graph(numbers: NDArray[np.int64], positions: Array, cutoff: float) -> Graph | None:
    """Nothing for atoms that lie in one place or nowhere."""
    try:
        return build_graph(checked_structure(numbers, positions), cutoff)
    except UnderstudyError:
        return None


@torch.no_grad()
def _evaluate(network: HipNN, graphs: Sequence[Graph]) -> tuple[Array, Array]:
    """Mean energy, eV [r], and force, eV/angstrom [A, 3]."""
    answer = network.evaluate(to_batch(list(graphs)))
    return answer.energy.numpy().astype(np.float64).mean(axis=0), answer.forces.numpy().astype(np.float64)
