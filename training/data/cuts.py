"""Leaving frames out, and saying so in the notes that end on the model card."""

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.data.errors import DataError

Zero = Literal["zero", "composition", "group"]
_ZERO_MEANS: Final[dict[Zero, str]] = {
    "zero": "above the set's own zero",
    "composition": "above the lowest frame of the same formula",
    "group": "above the lowest frame of the same molecule",
}


def cut_energy(dataset: Dataset, limit_ev: float, above: Zero) -> Dataset:
    """Leave out frames whose energy lies more than `limit_ev` above a reference; frames without a number stay.

    Args:
        dataset: any.
        limit_ev: eV; must be positive.
        above: `zero` for energies relative to the potential's minimum, `composition` for total energies of one system,
            `group` for many molecules whose conformers are groups.

    Raises:
        EmptyData: nothing is left.
    """
    if not limit_ev > 0:
        raise DataError(f"an energy cut of {limit_ev} eV keeps nothing sensible. Give a positive number of eV.")
    height = dataset.energy - _reference(dataset, above)
    keep = ~(height > limit_ev)
    dropped = int((~keep).sum())
    return dataset.select(keep).noting(
        f"Energy cut {limit_ev:g} eV {_ZERO_MEANS[above]}: {dropped} of {len(dataset)} frames dropped."
    )


def drop_duplicates(dataset: Dataset) -> Dataset:
    """Keep the first of frames with exactly the same atoms at the same places, and note how far their labels differ."""
    first: dict[bytes, int] = {}
    original = np.array([first.setdefault(_key(dataset, i), i) for i in range(len(dataset))], np.int64)
    repeated = np.flatnonzero(original != np.arange(len(dataset)))
    if not len(repeated):
        return dataset
    spread = np.abs(dataset.energy[repeated] - dataset.energy[original[repeated]])
    return dataset.select(original == np.arange(len(dataset))).noting(
        f"{len(repeated)} exact repeats of a geometry dropped (their energies differ by at most {spread.max():.2g} eV)."
    )


def drop_unlabelled(dataset: Dataset) -> Dataset:
    """Leave out frames whose energy or a force is NaN, as files with several levels of theory mark what is missing."""
    missing = np.isnan(dataset.energy)
    if dataset.forces is not None:
        bad_rows = np.isnan(dataset.forces).any(axis=1)
        missing |= np.bincount(_frame_of_atom(dataset)[bad_rows], minlength=len(dataset)) > 0
    if not missing.any():
        return dataset
    return dataset.select(~missing).noting(
        f"{int(missing.sum())} of {len(dataset)} frames without these labels dropped."
    )


def _reference(dataset: Dataset, above: Zero) -> NDArray[np.float64]:
    if above == "zero":
        return np.zeros(len(dataset))
    label = dataset.compositions() if above == "composition" else np.unique(dataset.groups, return_inverse=True)[1]
    lowest = np.full(int(label.max(initial=-1)) + 1, np.inf)
    np.fmin.at(lowest, label, dataset.energy)
    return lowest[label]


def _frame_of_atom(dataset: Dataset) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(dataset)), dataset.sizes)


def _key(dataset: Dataset, frame: int) -> bytes:
    atoms = dataset.atoms_of(frame)
    cell = b"" if dataset.cells is None else dataset.cells[frame].tobytes()
    geometry = dataset.positions[atoms] + 0.0  # turns -0.0 into 0.0, which are the same place
    return b"".join((dataset.numbers[atoms].tobytes(), geometry.tobytes(), cell, dataset.pbc[frame].tobytes()))
