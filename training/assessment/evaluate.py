"""One model on labelled files: errors by size, formula, element and kind, with intervals, and its calibration."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.elements import SYMBOLS, hill_formula
from training.assessment.bootstrap import Errors, Sums, draws, errors
from training.assessment.judged import Answers, Judged, ask
from training.assessment.labelled import Labelled, Reading, answerable, read_labelled
from training.calibration import NOMINAL, calibration_scale, coverage, rank_correlation
from training.data.dataset import Dataset, concatenate

SIZES: Final = (1, 6, 11, 21, 41, 81)
_MOST_FORMULAS: Final = 12
_FEWEST_MOLECULES: Final = 10
_MILLI: Final = 1e3

Array = NDArray[np.float64]
Text = NDArray[np.str_]


class Group(NamedTuple):
    """Frames or atoms of one kind: meV a frame, meV an atom, meV/angstrom a component; NaN where there are none."""

    name: str
    frames: int
    energy_mae: float
    energy_rmse: float
    per_atom_mae: float
    forces_mae: float
    forces_rmse: float


class Spread(NamedTuple):
    """How often the truth lay inside the intervals of the model's std, and what the std would have to be times."""

    held: tuple[float, ...]
    scale: float
    rank_correlation: float


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """A model on labelled frames.

    Attributes:
        model: that was asked.
        files: that were read.
        dataset: the frames that it could answer.
        answers: what it said.
        drawn: what was drawn for the intervals: `formulas`, `molecules` or `frames`.
        errors: by quantity in meV, meV an atom and meV/angstrom.
        groups: by how they are parted (size, formula, kind), rows.
        elements: forces by element: symbol, atoms, MAE and RMSE in meV/angstrom.
        spread: of the energy; None for one member.
        notes: what was odd.
    """

    model: Judged
    files: list[Path]
    dataset: Dataset
    answers: Answers
    drawn: str
    errors: dict[str, Errors]
    groups: dict[str, list[Group]]
    elements: list[tuple[str, int, float, float]]
    spread: Spread | None
    notes: list[str]

    @property
    def energy_error(self) -> Array:
        """EV [n]."""
        return np.asarray(self.answers.energy - self.dataset.energy)


ENERGY: Final = "energy (meV)"
PER_ATOM: Final = "energy an atom (meV)"
SHIFTED: Final = "energy, one constant a formula off (meV)"
FORCES: Final = "force component (meV/Å)"


def evaluate(model: Judged, files: Sequence[Path], how: Reading | None = None) -> Evaluation:
    """Ask a model for everything in these files and compare.

    Raises:
        DataError: files that cannot be read.
        NothingToJudge: no frame that the model can answer.
    """
    read = [answerable(read_labelled(path, how or Reading()), [model]) for path in files]
    dataset = joined(read)
    answers = ask(model, list(dataset))
    formulas = np.array([hill_formula(structure.numbers) for structure in dataset])
    molecule, drawn = molecules_of(dataset, formulas)
    return Evaluation(
        model=model,
        files=list(files),
        dataset=dataset,
        answers=answers,
        drawn=drawn,
        errors=errors_of(dataset, answers, formulas, molecule),
        groups=_groups(dataset, answers, formulas, read),
        elements=_by_element(dataset, answers),
        spread=_spread(dataset, answers, model.members),
        notes=_notes(read),
    )


def joined(read: Sequence[Labelled]) -> Dataset:
    """One data set; forces of some files alone are left out."""
    have = [each.dataset.forces is not None for each in read]
    parts = [each.dataset if all(have) else replace(each.dataset, forces=None) for each in read]
    return concatenate([replace(part, stress=None) for part in parts])


def molecules_of(dataset: Dataset, formulas: Text) -> tuple[NDArray[np.int64], str]:
    """What is drawn together for the intervals, int64 [n] from 0, and what it is.

    The file's own groups if it has any, else formulas if there are ten, else frames, whose likeness is then not seen.
    """
    own = np.unique(dataset.groups, return_inverse=True)[1].astype(np.int64)
    if len(dataset) > own.max() + 1 >= _FEWEST_MOLECULES:
        return own, "molecules"
    named = np.unique(formulas, return_inverse=True)[1].astype(np.int64)
    return (named, "formulas") if named.max() + 1 >= _FEWEST_MOLECULES else (np.arange(len(dataset)), "frames")


def errors_of(dataset: Dataset, answers: Answers, formulas: Text, molecule: NDArray[np.int64]) -> dict[str, Errors]:
    """Errors of each quantity with their intervals."""
    sums = sums_of(dataset, answers, formulas, molecule)
    drawn = draws(int(molecule.max()) + 1)
    return {name: errors(each, drawn) for name, each in sums.items()}


def sums_of(dataset: Dataset, answers: Answers, formulas: Text, molecule: NDArray[np.int64]) -> dict[str, Sums]:
    """By quantity, the sums over each molecule."""
    error, count = _MILLI * (answers.energy - dataset.energy), int(molecule.max()) + 1
    sums = {
        ENERGY: Sums.of(error, molecule, count),
        PER_ATOM: Sums.of(error / dataset.sizes, molecule, count),
        SHIFTED: Sums.of(less_its_mean(error, formulas), molecule, count),
    }
    if dataset.forces is not None:
        of_atom = np.repeat(molecule, dataset.sizes)
        sums[FORCES] = Sums.of(_MILLI * (answers.forces - dataset.forces), of_atom, count)
    return sums


def less_its_mean(error: Array, formulas: Text | NDArray[np.int64]) -> Array:
    """Errors without the mean error of their formula: what another zero or level of theory adds to all is gone."""
    label = np.unique(formulas, return_inverse=True)[1]
    return np.asarray(error - (np.bincount(label, weights=error) / np.bincount(label))[label])


def _groups(dataset: Dataset, answers: Answers, formulas: Text, read: Sequence[Labelled]) -> dict[str, list[Group]]:
    bins = np.digitize(dataset.sizes, SIZES) - 1
    ends = [f"{low} to {high - 1} atoms" for low, high in pairwise(SIZES)]
    sizes = np.array([*ends, f"{SIZES[-1]} atoms or more"])
    parted = {"size": _parted(dataset, answers, sizes[bins], lambda name, _: int(np.flatnonzero(sizes == name)[0]))}
    if len(np.unique(formulas)) > 1:
        parted["formula"] = _parted(dataset, answers, formulas, lambda _, frames: -frames)[:_MOST_FORMULAS]
    kinds = [kind for each in read for kind in each.kinds]
    if len(kinds) == len(dataset):
        parted["kind"] = _parted(dataset, answers, np.array(kinds), lambda _, frames: -frames)
    if len(read) > 1:
        names = np.array([read[source].path.name for source in dataset.source])
        parted["file"] = _parted(dataset, answers, names, lambda _, frames: -frames)
    return parted


def _parted(dataset: Dataset, answers: Answers, label: Text, order: Callable[[str, int], int]) -> list[Group]:
    """A row for each label, sorted by its place or by how many frames it has."""
    rows = [_group(str(name), dataset, answers, label == name) for name in np.unique(label)]
    return sorted(rows, key=lambda row: order(row.name, row.frames))


def _group(name: str, dataset: Dataset, answers: Answers, mine: NDArray[np.bool_]) -> Group:
    error = _MILLI * (answers.energy - dataset.energy)[mine]
    forces = np.full((1, 3), np.nan)
    if dataset.forces is not None:
        atoms = np.repeat(mine, dataset.sizes)
        forces = _MILLI * (answers.forces - dataset.forces)[atoms]
    per_atom = error / dataset.sizes[mine]
    return Group(name, int(mine.sum()), _mae(error), _rmse(error), _mae(per_atom), _mae(forces), _rmse(forces))


def _by_element(dataset: Dataset, answers: Answers) -> list[tuple[str, int, float, float]]:
    if dataset.forces is None:
        return []
    error, rows = _MILLI * (answers.forces - dataset.forces), []
    for z in np.unique(dataset.numbers):
        mine = error[dataset.numbers == z]
        rows.append((SYMBOLS[z], len(mine), _mae(mine), _rmse(mine)))
    return rows


def _spread(dataset: Dataset, answers: Answers, members: int) -> Spread | None:
    if answers.std is None:
        return None
    error = answers.energy - dataset.energy
    held = tuple(coverage(error, answers.std, level, members) for level in NOMINAL)
    return Spread(held, calibration_scale(error, answers.std), rank_correlation(error, answers.std))


def _notes(read: Sequence[Labelled]) -> list[str]:
    notes = []
    for each in read:
        notes += [f"{each.path.name}: {note}" for source in each.dataset.sources if (note := source.notes)]
        notes += [f"{each.path.name}: {finding}" for finding in each.findings]
        if each.unknown:
            notes.append(f"{each.path.name}: {each.unknown} frames with elements that are not known were left out.")
    return notes


def _mae(error: Array) -> float:
    return float(np.abs(error).mean())


def _rmse(error: Array) -> float:
    return float(np.sqrt((error**2).mean()))
