"""A light student of a learnt committee, taught its atomic energies (Matin et al., doi:10.1039/D5DD00085H).

    A(x)     <- mean atomic energies of the teachers for every cell, once
    cells    <- those of the loop, with the reference's energies and forces, and further ones, at random moments of the
                teachers' own dynamics, with the teachers' energies and forces
    student  <- minimise w_E <E_hat, E> + w_F <F_hat, F> + w_A <A_hat_i, A_i>

The student is a single light network: it gives no spread; its teachers check what is doubtful (service/teachers.py).
"""

from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console

from contract.structures import Structure
from training import processes
from training.active.committee import NetworkCommittee
from training.checkpoint import HipNNRun, load_run, save_run
from training.data.checks import require_known
from training.data.dataset import Dataset, concatenate
from training.data.extxyz import read_extxyz
from training.data.provenance import Provenance
from training.data.splits import Split
from training.evaluation import save_predictions
from training.fit import FitConfig
from training.networks.hipnn import HipNNConfig
from training.objectives.atomic_energies import AtomicEnergyObjective
from training.pipelines.learning import learned_parts, write_labelled, write_properties
from training.pipelines.members import cpu_seconds, train_apart
from training.pipelines.metal import Metal, MetalConfig, force_and_energy_error
from training.pipelines.preparation import Prepared
from training.record import run_record
from training.simulators.committee import CommitteeReference
from training.simulators.references import opened

TAUGHT: Final = "taught.extxyz"
_OTHER_STARTS: Final = 500_000  # added to the seed: not the cells that the loop and its held-out frames started from


class TeacherStudentConfig(BaseModel):
    """A student of a committee that active learning trained. Serialised as YAML in training/configs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: Literal["teacher_student"] = "teacher_student"
    name: str
    purpose: str
    teacher: str = Field(description="name of its run, which lies beside the student's")
    network: HipNNConfig
    objective: AtomicEnergyObjective = AtomicEnergyObjective()
    taught_cells: int = Field(0, ge=0, description="cells of the teachers' own dynamics that they label")
    fit: FitConfig = FitConfig()


def train_taught(config: TeacherStudentConfig, folder: Path) -> HipNNRun:
    """Train the student of the run that lies beside `folder` under the teacher's name, and save it in `folder`."""
    teacher, learned = _teacher(folder.parent / config.teacher)
    if config.taught_cells and processes.is_first() and not (folder / TAUGHT).exists():
        with Console(stderr=True).status(f"{config.name}: the teachers make and label further cells"):
            structures = taught_cells(teacher, learned, config.taught_cells, config.fit.seed)
            write_labelled(structures, _as_reference(teacher).label(structures), folder / TAUGHT)
    processes.wait_for_the_first()
    prepared = taught_parts(config, folder)
    require_known(prepared.dataset, config.network.elements)
    train = replace(
        prepared.graphs("train", config.network.cutoff_angstrom),
        atomic_energy=_as_reference(teacher).atomic_energies(list(prepared.part("train"))),
    )
    valid = prepared.graphs("valid", config.network.cutoff_angstrom)
    title, value = f"training {config.name}", force_and_energy_error(valid, config.fit.device)
    network, history = train_apart(config.network, config.objective, train, value, config.fit, folder, title)
    record = run_record(config, prepared, history) | {"cpu_seconds": cpu_seconds(history)}
    run = HipNNRun(network, prepared.references, record)
    save_run(folder, run)
    save_predictions(folder, run.network, prepared)
    if learned.validation is not None and processes.is_first():
        write_properties(learned, run, opened(learned.reference), folder)
    return run


def taught_parts(config: TeacherStudentConfig, folder: Path) -> Prepared:
    """The student's data, parted: the teacher's, and further cells to train on where there are any."""
    teacher, learned = _teacher(folder.parent / config.teacher)
    prepared = learned_parts(learned, folder.parent / config.teacher, teacher.references)
    return _with_further(prepared, _taught(config, learned, folder)) if config.taught_cells else prepared


def taught_cells(teacher: HipNNRun, learned: MetalConfig, count: int, seed: int) -> list[Structure]:
    """Cells, at random moments, of the teachers' own dynamics from disordered starts.

    Raises:
        NoSurvivor: all trajectories end with atoms too close.
    """
    return Metal(learned).frames_by_chance(NetworkCommittee(teacher.network), count, seed + _OTHER_STARTS)


def _teacher(folder: Path) -> tuple[HipNNRun, MetalConfig]:
    teacher = load_run(folder)
    return teacher, MetalConfig.model_validate(teacher.record["config"])


def _as_reference(teacher: HipNNRun) -> CommitteeReference:
    config = teacher.record["config"]
    method = f"mean of the committee {config['name']} of {teacher.network.config.members} networks"
    return CommitteeReference(teacher.network, teacher.references, method)


def _taught(config: TeacherStudentConfig, learned: MetalConfig, folder: Path) -> Dataset:
    teacher = f"the committee {config.teacher}"
    declared = Provenance(
        name=f"{config.name}, cells labelled by {teacher}",
        origin=f"random moments of the dynamics of {teacher}",
        licence=learned.provenance.licence,
        level_of_theory=f"mean of {teacher}, which learnt from {learned.provenance.level_of_theory}",
        citation=learned.provenance.citation,
    )
    return read_extxyz(folder / TAUGHT, declared)


def _with_further(prepared: Prepared, further: Dataset) -> Prepared:
    dataset, known = concatenate([prepared.dataset, further]), prepared.split
    train = np.concatenate([known.train, len(prepared.dataset) + np.arange(len(further))])
    method = f"{known.method}; the student is also trained on cells that its teachers labelled"
    parts = Split(train, known.valid, known.test, len(dataset), 1, known.seed, method)
    return Prepared(dataset, parts, prepared.references)
