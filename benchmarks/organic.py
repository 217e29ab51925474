"""The shipped model `organic` on two public molecules, beside the ANI-1ccx networks that it was distilled from.

Neither file had a part in its making; both hold density-functional energies and forces at 300 K (BOTNet-datasets, MIT).
What the student owes to its teachers and what they owe to these labels is told apart by a third row: student beside
teachers, on the same frames.
"""

from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.record import Finding
from contract.repository import ModelRepository, sha256_of
from training.assessment.judged import Judged, ask, judged
from training.assessment.labelled import Reading, read_labelled
from training.simulators.ani import AniReference

EnergyForces = tuple[NDArray[np.float64], NDArray[np.float64]]
"""eV [n] and eV/angstrom [A, 3]."""

DATA: Final = Path(__file__).parents[2] / "shared" / "data"
FILES: Final = {
    "3BPA, 300 K": DATA / "botnet" / "3bpa_train_300K.xyz.gz",
    "acetylacetone, 300 K": DATA / "botnet" / "acac_train_300K.xyz.gz",
}
TEACHERS: Final = DATA / "ani_models" / "ani-1ccx_8x.tar.gz"
MODELS: Final = Path(__file__).parents[1] / "model_repo"
NOTES: Final = """
Mean absolute errors. Energies have other zeros at other levels of theory: one constant is taken off for each molecule.
3BPA is labelled by wB97X/6-31G(d), acetylacetone by PBE-D3/def2-SVP, the teachers reproduce CCSD(T)*/CBS: part of what
the first two rows hold is the distance of these levels. All frames of a file are of one molecule.
"""


def run() -> Finding:
    """Errors of student and teachers on every file, and of the student beside its teachers."""
    if missing := [str(path) for path in (*FILES.values(), TEACHERS) if not path.exists()]:
        raise SystemExit(
            f"not measured, these files are missing: {', '.join(missing)}. They are dataset_3BPA and dataset_acac of "
            "github.com/davkovacs/BOTNet-datasets, and the ANI-1ccx ensemble of TorchANI's repository."
        )
    torch.set_num_threads(1)
    student, teachers = judged("organic", ModelRepository(MODELS)), AniReference(TEACHERS)
    values = {name: _compared(student, teachers, path) for name, path in FILES.items()}
    files = {name: sha256_of(path) for name, path in {**FILES, "ani-1ccx": TEACHERS}.items()}
    return Finding({"model": student.name, **values}, NOTES, digests=files | {"organic": student.digest})


def _compared(student: Judged, teachers: AniReference, path: Path) -> dict[str, dict[str, float]]:
    labelled = read_labelled(path, Reading()).dataset
    truth = (labelled.energy, np.zeros(0) if labelled.forces is None else labelled.forces)
    structures = list(labelled)
    answers, labels = ask(student, structures), teachers.label(structures)
    said, taught = (answers.energy, answers.forces), (labels.energy, labels.forces)
    return {
        "student": _errors(said, truth),
        "teachers": _errors(taught, truth),
        "student beside teachers": _errors(said, taught),
    }


def _errors(said: EnergyForces, truth: EnergyForces) -> dict[str, float]:
    energy = said[0] - truth[0]
    return {
        "frames": len(energy),
        "energy, one constant off: MAE meV": 1e3 * float(np.abs(energy - energy.mean()).mean()),
        "force component: MAE meV/angstrom": 1e3 * float(np.abs(said[1] - truth[1]).mean()),
    }
