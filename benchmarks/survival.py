"""How long molecular dynamics lives on a potential: constant energy, many runs side by side, until something breaks."""

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
from training.batches import LabelledGraphs, to_batch
from training.networks.hipnn import HipNN
from training.sampling.langevin import BOLTZMANN_EV, FS_IN_ASE

LENGTH_FS: Final = 1000.0
KELVIN: Final = 300.0
STRETCH: Final = (0.6, 1.6)
DRIFT_EV: Final = KCAL_MOL_EV  # an atom


@dataclass(frozen=True, slots=True)
class Survival:
    """When each run failed, in fs; infinity for those that lived to the end."""

    step_fs: float
    failed_fs: NDArray[np.float64]

    def summary(self) -> dict[str, Any]:
        """Share alive at quarters of the time (Kaplan and Meier's estimate, as nobody leaves early), and the median."""
        quarters = [0.25, 0.5, 0.75, 1.0]
        alive = {f"alive at {q * LENGTH_FS:g} fs": float((self.failed_fs > q * LENGTH_FS).mean()) for q in quarters}
        median = float(np.median(self.failed_fs))
        return {"step fs": self.step_fs, **alive, "median fs": median if np.isfinite(median) else f"> {LENGTH_FS:g}"}


def survive(network: HipNN, frames: LabelledGraphs, runs: int, step_fs: float, seed: int) -> Survival:
    """NVE trajectories of one kind of molecule from the first frames, velocities of the seed.

    Args:
        network: one network or a committee, which moves on its mean force.
        frames: at least `runs`, all of the same atoms.
        runs: trajectories.
        step_fs: of velocity Verlet.
        seed: of the velocities.
    """
    graphs = frames.graphs[:runs]
    numbers, cutoff = graphs[0].species, network.config.cutoff_angstrom
    positions = np.stack([graph.positions for graph in graphs]).astype(np.float64)
    mass = atomic_masses[numbers][:, None]
    velocities = np.sqrt(BOLTZMANN_EV * KELVIN / mass) * np.random.default_rng(seed).normal(size=positions.shape)
    bonds = [_bonds(each, numbers) for each in positions]
    alive, failed = np.arange(runs), np.full(runs, np.inf)
    energy, force = _evaluate(network, graphs)
    start, dt = energy + _kinetic(velocities, mass), step_fs * FS_IN_ASE
    for step in range(1, round(LENGTH_FS / step_fs) + 1):
        velocities += 0.5 * dt * force / mass
        positions += dt * velocities
        found = [_graph(each, numbers, cutoff) for each in positions]
        fit = [g is not None and bonds[k].hold(x) for k, g, x in zip(alive, found, positions, strict=True)]
        whole = np.array(fit, dtype=bool)
        failed[alive[~whole]] = step * step_fs
        alive, positions, velocities = alive[whole], positions[whole], velocities[whole]
        if not len(alive):
            break
        energy, force = _evaluate(network, [graph for graph, w in zip(found, whole, strict=True) if w and graph])
        velocities += 0.5 * dt * force / mass
        steady = np.abs(energy + _kinetic(velocities, mass) - start[alive]) < DRIFT_EV * len(numbers)
        failed[alive[~steady]] = step * step_fs
        alive, positions, velocities, force = alive[steady], positions[steady], velocities[steady], force[steady]
    return Survival(step_fs, failed)


@dataclass(frozen=True, slots=True)
class _Bonds:
    """Pairs of atoms [b, 2] and their lengths at the start, angstrom."""

    pairs: NDArray[np.int64]
    lengths: NDArray[np.float64]

    def hold(self, positions: NDArray[np.float64]) -> bool:
        """Whether none is torn or crushed."""
        stretch = _lengths(positions, self.pairs) / self.lengths
        return bool(((stretch > STRETCH[0]) & (stretch < STRETCH[1])).all())


def _bonds(positions: NDArray[np.float64], numbers: NDArray[np.int64]) -> _Bonds:
    pairs = np.stack(np.triu_indices(len(numbers), 1), axis=1)
    lengths, radii = _lengths(positions, pairs), covalent_radii[numbers]
    bonded = lengths < 1.3 * (radii[pairs[:, 0]] + radii[pairs[:, 1]])
    return _Bonds(pairs[bonded], lengths[bonded])


def _lengths(positions: NDArray[np.float64], pairs: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(positions[pairs[:, 0]] - positions[pairs[:, 1]], axis=1))


def _graph(positions: NDArray[np.float64], numbers: NDArray[np.int64], cutoff: float) -> Graph | None:
    """Nothing for atoms that lie in one place or nowhere."""
    try:
        return build_graph(checked_structure(numbers, positions), cutoff)
    except UnderstudyError:
        return None


@torch.no_grad()
def _evaluate(network: HipNN, graphs: list[Graph]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean energy, eV [n], and force, eV/angstrom [n, atoms, 3]."""
    answer = network.evaluate(to_batch(graphs))
    energy = answer.energy.numpy().astype(np.float64).mean(axis=0)
    return energy, answer.forces.numpy().astype(np.float64).reshape(len(graphs), -1, 3)


def _kinetic(velocities: NDArray[np.float64], mass: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (mass * velocities**2).sum(axis=(1, 2)))
