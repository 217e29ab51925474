"""Whom a student learnt from, as its card names it: the published model, and how far the two are apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard, Teacher, TeacherGap
from contract.errors import RepositoryError
from contract.graphs import build_graph, collate
from contract.repository import ModelRepository
from contract.structures import Structure
from training.candidate import Candidate, reference_energies
from training.gate.engines import onnx_engine

RARE: Final = 0.95
_BATCH: Final = 64


def teacher_of(candidate: Candidate, graph: Path, repository: ModelRepository) -> Teacher | None:
    """The teacher of a candidate as it is published, with the gap on the candidate's test part.

    Args:
        candidate: it may have been distilled from another run.
        graph: the candidate's exported model.onnx.
        repository: in which the teacher is looked for.

    Returns:
        None if it was not distilled, or its teacher is not in the repository as it was when it taught.
    """
    if candidate.taught_by is None:
        return None
    try:
        stored = repository.load(candidate.taught_by.name)
    except RepositoryError:
        return None
    if stored.card.training.config_sha256 != candidate.taught_by.config_sha256:
        return None
    student = answers(graph, candidate.test.structures, candidate.domain.cutoff_angstrom, candidate.references)
    teacher = answers_of_published(stored.potential_card, stored.file("model.onnx"), candidate.test.structures)
    gap = gap_between(student, teacher)
    return Teacher(name=stored.card.name, version=stored.card.version, digest=stored.digest, gap=gap)


Answers = tuple[NDArray[np.float64], list[NDArray[np.float64]]]
"""Energies, eV [n], and the forces of each structure, eV/angstrom [n_i, 3]."""


def answers_of_published(card: ModelCard, graph: Path, structures: Sequence[Structure]) -> Answers:
    """What a published model says of structures."""
    return answers(graph, structures, card.domain.cutoff_angstrom, card.atomic_reference_ev)


def answers(graph: Path, structures: Sequence[Structure], cutoff: float, references: dict[str, float]) -> Answers:
    """What an exported graph says of structures, with the atomic references (eV per element)."""
    engine = onnx_engine(graph)
    energies, forces = [], list[NDArray[np.float64]]()
    for start in range(0, len(structures), _BATCH):
        part = structures[start : start + _BATCH]
        outputs = engine(collate([build_graph(structure, cutoff) for structure in part]))
        energies.append(outputs["energy"].mean(axis=0))
        ends = np.cumsum([len(structure) for structure in part])[:-1]
        forces += np.split(np.asarray(outputs["forces"], np.float64), ends)
    return np.concatenate(energies) + reference_energies(structures, references), forces


def gap_between(student: Answers, teacher: Answers) -> TeacherGap:
    """How far a student is from its teacher: the mean over structures, and what one in twenty exceeds."""
    atoms = np.array([len(forces) for forces in student[1]])
    energy = np.abs(student[0] - teacher[0]) / atoms
    pairs = zip(student[1], teacher[1], strict=True)
    forces = np.array([np.sqrt(np.mean((mine - its) ** 2)) for mine, its in pairs])
    return TeacherGap(
        energy_ev_per_atom=float(energy.mean()),
        forces_ev_angstrom=float(forces.mean()),
        energy_bound_ev_per_atom=float(np.quantile(energy, RARE)),
        forces_bound_ev_angstrom=float(np.quantile(forces, RARE)),
        count=len(atoms),
    )
