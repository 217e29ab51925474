"""Physics does not know where a structure lies, how it is turned, or how its atoms are numbered."""

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.card import Check
from contract.structures import Structure
from training.gate.deviation import PARITY, agreement, deviations
from training.gate.engines import Arrays
from training.gate.samples import small_cells
from training.gate.submission import Submission

SHIFT_ANGSTROM: Final = np.array([3.0, -2.0, 5.0], np.float32)
_SEED: Final = 7

# Moved or turned coordinates are rounded to float32 anew, which parity of the formats does not suffer from.
BOUNDS: Final = {name: 5.0 * bound for name, bound in PARITY.items()}


def translation(submission: Submission) -> list[Check]:
    """All atoms moved together: nothing changes."""
    inputs = _inputs(submission)
    moved = inputs | {"positions": inputs["positions"] + SHIFT_ANGSTROM}
    return _agreement("translation", submission, moved, submission.everyday(inputs))


def wrapping(submission: Submission) -> list[Check]:
    """Atoms of a crystal moved by lattice vectors: nothing changes."""
    cells = small_cells(submission.elements)
    moved = [replace(cell, positions=cell.positions + _lattice_steps(cell)) for cell in cells]
    expected = submission.everyday(submission.inputs(cells))
    return _agreement("wrapping into the cell", submission, submission.inputs(moved), expected)


def rotation(submission: Submission) -> list[Check]:
    """Structures turned with their cells: energies stay, forces and virials turn along."""
    inputs, turn = _inputs(submission), _rotation()
    turned = inputs | {
        "positions": (inputs["positions"] @ turn.T).astype(np.float32),
        "shifts": (inputs["shifts"] @ turn.T).astype(np.float32),
    }
    still = submission.everyday(inputs)
    expected = still | {"forces": still["forces"] @ turn.T, "virial": turn @ still["virial"] @ turn.T}
    return _agreement("rotation", submission, turned, expected)


def permutation(submission: Submission) -> list[Check]:
    """Atoms numbered otherwise: energies and virials stay, forces are numbered likewise."""
    structures = [*submission.molecules, *small_cells(submission.elements)]
    orders = [np.random.default_rng(_SEED + i).permutation(len(s)) for i, s in enumerate(structures)]
    shuffled = [
        replace(s, numbers=s.numbers[order], positions=s.positions[order])
        for s, order in zip(structures, orders, strict=True)
    ]
    starts = np.cumsum([0, *(len(s) for s in structures)])[:-1]
    atoms = np.concatenate([start + order for start, order in zip(starts, orders, strict=True)])
    still = submission.everyday(submission.inputs(structures))
    expected = still | {"forces": still["forces"][atoms], "atomic_energy": still["atomic_energy"][:, atoms]}
    return _agreement("permutation", submission, submission.inputs(shuffled), expected)


def _inputs(submission: Submission) -> Arrays:
    return submission.inputs([*submission.molecules, *small_cells(submission.elements)])


def _agreement(name: str, submission: Submission, inputs: Arrays, expected: Arrays) -> list[Check]:
    found = deviations(submission.everyday(inputs), expected, inputs["structure"])
    return agreement(name, [(f"{len(inputs['cells'])} structures", found)], BOUNDS)


def _lattice_steps(cell: Structure) -> NDArray[np.float64]:
    steps = np.random.default_rng(_SEED).integers(-3, 4, size=(len(cell), 3)) * cell.pbc
    return np.asarray(steps @ (cell.cell if cell.cell is not None else np.zeros((3, 3))))


def _rotation() -> NDArray[np.float64]:
    """A proper rotation about no special axis."""
    q, _ = np.linalg.qr(np.random.default_rng(_SEED).normal(size=(3, 3)))
    return np.asarray(q * np.linalg.det(q))
