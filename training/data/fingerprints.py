"""How alike two frames are, whatever the order of their atoms and wherever they stand.

The fingerprint of a molecule is the list of inverse distances 1/r of every pair of elements, sorted. Two frames of one
formula are compared by the root mean square difference of these lists, in 1/angstrom: 0.002 means that distances near 1
angstrom agree to 0.002 angstrom and distances near 2 to 0.008. It does not change under translation, rotation,
reflection and exchange of equal atoms. Periodic frames use 1/r - 1/5 for the pairs within 5 angstrom, with images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from vesin import NeighborList

from contract.structures import Structure
from training.data.dataset import Dataset

PERIODIC_CUTOFF_ANGSTROM: Final = 5.0
_SHORTEST_ANGSTROM: Final = 0.01
_MAX_ENTRIES: Final = 64
_CHUNK_ENTRIES: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Frames of one formula that can be compared.

    Attributes:
        frames: int64 [m], indices into the data set.
        values: float32 [m, D]; the Euclidean distance of two rows is the difference of the frames, 1/angstrom.
    """

    frames: NDArray[np.int64]
    values: NDArray[np.float32]


def fingerprints(dataset: Dataset) -> list[Fingerprints]:
    """One set of comparable rows for each formula, molecules and periodic frames apart.

    Where an element pair has more than 64 entries they are averaged in 64 runs, which can only bring frames closer.
    """
    kind = 2 * dataset.compositions() + dataset.pbc.any(axis=1)
    return [_comparable(dataset, np.flatnonzero(kind == k)) for k in np.unique(kind)]


def inverse_distances(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """1/r of every pair i < j, in atom order.

    Args:
        positions: angstrom [m, N, 3], m frames of N atoms.

    Returns:
        1/angstrom [m, N (N - 1) / 2]; distances below 0.01 angstrom count as 0.01.
    """
    first, second = np.triu_indices(positions.shape[1], 1)
    distance = np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)
    inverse: NDArray[np.float64] = 1.0 / np.maximum(distance, _SHORTEST_ANGSTROM)
    return inverse


def _comparable(dataset: Dataset, frames: NDArray[np.int64]) -> Fingerprints:
    periodic = bool(dataset.pbc[frames[0]].any())
    columns, pairs = _periodic(dataset, frames) if periodic else _molecular(dataset, frames)
    if not pairs:
        return Fingerprints(frames, np.zeros((len(frames), 1), np.float32))
    values = np.concatenate(columns, axis=1) / np.sqrt(pairs)
    return Fingerprints(frames, values.astype(np.float32))


def _molecular(dataset: Dataset, frames: NDArray[np.int64]) -> tuple[list[NDArray[np.float64]], int]:
    """Condensed inverse distances of each element pair, ascending, and how many pairs of atoms there are."""
    order = _rows_by_element(dataset, frames)
    numbers = dataset.numbers[order[0]]
    first, second = np.triu_indices(len(numbers), 1)
    pair = numbers[first] * 1000 + numbers[second]
    blocks = []
    for chunk in _chunks(len(frames), len(pair)):
        inverse = inverse_distances(dataset.positions[order[chunk]])
        blocks.append([_condensed(np.sort(inverse[:, pair == p], axis=1)) for p in np.unique(pair)])
    return [np.concatenate(column) for column in zip(*blocks, strict=True)], len(pair)


def _periodic(dataset: Dataset, frames: NDArray[np.int64]) -> tuple[list[NDArray[np.float64]], int]:
    """Condensed 1/r - 1/cutoff of each element pair, descending, zero where a frame has fewer; and the pairs in all."""
    lister = NeighborList(cutoff=PERIODIC_CUTOFF_ANGSTROM, full_list=False, n_threads=1)
    tables = [_periodic_pairs(lister, dataset[int(i)]) for i in frames]
    columns = []
    for pair in sorted({p for table in tables for p in table}):
        lists = [table.get(pair, np.zeros(0)) for table in tables]
        column = np.zeros((len(lists), max(map(len, lists))))
        for row, values in zip(column, lists, strict=True):
            row[: len(values)] = values
        columns.append(column)
    return [_condensed(column) for column in columns], sum(column.shape[1] for column in columns)


def _periodic_pairs(lister: NeighborList, structure: Structure) -> dict[int, NDArray[np.float64]]:
    box = np.zeros((3, 3)) if structure.cell is None else structure.cell
    i, j, distance = lister.compute(
        points=structure.positions, box=box, periodic=structure.pbc, quantities="ijd", copy=True
    )
    numbers = np.sort(np.stack([structure.numbers[i], structure.numbers[j]]), axis=0)
    pair = numbers[0] * 1000 + numbers[1]
    inverse = 1.0 / np.maximum(distance, _SHORTEST_ANGSTROM) - 1.0 / PERIODIC_CUTOFF_ANGSTROM
    return {int(p): np.sort(inverse[pair == p])[::-1] for p in np.unique(pair)}


def _rows_by_element(dataset: Dataset, frames: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of the atoms of each frame [m, N], lighter elements first; the frames have one formula."""
    size = int(dataset.sizes[frames[0]])
    rows = dataset.offsets[frames][:, None] + np.arange(size)
    return np.take_along_axis(rows, np.argsort(dataset.numbers[rows], axis=1, kind="stable"), axis=1)


def _condensed(column: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most 64 runs of a sorted list, each its mean times the root of its length: distances never grow."""
    count = column.shape[1]
    if count <= _MAX_ENTRIES:
        return column
    edges = np.linspace(0, count, _MAX_ENTRIES + 1).astype(np.int64)
    return np.add.reduceat(column, edges[:-1], axis=1) / np.sqrt(np.diff(edges))


def _chunks(count: int, width: int) -> Iterator[slice]:
    step = max(1, _CHUNK_ENTRIES // max(1, 3 * width))
    return (slice(start, start + step) for start in range(0, count, step))
