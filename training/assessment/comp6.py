"""The COMP6 protocol on files of its format: HDF5 with one group a molecule, hartree and angstrom.

Smith, Nebgen, Lubbers, Isayev, Roitberg, J. Chem. Phys. 148, 241733 (2018). In kcal/mol and kcal/mol/angstrom:

    kept        conformers at most `window` above the lowest of their molecule, by reference energies
    energy      e_c = predicted - reference of each conformer, with the atomic references
    relative    e_i - e_j of pairs of conformers of one molecule, never of two molecules
    forces      every Cartesian component of the kept conformers

Sums over pairs need no pairs: with e_(1) <= .. <= e_(n), sum_{i<j} |e_i - e_j| = sum_k (2k - n - 1) e_(k), and
sum_{i<j} (e_i - e_j)^2 = n sum e^2 - (sum e)^2.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from contract.units import KCAL_MOL_EV
from training.assessment.bootstrap import Errors, Sums, draws, errors
from training.assessment.judged import Judged, ask
from training.assessment.labelled import Labelled, Reading, answerable, read_labelled
from training.data.dataset import Dataset

WINDOW_KCAL_MOL: Final = 100.0
OVERALL: Final = "all"
Pairs = Literal["all", "lowest"]
Quantity = Literal["energy", "relative energy", "forces"]
Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Subset:
    """Errors on one file, or on all.

    Attributes:
        name: of the file, without its ending.
        molecules: groups that have a conformer inside the window.
        kept: conformers inside the window.
        total: conformers of the file.
        errors: by quantity, in kcal/mol and kcal/mol/angstrom; forces are missing where the file has none.
        notes: what was left out, and how the sign of the forces was known.
    """

    name: str
    molecules: int
    kept: int
    total: int
    errors: dict[Quantity, Errors]
    notes: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Counted:
    """What a file adds to the sums over everything."""

    subset: Subset
    sums: dict[Quantity, Sums]


def comp6(
    model: Judged,
    files: Sequence[Path],
    window: float = WINDOW_KCAL_MOL,
    pairs: Pairs = "all",
    how: Reading | None = None,
) -> list[Subset]:
    """Errors on each file, and on all of them together if there are several.

    Args:
        model: to be judged.
        files: HDF5.
        window: kcal/mol.
        pairs: `all` of a molecule, or each conformer with the `lowest`.
        how: the files are read.

    Raises:
        DataError: a file that cannot be read, or whose force sign is neither declared nor measurable.
        NothingToJudge: no molecule of a file has only elements that the model knows.
    """
    counted = [_count(model, path, window, pairs, how or Reading()) for path in files]
    subsets = [each.subset for each in counted]
    return subsets if len(subsets) < 2 else [*subsets, _together(counted)]


def relative_sums(error: Array, molecule: NDArray[np.int64], molecules: int, lowest: Array | None = None) -> Sums:
    """Sums over the pairs of conformers of each molecule.

    Args:
        error: of each conformer [n].
        molecule: of each conformer, from 0.
        molecules: in all.
        lowest: reference energies [n], if only pairs with the lowest conformer count; None for all pairs.
    """
    rows = np.zeros((molecules, 3))
    ends = np.cumsum(np.bincount(molecule, minlength=molecules))[:-1]
    for m, mine in enumerate(np.split(np.argsort(molecule, kind="stable"), ends)):
        if len(mine) < 2:
            continue
        if lowest is None:
            rows[m] = _all_pairs(error[mine])
        else:
            first = np.argmin(lowest[mine])
            apart = error[np.delete(mine, first)] - error[mine[first]]
            rows[m] = np.abs(apart).sum(), (apart**2).sum(), len(apart)
    return Sums(rows[:, 0], rows[:, 1], rows[:, 2])


def inside_window(energy: Array, molecule: NDArray[np.int64], window: float) -> NDArray[np.bool_]:
    """Conformers at most `window` above the lowest of their molecule; any one unit."""
    lowest = np.full(int(molecule.max(initial=-1)) + 1, np.inf)
    np.minimum.at(lowest, molecule, energy)
    return np.asarray(energy - lowest[molecule] <= window)


def _all_pairs(error: Array) -> tuple[float, float, float]:
    ordered, n = np.sort(error), len(error)
    size = float(((2.0 * np.arange(1, n + 1) - n - 1.0) * ordered).sum())
    centred = ordered - ordered.mean()  # pairs do not see the mean, and squares of small numbers keep their digits
    return size, float(n * (centred**2).sum()), n * (n - 1) / 2.0


def _count(model: Judged, path: Path, window: float, pairs: Pairs, how: Reading) -> _Counted:
    read = answerable(read_labelled(path, how), [model])
    everything = read.dataset
    group = np.unique(everything.groups, return_inverse=True)[1].astype(np.int64)
    dataset = everything.select(inside_window(everything.energy, group, window * KCAL_MOL_EV))
    sums = _sums(model, dataset, pairs)
    molecules, total = len(np.unique(dataset.groups)), len(everything) + read.unknown
    subset = Subset(path.stem, molecules, len(dataset), total, _errors(sums), _notes(read))
    return _Counted(subset, sums)


def _sums(model: Judged, dataset: Dataset, pairs: Pairs) -> dict[Quantity, Sums]:
    molecule = np.unique(dataset.groups, return_inverse=True)[1].astype(np.int64)
    count, answers = int(molecule.max()) + 1, ask(model, list(dataset))
    error = (answers.energy - dataset.energy) / KCAL_MOL_EV
    sums: dict[Quantity, Sums] = {
        "energy": Sums.of(error, molecule, count),
        "relative energy": relative_sums(error, molecule, count, dataset.energy if pairs == "lowest" else None),
    }
    if dataset.forces is not None:
        of_atom = np.repeat(molecule, dataset.sizes)
        sums["forces"] = Sums.of((answers.forces - dataset.forces) / KCAL_MOL_EV, of_atom, count)
    return sums


def _together(counted: Sequence[_Counted]) -> Subset:
    """All files by number of conformers, pairs and components; molecules of all are drawn."""
    names = [name for name in counted[0].sums if all(name in each.sums for each in counted)]
    sums = {
        name: Sums(
            *(
                np.concatenate([getattr(each.sums[name], part) for each in counted])
                for part in ("size", "square", "count")
            )
        )
        for name in names
    }
    subsets = [each.subset for each in counted]
    kept, total, molecules = (sum(getattr(s, part) for s in subsets) for part in ("kept", "total", "molecules"))
    return Subset(OVERALL, molecules, kept, total, _errors(sums))


def _errors(sums: dict[Quantity, Sums]) -> dict[Quantity, Errors]:
    drawn = draws(len(sums["energy"].count))
    return {name: errors(each, drawn) for name, each in sums.items() if each.total}


def _notes(read: Labelled) -> str:
    unknown = (
        f"{read.unknown} conformers with elements that the model does not know were left out." if read.unknown else ""
    )
    return " ".join(note for note in (unknown, read.dataset.sources[0].notes) if note)
