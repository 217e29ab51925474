"""Ensemble knowledge distillation where true forces exist but only judge: are the teachers' mean forces worth it?

Matin et al., arXiv:2503.14293. Teachers see energies alone; their mean forces label the training frames; a student of
the same architecture learns reference energies and these forces. Beside it: an energy-only network of equal epochs, of
the student's own CPU time and of the CPU time of teachers and student together; the teachers' mean; a student of one
teacher; one for which frames count less where the teachers disagree; one that sees their energies; one of untrained
teachers, which must be worse; one of the true forces. Then dynamics: how long trajectories of each live at a ladder of
time steps.

Networks and trajectories are kept under runs/distillation, so that a comparison goes on where it was stopped.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from scipy.stats import CensoredData, logrank

from benchmarks.ethanol import ethanol
from benchmarks.kept import folder_of, kept, kept_network
from benchmarks.record import Finding
from benchmarks.small_molecules import small_molecules
from benchmarks.survival import LENGTH_FS, TIMES_FS, Survival, survive
from benchmarks.testing_ground import (
    Arm,
    Error,
    Ground,
    Parts,
    energy_and_force_error,
    energy_error,
    errors,
    mean_and_interval,
    trained,
)
from contract.graphs import Graph
from training.batches import LabelledGraphs
from training.evaluation import predict_forces, predict_member_forces
from training.networks.hipnn import HipNN, HipNNConfig
from training.objectives.forces import EnergyForceObjective
from training.objectives.losses import ObjectiveFunction, energy_objective
from training.pipelines.members import stack

TEACHER: Final = "one teacher: energies alone"
STUDENT_CPU: Final = "energies alone, the student's CPU time"
ALL_CPU: Final = "energies alone, CPU time of teachers and student"
COMMITTEE: Final = "the teachers' mean"
STUDENT: Final = "student: reference energies, mean forces"
ONE: Final = "student of one teacher"
WEIGHED: Final = "student: frames weighed by the teachers' agreement"
TAUGHT: Final = "student: teachers' energies, mean forces"
UNTRAINED: Final = "student of untrained teachers"
TRUE: Final = "true forces"
LIVING: Final = (TEACHER, ALL_CPU, COMMITTEE, STUDENT, TRUE)
STEPS_FS: Final = (1.0, 1.5, 2.0, 2.5)

NOTES = """
Energies, with forces that only `true forces` learns from. The same network everywhere (16 features, l = 1), 1 thread.
No choice of weights in another arm sees a true force: students choose by the teachers' forces on validation frames.
Arms of one seed share frames. Mean and half of the 95 % interval over seeds. Ratios are paired by seed. Survival: 1 ps
of NVE from test frames, velocities drawn at 300 K and the same for every arm; a run has failed when a bond leaves 0.6
to 1.6 of its length at the start or the energy drifts by 1 kcal/mol an atom. Shares alive are given each 50 fs.
Log-rank p values compare an arm's runs with those of one teacher of the same seed: two networks, not two methods.
"""


def on_ethanol() -> Finding:
    """Frames of one molecule."""
    return accuracy(ethanol(), teachers=4)


def on_small_molecules() -> Finding:
    """Frames of many molecules, tested on others."""
    return accuracy(small_molecules(), teachers=4, frames=400, epochs=60)


@dataclass(frozen=True, slots=True)
class Trained:
    """A network and the CPU seconds that its training took; of a committee, that of its members."""

    network: HipNN
    cpu_seconds: float


def accuracy(
    ground: Ground,
    teachers: int,
    seeds: Sequence[int] = (0, 1, 2),
    living_seeds: Sequence[int] = (0, 1, 2),
    frames: int = 600,
    epochs: int = 100,
    runs: int = 100,
) -> Finding:
    """Test errors of every arm over paired seeds, and survival for some of them."""
    torch.set_num_threads(1)
    settings = teachers, frames, epochs, ground.network.model_dump(mode="json"), ground.sha256
    folder = folder_of("distillation", ground.name, *settings)
    parts = {seed: ground.parts(frames, frames, seed) for seed in seeds}
    own = {seed: folder / f"seed-{seed}" for seed in seeds}
    made = {seed: networks_of(ground.network, parts[seed], teachers, epochs, seed, own[seed]) for seed in seeds}
    arms = {name: [_measured(made[seed][name], parts[seed].test) for seed in seeds] for name in made[seeds[0]]}
    lives = {
        seed: {
            name: _lives(made[seed][name][0].network, parts[seed].test.graphs[:runs], seed, own[seed] / _slug(name))
            for name in LIVING
        }
        for seed in living_seeds
    }
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
        "survival": {
            "runs": runs,
            "at fs": list(TIMES_FS),
            "by seed": {seed: _compared(each) for seed, each in lives.items()},
        },
        "each seed": arms,
    }
    return Finding(values, f"{ground.about} {NOTES}", list(seeds), {ground.name: ground.sha256})


def networks_of(
    kind: HipNNConfig, parts: Parts, teachers: int, epochs: int, seed: int, folder: Path
) -> dict[str, list[Trained]]:
    """Every arm of one seed, one network each but for the teachers; what is in the folder is not trained again."""

    def one(name: str, objective: ObjectiveFunction, labels: Parts, error: Error, epochs: int, seed: int) -> Trained:
        made = kept_network(
            folder / _slug(name),
            lambda where: trained(kind, objective, labels, error, epochs, seed, f"{name}, {folder.name}", where),
        )
        return Trained(*made)

    def alone(name: str, epochs: int, seed: int = 100 * seed) -> Trained:
        return one(name, energy_objective, parts, energy_error, epochs, seed)

    def student(name: str, labels: Parts) -> Trained:
        objective = EnergyForceObjective(mode="adjoint")
        return one(name, objective, labels, energy_and_force_error, epochs, 100 * seed)

    taught = [alone(f"teacher {k}", epochs, 100 * seed + k) for k in range(teachers)]
    committee = Trained(stack([each.network for each in taught]), sum(each.cpu_seconds for each in taught))
    torch.manual_seed(seed)
    blank = stack([HipNN(kind) for _ in range(teachers)])
    labelled = _labelled(parts, committee.network)
    learnt = student(STUDENT, labelled)
    an_epoch = committee.cpu_seconds / (teachers * epochs)
    own_time = round(learnt.cpu_seconds / an_epoch)
    return {
        TEACHER: taught,
        COMMITTEE: [committee],
        STUDENT: [learnt],
        ONE: [student(ONE, _labelled(parts, taught[0].network))],
        WEIGHED: [student(WEIGHED, _weighed(labelled, committee.network))],
        TAUGHT: [student(TAUGHT, _labelled(parts, committee.network, energies=True))],
        UNTRAINED: [student(UNTRAINED, _labelled(parts, blank))],
        STUDENT_CPU: [alone(STUDENT_CPU, own_time)],
        ALL_CPU: [alone(ALL_CPU, own_time + teachers * epochs)],
        TRUE: [student(TRUE, parts)],
    }


def _measured(networks: Sequence[Trained], test: LabelledGraphs) -> Arm:
    """Errors on test frames, the mean over networks where there are several."""
    each = [errors(one.network, test) | {"CPU s": one.cpu_seconds} for one in networks]
    return {key: float(np.mean([arm[key] for arm in each])) for key in each[0]}


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


def _weighed(labels: Parts, committee: HipNN) -> Parts:
    """Training frames count 1 / (1 + (s / median)^2), s being how far apart the teachers' forces are, in the mean 1."""
    forces = predict_member_forces(committee, labels.train)
    atoms = np.array([graph.n_atoms for graph in labels.train.graphs])
    of_atom = forces.var(axis=0, ddof=1).mean(axis=1)
    variance = np.add.reduceat(of_atom, np.cumsum(atoms) - atoms) / atoms
    weight = 1.0 / (1.0 + variance / np.median(variance))
    return replace(labels, train=replace(labels.train, weight=(weight / weight.mean()).astype(np.float32)[:, None]))


def _ratios(arms: Sequence[Arm], base: Sequence[Arm]) -> dict[str, list[float]]:
    """Errors over those of another arm of the same seed."""
    keys = ("energy RMSE meV", "force RMSE meV/angstrom")
    return mean_and_interval([{key: a[key] / b[key] for key in keys} for a, b in zip(arms, base, strict=True)])


def _lives(network: HipNN, starts: Sequence[Graph], seed: int, folder: Path) -> list[Survival]:
    """Trajectories at every time step."""

    def lived(step: float) -> dict[str, Any]:
        failed = survive(network, starts, step, seed).failed_fs
        return {"failed_fs": [time if np.isfinite(time) else None for time in failed.tolist()]}

    found = {step: kept(folder / f"survival-{len(starts)}-{step:g}fs.json", partial(lived, step)) for step in STEPS_FS}
    return [
        Survival(step, np.array([np.inf if time is None else time for time in each["failed_fs"]]))
        for step, each in found.items()
    ]


def _compared(lives: Mapping[str, Sequence[Survival]]) -> dict[str, list[dict[str, Any]]]:
    """Summaries of every arm, with the log-rank p value against one teacher."""
    return {
        name: [
            mine.summary() | ({} if name == TEACHER else {"p against one teacher": _log_rank(mine, its)})
            for mine, its in zip(each, lives[TEACHER], strict=True)
        ]
        for name, each in lives.items()
    }


def _log_rank(one: Survival, other: Survival) -> float:
    censored = (
        CensoredData.right_censored(np.minimum(each.failed_fs, LENGTH_FS), np.isinf(each.failed_fs))
        for each in (one, other)
    )
    return float(logrank(*censored).pvalue)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
