"""Structures to neighbour batches: the padded layout with a reverse map that the `potential` graphs read.

A directed pair (i, j, T) has |r_j - r_i + T.cell| < cutoff. Slot (i, k) has the flat index i * K + k. `reverse` points
at the slot that holds the opposite pair, so that sums over "who points at me" are gathers, not scatters. A padded slot
points at its own atom, is 2 x cutoff away and is its own reverse: it adds exactly zero, and no structure can reach
another.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray
from vesin import NeighborList

from contract.errors import CoincidentAtoms, ImpossibleDistances, TooLarge
from contract.signatures import BUCKETS
from contract.structures import Structure

COINCIDENT_ANGSTROM: Final = 0.01
IMPOSSIBLE_ANGSTROM: Final = 0.2
"""No two nuclei are so near one another in matter; bonds given in nanometres are 0.07 to 0.2."""
BRUTE_FORCE_ATOMS: Final = 200
DEFAULT_MAX_PAIRS: Final = 50_000_000
LISTER_CELLS: Final = 100_000
WIDE_ANGSTROM: Final = 1000.0
"""Beyond this float32 positions lose digits that matter: 1e-4 angstrom."""

_per_thread = threading.local()


@dataclass(frozen=True, slots=True)
class Graph:
    """One structure with its neighbours, padded to its own largest degree K.

    Attributes:
        species: int64 [n], atomic numbers.
        positions: float32 [n, 3], angstrom, wrapped into the cell, without wide empty gaps, relative to their centre.
        neighbours: int64 [n, K], index of each neighbour within the structure; padding points at the atom itself.
        shifts: float32 [n, K, 3], lattice translation in angstrom.
        slots: int64 [n, K], the slot of the reversed pair in the neighbour's row.
        cutoff: angstrom.
        n_pairs: directed pairs within the cutoff.
        nearest: int64 [n], the nearest neighbour of each atom (-1 without one), and
        nearest_distance: float64 [n], its distance in angstrom (infinity without one).
    """

    species: NDArray[np.int64]
    positions: NDArray[np.float32]
    neighbours: NDArray[np.int64]
    shifts: NDArray[np.float32]
    slots: NDArray[np.int64]
    cutoff: float
    n_pairs: int
    nearest: NDArray[np.int64]
    nearest_distance: NDArray[np.float64]

    @property
    def n_atoms(self) -> int:
        """Atoms."""
        return len(self.species)

    @property
    def degree(self) -> int:
        """K, the largest number of neighbours of an atom (at least 1)."""
        return int(self.neighbours.shape[1])

    @property
    def cost(self) -> int:
        """Neighbour slots n * K: what a batch is charged for."""
        return self.neighbours.size


def bucket(degree: int) -> int:
    """The smallest standard K that holds `degree` neighbours; multiples of 128 above 256."""
    for size in BUCKETS:
        if degree <= size:
            return size
    return -(-degree // 128) * 128


def build_graph(structure: Structure, cutoff: float, max_pairs: int = DEFAULT_MAX_PAIRS, index: int = 0) -> Graph:
    """Find the neighbours of one structure.

    Args:
        structure: checked structure.
        cutoff: angstrom, the model's hard cutoff; cells smaller than it are right input (all images are found).
        max_pairs: directed pairs above which the structure is refused before memory is touched.
        index: which structure of a request this is, for the error message.

    Raises:
        TooLarge: more pairs than allowed, or atoms strewn over a space too large to be searched.
        CoincidentAtoms: two atoms closer than 0.01 angstrom, naming them.
        ImpossibleDistances: half of the atoms or more are within 0.2 angstrom of another.
    """
    points, box = _wrapped(structure)
    in_vacuum = not structure.pbc.any()
    small = in_vacuum and len(structure) <= BRUTE_FORCE_ATOMS
    if not small or points.max() - points.min() > WIDE_ANGSTROM:
        points, box = _without_empty_space(points, box, structure.pbc, 2.0 * cutoff)
    if small:
        first, second = _pairs_in_vacuum(points, cutoff * cutoff)
        images = np.zeros((len(first), 3), np.int32)
    else:
        _refuse_dense(points, structure, cutoff, max_pairs, index)
        _refuse_strewn(box, cutoff, index)
        first, second, images = _half_list(points, box, cutoff)
    if 2 * len(first) > max_pairs:
        raise _too_large(2 * len(first), max_pairs, index)
    degree = np.bincount(first, minlength=len(structure)) + np.bincount(second, minlength=len(structure))
    width = max(1, int(degree.max()))
    layout = _fill(first, second, images, points, box, width, 2.0 * cutoff)
    neighbours, shifts, slots, nearest, nearest_distance = layout
    _refuse_close(nearest, nearest_distance, index)
    centred = (points - points.mean(axis=0)).astype(np.float32)
    return Graph(
        structure.numbers, centred, neighbours, shifts, slots, cutoff, 2 * len(first), nearest, nearest_distance
    )


def collate(graphs: Sequence[Graph], slots_per_atom: int | None = None) -> dict[str, NDArray[Any]]:
    """Concatenate structures into one neighbour-listed batch.

    Args:
        graphs: at least one, all of one cutoff.
        slots_per_atom: K of the batch, at least the largest degree; default its bucket.

    Returns:
        Tensors of the `potential` signature (contract/signatures.py), N = sum(n_i), B = len(graphs).
    """
    atoms = np.array([graph.n_atoms for graph in graphs])
    degrees = np.array([graph.degree for graph in graphs])
    width = slots_per_atom or bucket(int(degrees.max()))
    neighbours, shifts, reverse = _pad(
        atoms,
        degrees,
        np.concatenate([graph.neighbours.ravel() for graph in graphs]),
        np.concatenate([graph.shifts.ravel() for graph in graphs]),
        np.concatenate([graph.slots.ravel() for graph in graphs]),
        width,
        np.float32(2.0 * graphs[0].cutoff),
    )
    return {
        "species": np.concatenate([graph.species for graph in graphs]),
        "positions": np.concatenate([graph.positions for graph in graphs]),
        "neighbours": neighbours,
        "shifts": shifts,
        "reverse": reverse,
        "structure": np.repeat(np.arange(len(graphs)), atoms),
        "cells": np.zeros((len(graphs), 3, 3), np.float32),
    }


def _wrapped(structure: Structure) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions moved into the cell along periodic vectors, and the cell (zero for a molecule)."""
    if structure.cell is None or not structure.pbc.any():
        return structure.positions, np.zeros((3, 3))
    fractional = np.linalg.solve(structure.cell.T, structure.positions.T).T
    turns = np.floor(fractional) * structure.pbc
    return structure.positions - turns @ structure.cell, structure.cell


def _without_empty_space(
    positions: NDArray[np.float64], cell: NDArray[np.float64], pbc: NDArray[np.bool_], widest: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same pairs in a small box that is periodic in every direction: what the lister can search quickly.

    Along each lattice vector, an empty gap wider than two cutoffs is narrowed to that: nothing reaches across it before
    or after, and all other distances stay. A direction that is not periodic ends in such a gap. (vesin 0.6 searches
    forever, or divides by zero, where a box is long and thin, or partly periodic with an atom far outside.)

    Args:
        positions: angstrom [n, 3], wrapped.
        cell: angstrom [3, 3]; of a molecule any.
        pbc: bool [3].
        widest: angstrom, at least twice the cutoff.

    Returns:
        Positions and box; the images of pairs count the same lattice vectors.
    """
    frame = cell if pbc.any() else np.eye(3)
    inverse = np.linalg.inv(frame)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    along = positions @ inverse * heights
    lengths = np.where(pbc, heights, np.inf)
    for axis in range(3):
        along[:, axis], lengths[axis] = _narrowed(along[:, axis], lengths[axis], widest)
    return along / heights @ frame, frame * (lengths / heights)[:, None]


def _narrowed(along: NDArray[np.float64], length: float, widest: float) -> tuple[NDArray[np.float64], float]:
    """Places on a ring, after every gap between them that is too wide was narrowed, and the ring's new length."""
    order = np.argsort(along, kind="stable")
    sorted_ = along[order]
    gaps = np.diff(sorted_, append=sorted_[0] + length)
    excess = np.maximum(gaps - widest, 0.0)
    if not excess.any():
        return along, length
    narrowed = np.empty_like(along)
    narrowed[order] = sorted_ - sorted_[0] - np.concatenate([[0.0], np.cumsum(excess[:-1])])
    return narrowed, float(narrowed[order[-1]] + min(gaps[-1], widest))


def _half_list(
    points: NDArray[np.float64], box: NDArray[np.float64], cutoff: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32]]:
    """Each pair once, as (i, j, T): T int32 [p, 3]. The order depends on this structure alone."""
    i, j, images = _lister(cutoff).compute(points=points, box=box, periodic=True, quantities="ijS", copy=True)
    return i.astype(np.int64), j.astype(np.int64), images


def _lister(cutoff: float) -> NeighborList:
    """This thread's vesin list for a cutoff: an instance must not be shared between threads."""
    listers: dict[float, NeighborList] = _per_thread.__dict__.setdefault("listers", {})
    if cutoff not in listers:
        listers[cutoff] = NeighborList(cutoff=cutoff, full_list=False, n_threads=1)
    return listers[cutoff]


def _refuse_dense(
    positions: NDArray[np.float64], structure: Structure, cutoff: float, max_pairs: int, index: int
) -> None:
    """Estimate the number of pairs from atoms per cutoff-sized box, in O(n log n), before any list is made."""
    images = _image_density(structure, cutoff)
    if len(positions) ** 2 * images <= max_pairs:
        return
    box = np.floor((positions - positions.min(axis=0)) / cutoff).astype(np.int64)
    _, occupied = np.unique(np.ravel_multi_index(tuple(box.T), tuple(box.max(axis=0) + 1)), return_counts=True)
    estimate = float((occupied.astype(np.float64) ** 2).sum()) * 4.0 * np.pi / 3.0 * images
    if estimate > 2 * max_pairs:
        raise _too_large(int(min(estimate, 2**62)), max_pairs, index)


def _refuse_strewn(box: NDArray[np.float64], cutoff: float, index: int) -> None:
    """Refuse a box that vesin cannot cut into cells: it makes at most 10^5, which leaves none for a thin direction."""
    cells = np.maximum(1.0, np.floor(1.0 / np.linalg.norm(np.linalg.inv(box), axis=0) / cutoff))
    shrink = (LISTER_CELLS / cells.prod()) ** (1.0 / 3.0)
    if shrink < 1.0 and cells.min() * shrink < 2.0:
        raise TooLarge(
            f"structures[{index}] is strewn over {' x '.join(f'{n:,.0f}' for n in cells)} boxes as wide as the cutoff.",
            hint="Check that positions and cell are in angstrom, or split the system.",
            field="positions",
            index=index,
            limit=LISTER_CELLS,
            got=int(cells.prod()),
            unit="cutoff-sized boxes",
        )


def _image_density(structure: Structure, cutoff: float) -> float:
    """How many periodic copies of the cell fit into one cutoff-sized box (at least 1)."""
    if structure.cell is None or not structure.pbc.any():
        return 1.0
    heights = 1.0 / np.linalg.norm(np.linalg.inv(structure.cell), axis=0)
    return float(np.prod(np.where(structure.pbc, np.maximum(1.0, cutoff / heights), 1.0)))


def _too_large(pairs: int, max_pairs: int, index: int) -> TooLarge:
    return TooLarge(
        f"structures[{index}] has about {pairs:,} neighbour pairs; the limit is {max_pairs:,}.",
        hint="Split the system, or check that positions and cell are in angstrom.",
        field="positions",
        index=index,
        limit=max_pairs,
        got=pairs,
        unit="pairs",
    )


def _refuse_close(nearest: NDArray[np.int64], distance: NDArray[np.float64], index: int) -> None:
    close = np.flatnonzero(distance < COINCIDENT_ANGSTROM)
    if close.size:
        raise CoincidentAtoms(
            f"structures[{index}]: {_pair(nearest, distance, int(close[0]))} apart.",
            hint="Remove the duplicate; positions are in angstrom.",
            **_facts(close, nearest, index),
        )
    close = np.flatnonzero(distance < IMPOSSIBLE_ANGSTROM)
    if 2 * close.size > len(distance):
        raise ImpossibleDistances(
            f"structures[{index}]: {_pair(nearest, distance, int(close[0]))} apart, nearer than any nuclei in matter.",
            hint="Positions and cell are in angstrom: multiply nanometres by 10.",
            **_facts(close, nearest, index),
            limit=IMPOSSIBLE_ANGSTROM,
            unit="angstrom",
        )


def _pair(nearest: NDArray[np.int64], distance: NDArray[np.float64], atom: int) -> str:
    if nearest[atom] == atom:
        return f"atom {atom} and its own image are {distance[atom]:.2e} angstrom"
    return f"atoms {atom} and {int(nearest[atom])} are {distance[atom]:.2e} angstrom"


def _facts(close: NDArray[np.intp], nearest: NDArray[np.int64], index: int) -> dict[str, Any]:
    pair = [int(close[0]), int(nearest[close[0]])]
    return {"field": "positions", "index": index, "pair": pair, "atoms": close[:10].tolist(), "count": int(close.size)}


@njit(cache=True)
def _pairs_in_vacuum(positions: NDArray[np.float64], cutoff2: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    n = len(positions)
    first = np.empty(n * (n - 1) // 2, np.int64)
    second = np.empty_like(first)
    count = 0
    for i in range(n):
        for j in range(i + 1, n):
            x = positions[j, 0] - positions[i, 0]
            y = positions[j, 1] - positions[i, 1]
            z = positions[j, 2] - positions[i, 2]
            if x * x + y * y + z * z < cutoff2:
                first[count] = i
                second[count] = j
                count += 1
    return first[:count], second[:count]


@njit(cache=True)
def _fill(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    images: NDArray[np.int32],
    positions: NDArray[np.float64],
    cell: NDArray[np.float64],
    width: int,
    pad_shift: float,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Lay a half list out in rows of `width` slots; both directions of a pair know each other's slot."""
    n = len(positions)
    neighbours = np.empty((n, width), np.int64)
    shifts = np.zeros((n, width, 3), np.float32)
    slots = np.empty((n, width), np.int64)
    nearest = np.full(n, -1, np.int64)
    nearest2 = np.full(n, np.inf)
    for i in range(n):
        for k in range(width):
            neighbours[i, k] = i
            slots[i, k] = k
            shifts[i, k, 0] = pad_shift
    filled = np.zeros(n, np.int64)
    for p in range(len(first)):
        i, j = first[p], second[p]
        a = filled[i]
        filled[i] += 1
        b = filled[j]
        filled[j] += 1
        neighbours[i, a], neighbours[j, b] = j, i
        slots[i, a], slots[j, b] = b, a
        distance2 = 0.0
        for c in range(3):
            shift = images[p, 0] * cell[0, c] + images[p, 1] * cell[1, c] + images[p, 2] * cell[2, c]
            shifts[i, a, c], shifts[j, b, c] = shift, -shift
            distance2 += (positions[j, c] - positions[i, c] + shift) ** 2
        if distance2 < nearest2[i]:
            nearest[i], nearest2[i] = j, distance2
        if distance2 < nearest2[j]:
            nearest[j], nearest2[j] = i, distance2
    return neighbours, shifts, slots, nearest, np.sqrt(nearest2)


@njit(cache=True, nogil=True)
def _pad(
    atoms: NDArray[np.int64],
    degrees: NDArray[np.int64],
    neighbours: NDArray[np.int64],
    shifts: NDArray[np.float32],
    slots: NDArray[np.int64],
    width: int,
    pad_shift: np.float32,
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    """Widen the rows of every structure to `width` slots and shift its indices behind its predecessors'."""
    total = atoms.sum()
    wide = np.empty((total, width), np.int64)
    moved = np.zeros((total, width, 3), np.float32)
    reverse = np.empty((total, width), np.int64)
    source = 0
    start = 0
    for b in range(len(atoms)):
        for i in range(start, start + atoms[b]):
            for k in range(degrees[b]):
                j = neighbours[source] + start
                wide[i, k] = j
                reverse[i, k] = j * width + slots[source]
                moved[i, k, 0] = shifts[3 * source]
                moved[i, k, 1] = shifts[3 * source + 1]
                moved[i, k, 2] = shifts[3 * source + 2]
                source += 1
            for k in range(degrees[b], width):
                wide[i, k] = i
                reverse[i, k] = i * width + k
                moved[i, k, 0] = pad_shift
        start += atoms[b]
    return wide, moved, reverse
