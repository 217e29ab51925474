"""A light student with and without its teachers' atomic energies, at equal steps, and what it saves.

Matin et al., Digital Discovery (2025), doi:10.1039/D5DD00085H, scaled down: the teacher is the committee that
`understudy learn training/configs/aluminium-small.yaml` left in runs/aluminium; the student has the network, the fit
and the further cells of training/configs/aluminium-student-small.yaml, whose run must be there too.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.intervals import half_width_95
from benchmarks.record import Finding
from benchmarks.structures import aluminium
from contract.graphs import build_graph, collate
from contract.repository import ModelRepository, StoredModel, sha256_of
from training.batches import LabelledGraphs
from training.checkpoint import HipNNRun, load_run
from training.evaluation import predict_forces
from training.gate.engines import onnx_engine
from training.networks.hipnn import HipNN
from training.pipelines.learning import learned_parts
from training.pipelines.members import train_member
from training.pipelines.metal import MetalConfig, force_and_energy_error
from training.pipelines.preparation import Prepared
from training.pipelines.registry import read_config
from training.pipelines.teacher_student import TeacherStudentConfig, taught_parts
from training.simulators.committee import CommitteeReference

CONFIG: Final = Path(__file__).parents[1] / "training" / "configs" / "aluminium-student-small.yaml"
RUNS: Final = Path("runs")
MODELS: Final = Path("model_repo")
SEEDS: Final = (1, 2, 3)
ALONE: Final = "energies + forces"
TAUGHT: Final = "energies + forces + atomic energies"
SHUFFLED: Final = "the same, atomic energies shuffled within each cell"
FURTHER: Final = "energies + forces + atomic energies, and the cells that the teachers labelled"
CELLS: Final = (3, 5)  # 108 and 500 atoms
ROUNDS: Final = 12
NOTES: Final = """
Held-out frames: random moments of trajectories that the reference drove. Arms of one seed share initial weights and the
number of steps; with further cells an epoch is longer, and there are fewer. Differences are paired by seed, with a 95 %
interval by Student's t. The teacher was fitted to the same cells. Speed and memory are of the published models
`aluminium` and `aluminium-student` on one thread: CPU time of the neighbour list and of the engine for one step of a
rattled crystal, smallest of interleaved rounds; memory as their cards state it, of one call beside the loaded model.
"""


def run() -> Finding:
    """Errors of every arm and seed, paired differences, the teacher's errors, speed and memory."""
    torch.set_num_threads(1)
    config = read_config(CONFIG)
    if not isinstance(config, TeacherStudentConfig):
        raise TypeError(f"{CONFIG} is not a student's")
    folder = RUNS / config.teacher
    teacher = load_run(folder)
    learned = MetalConfig.model_validate(teacher.record["config"])
    prepared = learned_parts(learned, folder, teacher.references)
    arms = _arms(config, teacher, prepared)
    test = prepared.graphs("test", config.network.cutoff_angstrom)
    by_seed = [{arm: _errors(_student(config, arm, arms, prepared, seed), test) for arm in arms} for seed in SEEDS]
    values = {
        "teacher": _errors(teacher.network, prepared.graphs("test", teacher.network.config.cutoff_angstrom)),
        "mean over seeds": {arm: _means([found[arm] for found in by_seed]) for arm in arms},
        f"difference from {ALONE}": {arm: _paired(by_seed, arm) for arm in arms if arm != ALONE},
        "by seed": by_seed,
        "speed and memory": _costs(config),
    }
    digests = {name: sha256_of(folder / name) for name in ("frames.extxyz", "held-out.extxyz", "weights.safetensors")}
    return Finding(values, NOTES, [*SEEDS], digests)


def _arms(config: TeacherStudentConfig, teacher: HipNNRun, prepared: Prepared) -> dict[str, LabelledGraphs]:
    """Training graphs of each arm."""
    cutoff, reference = config.network.cutoff_angstrom, CommitteeReference(teacher.network, teacher.references, "")
    cells = prepared.part("train")
    plain = prepared.graphs("train", cutoff)
    atomic = reference.atomic_energies(list(cells))
    rng = np.random.default_rng(0)
    further = taught_parts(config, RUNS / config.name)
    more = further.graphs("train", cutoff)
    return {
        ALONE: plain,
        TAUGHT: replace(plain, atomic_energy=atomic),
        SHUFFLED: replace(plain, atomic_energy=[rng.permutation(values) for values in atomic]),
        FURTHER: replace(more, atomic_energy=reference.atomic_energies(list(further.part("train")))),
    }


def _student(
    config: TeacherStudentConfig, arm: str, arms: Mapping[str, LabelledGraphs], prepared: Prepared, seed: int
) -> HipNN:
    """One student; as many steps in every arm."""
    train = arms[arm]
    epochs = round(config.fit.max_epochs * len(arms[ALONE]) / len(train))
    how = config.fit.model_copy(update={"seed": seed, "max_epochs": epochs})
    objective = replace(config.objective, atomic_weight=0.0) if arm == ALONE else config.objective
    valid = prepared.graphs("valid", config.network.cutoff_angstrom)
    with TemporaryDirectory() as folder:
        title, value = f"{arm}, seed {seed}", force_and_energy_error(valid, how.device)
        network, _ = train_member(0, config.network, objective, train, value, how, Path(folder), title)
    return network


def _errors(network: HipNN, test: LabelledGraphs) -> dict[str, float]:
    answer, forces = predict_forces(network, test)
    atoms = np.array([graph.n_atoms for graph in test.graphs])
    energy, off = 1e3 * answer.error / atoms, 1e3 * (forces - np.concatenate(test.forces or []))
    return {
        "energy MAE meV/atom": float(np.abs(energy).mean()),
        "energy RMSE meV/atom": float(np.sqrt((energy**2).mean())),
        "force MAE meV/angstrom": float(np.abs(off).mean()),
        "force RMSE meV/angstrom": float(np.sqrt((off**2).mean())),
    }


def _means(found: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([entry[name] for entry in found])) for name in found[0]}


def _paired(by_seed: Sequence[Mapping[str, Mapping[str, float]]], arm: str) -> dict[str, Any]:
    """Mean difference of each error and its 95 % interval; below zero the arm is better."""
    found = {}
    for name in by_seed[0][arm]:
        gap = np.array([errors[arm][name] - errors[ALONE][name] for errors in by_seed])
        mean, half = float(gap.mean()), half_width_95(gap)
        found[name] = {"mean": mean, "interval 95 %": [mean - half, mean + half]}
    return found


def _costs(config: TeacherStudentConfig) -> dict[str, Any]:
    """Of the published teacher and student, and their ratio; empty where they are not in the repository."""
    repository = ModelRepository(MODELS)
    names = (config.teacher, config.name)
    if not all(repository.versions(name) for name in names):
        return {}
    stored = [repository.load(name) for name in names]
    return {f"{len(aluminium(cells))} atoms": _cost(stored, cells) for cells in CELLS}


def _cost(stored: Sequence[StoredModel], cells: int) -> dict[str, Any]:
    structure = aluminium(cells)
    engines = [onnx_engine(each.file("model.onnx")) for each in stored]
    cutoffs = [each.potential_card.domain.cutoff_angstrom for each in stored]
    best = np.full((len(stored), 2), np.inf)
    for _ in range(ROUNDS):
        for m, (engine, cutoff) in enumerate(zip(engines, cutoffs, strict=True)):
            start = time.process_time()
            inputs = collate([build_graph(structure, cutoff)])
            middle = time.process_time()
            engine(inputs)
            best[m] = np.minimum(best[m], [middle - start, time.process_time() - middle])
    step = 1e3 * best.sum(axis=1)
    memory = [_memory_mib(each, structure, c) for each, c in zip(stored, cutoffs, strict=True)]
    return {
        "step ms": dict(zip(("teacher", "student"), step.tolist(), strict=True)),
        "engine ms": dict(zip(("teacher", "student"), (1e3 * best[:, 1]).tolist(), strict=True)),
        "memory of a call MiB": dict(zip(("teacher", "student"), memory, strict=True)),
        "times faster": float(step[0] / step[1]),
        "times less memory": memory[0] / memory[1],
    }


def _memory_mib(stored: StoredModel, structure: Any, cutoff: float) -> float:
    memory = stored.card.batching.memory["model.onnx"]
    slots: NDArray[Any] = collate([build_graph(structure, cutoff)])["neighbours"]
    return (memory.bytes_per_slot * slots.size + memory.bytes_per_atom * len(structure)) / 2**20
