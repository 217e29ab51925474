"""Do the forces fit the energies? Finite differences between close frames, before any model exists."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from training.data.dataset import Dataset
from training.data.fingerprints import inverse_distances

_MOST_FRAMES: Final = 3000
_FEWEST_PAIRS: Final = 10
_FEWEST_CONCLUSIVE: Final = 0.8
_MOST_DISTANCES: Final = 64
_MAX_STEP_ANGSTROM: Final = 0.6
_MIN_STEP_ANGSTROM: Final = 1e-4


@dataclass(frozen=True, slots=True)
class ForceAgreement:
    """Regression through the origin of energy differences on -F dr.

    Attributes:
        pairs: pairs of close frames used.
        slope: 1 if forces are -dE/dr in the unit of the energies per angstrom; -1 if they are the gradient.
        correlation: of the two, about the origin, -1 to 1.
        step_angstrom: typical distance of the two frames in 3N dimensions, after superposition.
    """

    pairs: int
    slope: float
    correlation: float
    step_angstrom: float

    @property
    def conclusive(self) -> bool:
        """Correlated well enough to tell a sign and a unit."""
        return abs(self.correlation) >= _FEWEST_CONCLUSIVE

    def __str__(self) -> str:
        return (
            f"{self.pairs} pairs of frames {self.step_angstrom:.2g} angstrom apart: slope {self.slope:.4g}, "
            f"correlation {self.correlation:.3f}"
        )


class Pairs(NamedTuple):
    """Pairs of close frames.

    Attributes:
        first: frame of the data set [p].
        second: likewise.
        step: distance of the two in 3N dimensions, after superposition, angstrom [p].
        energy: of the second less that of the first, eV [p].
        along_first: the first's force along the way to the second, F dr, eV [p].
        along_second: the second's force along the same way, eV [p].
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    step: NDArray[np.float64]
    energy: NDArray[np.float64]
    along_first: NDArray[np.float64]
    along_second: NDArray[np.float64]

    @property
    def work(self) -> NDArray[np.float64]:
        """What the energy should change by: the trapezoid rule along the way, eV [p]."""
        return np.asarray(-0.5 * (self.along_first + self.along_second))

    def some(self, chosen: NDArray[np.int64] | NDArray[np.bool_]) -> "Pairs":
        """These pairs."""
        numbers = (each[chosen] for each in self[2:])
        return Pairs(self.first[chosen], self.second[chosen], *numbers)


def close_frames(dataset: Dataset, neighbours: int = 1) -> Pairs:
    """Pairs of frames of the same atoms that lie at most 0.6 angstrom apart; their forces must be known.

    Args:
        dataset: at most 3,000 of its frames are looked at.
        neighbours: how many of its nearest frames a molecule is compared with, beside its successor.
    """
    if dataset.forces is None:
        raise ValueError("the data have no forces")
    found = [_differences(dataset, dataset.forces, frames, neighbours) for frames in _same_atoms(dataset)]
    frame, number = np.zeros(0, np.int64), np.zeros(0)
    pairs = _joined([Pairs(frame, frame, number, number, number, number), *found])
    return pairs.some((pairs.step > _MIN_STEP_ANGSTROM) & (pairs.step < _MAX_STEP_ANGSTROM))


def force_agreement(dataset: Dataset) -> ForceAgreement | None:
    """Compare energy differences of close frames with the mean of their forces along the way between them.

    Molecules are compared with their nearest frame and their successor, superposed (Kabsch, Acta Cryst. A32, 922
    (1976)); periodic frames with their successor of the same cell. The error of the trapezoid rule is of third order in
    the step, so only steps up to 0.6 angstrom (norm over all atoms) count, and of these the shorter half. At most 3,000
    frames are looked at.

    Returns:
        None if there are no forces or fewer than 10 close pairs.
    """
    if dataset.forces is None:
        return None
    pairs = close_frames(dataset)
    pairs = pairs.some(_short_steps(pairs.step))
    step, energy, work = pairs.step, pairs.energy, pairs.work
    if len(step) < _FEWEST_PAIRS or not work.any() or not energy.any():
        return None
    product = float(work @ energy)
    correlation = product / float(np.linalg.norm(work) * np.linalg.norm(energy))
    return ForceAgreement(len(step), product / float(work @ work), correlation, float(np.median(step)))


def _joined(found: Sequence[Pairs]) -> Pairs:
    first, second = (np.concatenate([getattr(pairs, name) for pairs in found]) for name in ("first", "second"))
    numbers = (np.concatenate([getattr(pairs, name) for pairs in found]) for name in Pairs._fields[2:])
    return Pairs(first, second, *numbers)


def _same_atoms(dataset: Dataset) -> list[NDArray[np.int64]]:
    """Frames with the same atoms in the same order, and the same periodicity; at most 3,000 in all."""
    batches: dict[bytes, list[int]] = {}
    for i in np.flatnonzero(dataset.sizes > 1)[:_MOST_FRAMES]:
        key = dataset.numbers[dataset.atoms_of(int(i))].tobytes() + dataset.pbc[i].tobytes()
        batches.setdefault(key, []).append(int(i))
    return [np.array(frames, np.int64) for frames in batches.values() if len(frames) > 1]


def _differences(dataset: Dataset, forces: NDArray[np.float64], frames: NDArray[np.int64], neighbours: int) -> Pairs:
    """Pairs among frames of the same atoms."""
    rows = dataset.offsets[frames][:, None] + np.arange(dataset.sizes[frames[0]])
    positions, force, energy = dataset.positions[rows], forces[rows], dataset.energy[frames]
    if dataset.pbc[frames[0]].any():
        first, second = _successors_in_cell(dataset, frames)
        move = _centred(_nearest_image(dataset, frames[first], positions[second] - positions[first]))
        force_second = force[second]
    else:
        first, second = _close_molecules(positions, neighbours)
        turn = _rotations(positions[second], positions[first])
        move = _centred(positions[second]) @ turn - _centred(positions[first])
        force_second = force[second] @ turn
    along = ((each * move).sum(axis=(1, 2)) for each in (force[first], force_second))
    step = np.linalg.norm(move, axis=(1, 2))
    return Pairs(frames[first], frames[second], step, energy[second] - energy[first], *along)


def _close_molecules(positions: NDArray[np.float64], neighbours: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Each frame with its successor and with its nearest frames, each pair once."""
    count, shape = len(positions), inverse_distances(positions)
    shape = shape[:, :: max(1, shape.shape[1] // _MOST_DISTANCES)]
    few = min(neighbours + 1, count)
    nearest = cKDTree(shape).query(shape, k=few)[1].reshape(count, few)
    near = np.stack([np.repeat(np.arange(count), few), nearest.reshape(-1)], axis=1)
    successor = np.stack([np.arange(count - 1), np.arange(1, count)], axis=1)
    pairs = np.unique(np.sort(np.concatenate([successor, near]), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    return pairs[:, 0], pairs[:, 1]


def _successors_in_cell(dataset: Dataset, frames: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    first, second = np.arange(len(frames) - 1), np.arange(1, len(frames))
    if dataset.cells is None:
        return first[:0], second[:0]
    same = np.isclose(dataset.cells[frames[first]], dataset.cells[frames[second]], atol=1e-8).all(axis=(1, 2))
    return first[same], second[same]


def _nearest_image(dataset: Dataset, frames: NDArray[np.int64], move: NDArray[np.float64]) -> NDArray[np.float64]:
    """Displacements with whole lattice vectors of periodic directions taken off."""
    if dataset.cells is None or not len(frames):
        return move
    cell = dataset.cells[frames]
    turns = np.round(move @ np.linalg.inv(cell)) * dataset.pbc[frames][:, None, :]
    return move - turns @ cell


def _centred(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Less the mean over atoms: a shift of the whole frame does no work."""
    centred: NDArray[np.float64] = positions - positions.mean(axis=1, keepdims=True)
    return centred


def _rotations(moving: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Proper rotations R [m, 3, 3] such that centred moving @ R lies best on centred target."""
    u, _, vt = np.linalg.svd(np.swapaxes(_centred(moving), 1, 2) @ _centred(target))
    u[:, :, 2] *= np.sign(np.linalg.det(u @ vt))[:, None]
    rotation: NDArray[np.float64] = u @ vt
    return rotation


def _short_steps(step: NDArray[np.float64]) -> NDArray[np.int64]:
    """The shorter half of the pairs, if that leaves enough."""
    order: NDArray[np.int64] = np.argsort(step, kind="stable")
    return order[: max(_FEWEST_PAIRS, len(order) // 2)]
