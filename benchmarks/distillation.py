"""Ensemble knowledge distillation where true forces exist but only judge: are the teachers' mean forces worth it?

Matin et al., arXiv:2503.14293. Teachers see energies alone; their mean forces label the training frames; a student of
the same architecture learns reference energies and these forces. Beside it: an energy-only network of equal epochs, of
the student's own CPU time and of the CPU time of teachers and student together; the teachers' mean; a student of one
teacher; one that sees the teachers' energies; one of untrained teachers, which must be worse; one of the true forces.
Then dynamics: how long trajectories of each live at a ladder of time steps.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch

from benchmarks.ethanol import (
    NETWORK,
    Arm,
    Parts,
    energy_and_force_error,
    energy_error,
    errors,
    mean_and_interval,
    parts_of,
    read_ethanol,
    trained,
)
from benchmarks.record import Finding
from benchmarks.survival import Survival, survive
from training.batches import LabelledGraphs
from training.evaluation import predict_forces
from training.fit import Epoch
from training.networks.hipnn import HipNN
from training.objectives.forces import EnergyForceObjective
from training.objectives.losses import energy_objective
from training.pipelines.members import stack

TEACHER: Final = "one teacher: energies alone"
STUDENT_CPU: Final = "energies alone, the student's CPU time"
ALL_CPU: Final = "energies alone, CPU time of teachers and student"
COMMITTEE: Final = "the teachers' mean"
STUDENT: Final = "student: reference energies, mean forces"
ONE: Final = "student of one teacher"
TAUGHT: Final = "student: teachers' energies, mean forces"
UNTRAINED: Final = "student of untrained teachers"
TRUE: Final = "true forces"
LIVING: Final = (TEACHER, ALL_CPU, COMMITTEE, STUDENT, TRUE)
STEPS_FS: Final = (1.0, 2.0)

NOTES = """
Ethanol of QM-22 (B3LYP, energies with forces that only `true forces` learns from), parts without near duplicates, the
same network everywhere (16 features, l = 1), 1 thread. No choice of weights in another arm sees a true force: students
choose by the teachers' forces on validation frames. Arms of one seed share frames. Mean and half of the 95 % interval
over seeds. Ratios are paired by seed. Survival: NVE from test frames, velocities drawn at 300 K and the same for every
arm; a run has failed when a bond leaves 0.6 to 1.6 of its length at the start or the energy drifts by 1 kcal/mol an
atom.
"""


def accuracy(
    seeds: Sequence[int] = (0, 1, 2), teachers: int = 4, frames: int = 600, epochs: int = 100, runs: int = 50
) -> Finding:
    """Test errors and survival of every arm over paired seeds."""
    torch.set_num_threads(1)
    dataset = read_ethanol()
    arms: dict[str, list[Arm]] = {}
    lives: dict[str, list[Survival]] = {}
    for seed in seeds:
        parts = parts_of(dataset, frames, frames, seed)
        for name, (network, arm) in arms_of(parts, teachers, epochs, seed).items():
            arms.setdefault(name, []).append(arm)
            if name in LIVING and seed in seeds[:1]:
                lives[name] = [survive(network, parts.test, runs, step, seed) for step in STEPS_FS]
    values = {
        "teachers": teachers,
        "training frames": frames,
        "test frames": frames,
        "epochs": epochs,
        "mean and 95 % interval over seeds": {name: mean_and_interval(each) for name, each in arms.items()},
        "over one teacher, paired": {name: _ratios(each, arms[TEACHER]) for name, each in arms.items()},
        "over energies alone at the CPU time of teachers and student, paired": {
            name: _ratios(each, arms[ALL_CPU]) for name, each in arms.items()
        },
        f"survival, {runs} runs, first seed": {name: [s.summary() for s in each] for name, each in lives.items()},
        "each seed": arms,
    }
    digests = {"ethanol": dataset.sources[0].sha256}
    return Finding(values, NOTES, list(seeds), digests)


def arms_of(parts: Parts, teachers: int, epochs: int, seed: int) -> dict[str, tuple[HipNN, Arm]]:
    """Train everything of one seed; the errors of one teacher are the mean over all of them."""

    def alone(epochs: int, seed: int, name: str) -> tuple[HipNN, list[Epoch]]:
        return trained(energy_objective, parts, energy_error, epochs, seed, f"{name}, seed {seed}")

    def student(labels: Parts, name: str) -> tuple[HipNN, list[Epoch]]:
        objective = EnergyForceObjective(mode="adjoint")
        return trained(objective, labels, energy_and_force_error, epochs, 100 * seed, f"{name}, seed {seed}")

    taught = [alone(epochs, 100 * seed + k, TEACHER) for k in range(teachers)]
    committee = stack([network for network, _ in taught])
    torch.manual_seed(seed)
    blank = stack([HipNN(NETWORK) for _ in range(teachers)])
    runs = {
        STUDENT: student(_labelled(parts, committee), STUDENT),
        ONE: student(_labelled(parts, taught[0][0]), ONE),
        TAUGHT: student(_labelled(parts, committee, energies=True), TAUGHT),
        UNTRAINED: student(_labelled(parts, blank), UNTRAINED),
        TRUE: student(parts, TRUE),
    }
    an_epoch = sum(history[-1].cpu_seconds for _, history in taught) / (teachers * epochs)
    spent = runs[STUDENT][1][-1].cpu_seconds
    runs[STUDENT_CPU] = alone(round(spent / an_epoch), 100 * seed, STUDENT_CPU)
    runs[ALL_CPU] = alone(round(spent / an_epoch) + teachers * epochs, 100 * seed, ALL_CPU)
    arms = {name: (network, _measured(network, history, parts)) for name, (network, history) in runs.items()}
    each = [_measured(network, history, parts) for network, history in taught]
    mean = {key: float(np.mean([arm[key] for arm in each])) for key in each[0]}
    together = errors(committee, parts.test) | {"CPU s": sum(arm["CPU s"] for arm in each)}
    return {TEACHER: (taught[0][0], mean), COMMITTEE: (committee, together), **arms}


def _measured(network: HipNN, history: list[Epoch], parts: Parts) -> Arm:
    return errors(network, parts.test) | {"CPU s": history[-1].cpu_seconds}


def _labelled(parts: Parts, teacher: HipNN, *, energies: bool = False) -> Parts:
    """The parts to learn from with a teacher's forces instead of the true ones; the test part as it is."""
    return replace(
        parts,
        train=_taught(parts.train, teacher, energies=energies),
        valid=_taught(parts.valid, teacher, energies=energies),
    )


def _taught(graphs: LabelledGraphs, teacher: HipNN, *, energies: bool) -> LabelledGraphs:
    predicted, forces = predict_forces(teacher, graphs)
    ends = np.cumsum([graph.n_atoms for graph in graphs.graphs])[:-1]
    energy = predicted.energy.mean(axis=0).astype(np.float64) if energies else graphs.energy
    return replace(graphs, forces=np.split(forces, ends), energy=energy)


def _ratios(arms: Sequence[Arm], base: Sequence[Arm]) -> dict[str, list[float]]:
    """Errors over those of another arm of the same seed."""
    keys = ("energy RMSE meV", "force RMSE meV/angstrom")
    return mean_and_interval([{key: a[key] / b[key] for key in keys} for a, b in zip(arms, base, strict=True)])
