"""Light students of a molecule with and without their teachers' atomic energies, at equal steps.

Matin et al., Digital Discovery (2025), doi:10.1039/D5DD00085H, scaled down: ethanol, energies and forces. Beside
benchmarks/atomic_energies.py, which asks the same of aluminium.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.atomic_energies import ALONE, SHUFFLED, TAUGHT
from benchmarks.ethanol import NETWORK, ethanol
from benchmarks.record import Finding
from benchmarks.testing_ground import Arm, Parts, energy_and_force_error, errors, mean_and_interval, trained
from training.batches import LabelledGraphs
from training.networks.hipnn import HipNN
from training.objectives.atomic_energies import AtomicEnergyObjective
from training.objectives.forces import EnergyForceObjective
from training.pipelines.members import stack

TEACHER: Final = "teachers' mean"
LIGHT: Final = NETWORK.model_copy(update={"features": 6, "sensitivities": 10, "interaction_layers": 1})
NOTES: Final = """
Ethanol of QM-22 (B3LYP, energies and forces), parts without near duplicates, 1 thread. Teachers: HIP-NN-TS of 16
features and two interaction layers on energies and forces. Students: six features, one interaction layer; those of one
seed share frames, initial weights and steps. Mean and half of the 95 % interval over seeds; differences are paired by
seed, below zero the teachers' atomic energies help.
"""


def run(seeds: Sequence[int] = (1, 2, 3), teachers: int = 2, frames: int = 300, epochs: int = 50) -> Finding:
    """Test errors of the teachers and of every student over paired seeds."""
    torch.set_num_threads(1)
    ground = ethanol()
    by_seed = [_arms(ground.parts(frames, frames, seed), teachers, epochs, seed) for seed in seeds]
    arms = {name: [found[name] for found in by_seed] for name in by_seed[0]}
    gaps = {
        name: [{key: arm[key] - alone[key] for key in arm} for arm, alone in zip(arms[name], arms[ALONE], strict=True)]
        for name in (TAUGHT, SHUFFLED)
    }
    values = {
        "teachers": teachers,
        "training frames": frames,
        "epochs": epochs,
        "mean and 95 % interval over seeds": {name: mean_and_interval(each) for name, each in arms.items()},
        f"difference from {ALONE}": {name: mean_and_interval(each) for name, each in gaps.items()},
        "by seed": by_seed,
    }
    return Finding(values, NOTES, list(seeds), {"ethanol": ground.sha256})


def _arms(parts: Parts, teachers: int, epochs: int, seed: int) -> dict[str, Arm]:
    """Train the teachers and all students of one seed; their test errors."""
    objective = EnergyForceObjective(mode="adjoint")

    def teacher(k: int) -> HipNN:
        title = f"teacher {k}, seed {seed}"
        return trained(NETWORK, objective, parts, energy_and_force_error, epochs, 100 * seed + k, title)[0]

    committee = stack([teacher(k) for k in range(teachers)])
    atomic, rng = _atomic_energies(committee, parts.train), np.random.default_rng(seed)
    shuffled = [rng.permutation(values) for values in atomic]
    return {
        TEACHER: errors(committee, parts.test),
        ALONE: _student(parts, None, epochs, seed, ALONE),
        TAUGHT: _student(parts, atomic, epochs, seed, TAUGHT),
        SHUFFLED: _student(parts, shuffled, epochs, seed, SHUFFLED),
    }


def _student(parts: Parts, atomic: list[NDArray[np.float32]] | None, epochs: int, seed: int, name: str) -> Arm:
    labels = replace(parts, train=replace(parts.train, atomic_energy=atomic))
    objective = AtomicEnergyObjective(atomic_weight=0.0 if atomic is None else 1.0)
    network, _ = trained(LIGHT, objective, labels, energy_and_force_error, epochs, seed, f"{name}, seed {seed}")
    return errors(network, parts.test)


@torch.no_grad()
def _atomic_energies(committee: HipNN, graphs: LabelledGraphs) -> list[NDArray[np.float32]]:
    """Mean atomic energies of each frame, eV, atomic references subtracted."""
    found = [committee.evaluate(batch).atomic_energy.mean(dim=0).numpy() for batch, _ in graphs.batches(64)]
    return np.split(np.concatenate(found), np.cumsum([graph.n_atoms for graph in graphs.graphs])[:-1])
