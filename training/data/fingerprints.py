"""How alike two frames are, whatever the order of their atoms and wherever they stand.

The fingerprint of a molecule is the list of inverse distances 1/r of every pair of elements, sorted. Two frames of one
formula differ by the root of the sum of squared differences of these lists, in 1/angstrom: by 0.01 if one distance near
1 angstrom changes by 0.01 angstrom, or one near 2 by 0.04. A sum and no mean: sorted lists of independent frames of a
crystal differ by about the same sum whatever its size, while their mean fades. Nothing changes under translation,
rotation, reflection and exchange of equal atoms. Periodic frames use 1/r - 1/5 for the pairs within 5 angstrom, with
images.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from vesin import NeighborList

from contract.structures import Structure
from training.data.dataset import Dataset
from training.data.errors import TooAlike

PERIODIC_CUTOFF_ANGSTROM: Final = 5.0
_SHORTEST_ANGSTROM: Final = 0.01
_MAX_ENTRIES: Final = 64
_MAX_PAIRS: Final = 50_000_000
_CROWD_SAMPLE: Final = 300
_SEARCH_DIRECTIONS: Final = 8
_CHUNK_ENTRIES: Final = 4_000_000


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """Frames of one formula that can be compared.

    Attributes:
        frames: int64 [m], indices into the data set.
        values: float32 [m, D]; the Euclidean distance of two rows is how much the frames differ, 1/angstrom.
    """

    frames: NDArray[np.int64]
    values: NDArray[np.float32]


def fingerprints(dataset: Dataset) -> list[Fingerprints]:
    """One set of comparable rows for each formula, molecules and periodic frames apart.

    Where an element pair has more than 64 entries they are averaged in 64 runs, which can only bring frames closer.
    """
    kind = 2 * dataset.compositions() + dataset.pbc.any(axis=1)
    return [_comparable(dataset, np.flatnonzero(kind == k)) for k in np.unique(kind)]


def close_pairs(prints: Fingerprints, tolerance: float) -> NDArray[np.int64]:
    """Pairs [p, 2] of frames, as indices into the data set, that differ by at most a tolerance in 1/angstrom.

    Candidates are found in the eight directions in which the frames differ most, where a distance is never larger.

    Raises:
        TooAlike: so many pairs (50 million) that memory would not do.
    """
    shadow = principal(prints.values)[:, :_SEARCH_DIRECTIONS]
    tree = cKDTree(shadow)
    _refuse_crowd(tree, shadow, tolerance)
    pairs: NDArray[np.int64] = tree.query_pairs(tolerance * (1 + 1e-9), output_type="ndarray").reshape(-1, 2)
    parts = np.array_split(pairs, 1 + len(pairs) * prints.values.shape[1] // _CHUNK_ENTRIES)
    near = [np.linalg.norm(prints.values[p[:, 0]] - prints.values[p[:, 1]], axis=1) <= tolerance for p in parts]
    close: NDArray[np.int64] = prints.frames[pairs[np.concatenate(near)]]
    return close


def principal(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The same points turned so that the first column varies most; distances stay, searches get faster."""
    centred = values - values.mean(axis=0, dtype=np.float64)
    turned: NDArray[np.float64] = centred @ np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    return turned


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
    columns = _periodic(dataset, frames) if periodic else _molecular(dataset, frames)
    # One column of zeros, so that isolated atoms can be compared too.
    values = np.concatenate([np.zeros((len(frames), 1)), *columns], axis=1)
    return Fingerprints(frames, values.astype(np.float32))


def _molecular(dataset: Dataset, frames: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """Condensed inverse distances of each element pair, ascending."""
    order = _rows_by_element(dataset, frames)
    numbers = dataset.numbers[order[0]]
    first, second = np.triu_indices(len(numbers), 1)
    pair = numbers[first] * 1000 + numbers[second]
    blocks = []
    for chunk in _chunks(len(frames), len(pair)):
        inverse = inverse_distances(dataset.positions[order[chunk]])
        blocks.append([_condensed(np.sort(inverse[:, pair == p], axis=1)) for p in np.unique(pair)])
    return [np.concatenate(column) for column in zip(*blocks, strict=True)]


def _periodic(dataset: Dataset, frames: NDArray[np.int64]) -> list[NDArray[np.float64]]:
    """Condensed 1/r - 1/cutoff of each element pair, descending, zero where a frame has fewer."""
    lister = NeighborList(cutoff=PERIODIC_CUTOFF_ANGSTROM, full_list=False, n_threads=1)
    tables = [_periodic_pairs(lister, dataset[int(i)]) for i in frames]
    columns = []
    for pair in sorted({p for table in tables for p in table}):
        lists = [table.get(pair, np.zeros(0)) for table in tables]
        column = np.zeros((len(lists), max(map(len, lists))))
        for row, values in zip(column, lists, strict=True):
            row[: len(values)] = values
        columns.append(column)
    return [_condensed(column) for column in columns]


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


def _refuse_crowd(tree: cKDTree, points: NDArray[np.float64], tolerance: float) -> None:
    sample = points[:: max(1, len(points) // _CROWD_SAMPLE)]
    neighbours = tree.query_ball_point(sample, tolerance, return_length=True).mean() - 1
    pairs = 0.5 * neighbours * len(points)
    if pairs > _MAX_PAIRS:
        raise TooAlike(
            f"about {pairs:.1g} pairs of frames lie within {tolerance:g}/angstrom of each other. Lower the tolerance, "
            "or remove repeated frames first."
        )


def _chunks(count: int, width: int) -> Iterator[slice]:
    step = max(1, _CHUNK_ENTRIES // max(1, 3 * width))
    return (slice(start, start + step) for start in range(0, count, step))
