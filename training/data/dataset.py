"""A labelled data set: structures of any sizes with energies, and where known forces and stresses."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from contract.card import DataSource
from contract.elements import hill_formula
from contract.structures import Structure
from training.data.errors import EmptyData, InconsistentData

T = TypeVar("T", bound=np.generic)

_NO_CELL: Final = np.full((3, 3), np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """n labelled frames with A atoms in all, in eV and angstrom. Build one with `uniform`, `ragged` or a reader.

    Attributes:
        numbers: int64 [A], atomic numbers, all frames concatenated.
        positions: float64 [A, 3], angstrom.
        offsets: int64 [n + 1]; frame i owns the atoms offsets[i] to offsets[i + 1].
        energy: float64 [n], eV.
        forces: float64 [A, 3], eV/angstrom, -dE/dr; None if there are none.
        cells: float64 [n, 3, 3], angstrom, rows are lattice vectors, NaN for a frame without one; None for molecules.
        pbc: bool [n, 3].
        stress: float64 [n, 6], eV/angstrom^3, tensile positive, order xx yy zz yz xz xy, NaN for a frame without one;
            None if there are none.
        groups: int64 [n]; frames of one group must not be split apart.
        frames: int64 [n]; where the frame stands in its file, counted from 0.
        source: int64 [n]; which of `sources` the frame came from.
        sources: provenance of each file; `count` is the number of frames it gave after cuts.
        kinds: text [n], what sort of frame each is, for errors told apart; None where the data do not say.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    offsets: NDArray[np.int64]
    energy: NDArray[np.float64]
    forces: NDArray[np.float64] | None
    cells: NDArray[np.float64] | None
    pbc: NDArray[np.bool_]
    stress: NDArray[np.float64] | None
    groups: NDArray[np.int64]
    frames: NDArray[np.int64]
    source: NDArray[np.int64]
    sources: tuple[DataSource, ...]
    kinds: NDArray[np.str_] | None = None

    def __post_init__(self) -> None:
        n, atoms = len(self.offsets) - 1, len(self.numbers)
        _expect_shape("numbers", self.numbers, (int(self.offsets[-1]),))
        _expect_shape("positions", self.positions, (atoms, 3))
        _expect_shape("forces", self.forces, (atoms, 3))
        _expect_shape("energy", self.energy, (n,))
        _expect_shape("cells", self.cells, (n, 3, 3))
        _expect_shape("pbc", self.pbc, (n, 3))
        _expect_shape("stress", self.stress, (n, 6))
        for name in ("groups", "frames", "source"):
            _expect_shape(name, getattr(self, name), (n,))
        _expect_shape("kinds", self.kinds, (n,))

    def __len__(self) -> int:
        return len(self.energy)

    def __iter__(self) -> Iterator[Structure]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: int) -> Structure:
        """Structure of one frame; its arrays are views."""
        i = range(len(self))[index]
        atoms = self.atoms_of(i)
        cell = None if self.cells is None or np.isnan(self.cells[i]).any() else self.cells[i]
        return Structure(self.numbers[atoms], self.positions[atoms], cell, self.pbc[i])

    def __repr__(self) -> str:
        labels = [name for name in ("energy", "forces", "stress") if getattr(self, name) is not None]
        return f"<Dataset of {len(self)} frames, {len(self.numbers)} atoms, {', '.join(labels)}>"

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Atoms of each frame, int64 [n]."""
        return np.diff(self.offsets)

    def atoms_of(self, frame: int) -> slice:
        """Rows of `numbers`, `positions` and `forces` that belong to a frame."""
        return slice(int(self.offsets[frame]), int(self.offsets[frame + 1]))

    def select(self, indices: ArrayLike) -> "Dataset":
        """The frames at these indices, in this order; a boolean mask [n] is understood too."""
        chosen = np.asarray(indices)
        if chosen.dtype == bool:
            _expect_shape("mask", chosen, (len(self),))
            chosen = np.flatnonzero(chosen)
        chosen = np.arange(len(self), dtype=np.int64)[chosen.astype(np.int64, copy=False)]
        rows, offsets = self._rows(chosen)
        return replace(
            self,
            numbers=self.numbers[rows],
            positions=self.positions[rows],
            offsets=offsets,
            energy=self.energy[chosen],
            forces=_taken(self.forces, rows),
            cells=_taken(self.cells, chosen),
            pbc=self.pbc[chosen],
            stress=_taken(self.stress, chosen),
            groups=self.groups[chosen],
            frames=self.frames[chosen],
            source=self.source[chosen],
            kinds=_taken(self.kinds, chosen),
        )

    def noting(self, note: str) -> "Dataset":
        """The same frames with a sentence added to each source's notes, and its count of frames brought up to date."""
        if not len(self):
            raise EmptyData(f"{self._names()}: no frame is left. {note} Loosen the cut or check its unit (eV).")
        counts = np.bincount(self.source, minlength=len(self.sources))
        sources = tuple(
            s.model_copy(update={"count": int(c), "notes": f"{s.notes} {note}".strip()})
            for s, c in zip(self.sources, counts, strict=True)
        )
        return replace(self, sources=sources)

    def element_counts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Elements present, ascending [s], and how many atoms of each a frame has [n, s]."""
        elements, column = np.unique(self.numbers, return_inverse=True)
        frame = np.repeat(np.arange(len(self)), self.sizes)
        counts = np.bincount(frame * len(elements) + column, minlength=len(self) * len(elements))
        return elements, counts.reshape(len(self), len(elements)).astype(np.int64)

    def compositions(self) -> NDArray[np.int64]:
        """A label [n] that is equal for frames of the same formula, counted from 0."""
        if not len(self):
            return np.zeros(0, np.int64)
        return np.unique(self.element_counts()[1], axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64)

    def formulas(self) -> list[str]:
        """Hill formulas that occur, sorted."""
        _, first = np.unique(self.compositions(), return_index=True)
        return sorted(hill_formula(self.numbers[self.atoms_of(int(i))]) for i in first)

    def _rows(self, chosen: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        sizes = self.sizes[chosen]
        offsets = _offsets(sizes)
        rows = np.arange(offsets[-1], dtype=np.int64) + np.repeat(self.offsets[chosen] - offsets[:-1], sizes)
        return rows, offsets

    def _names(self) -> str:
        return ", ".join(source.name for source in self.sources)


def flat(
    numbers: ArrayLike,
    positions: ArrayLike,
    sizes: ArrayLike,
    energy: ArrayLike,
    sources: Sequence[DataSource],
    *,
    forces: ArrayLike | None = None,
    cells: ArrayLike | None = None,
    pbc: ArrayLike | None = None,
    stress: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> Dataset:
    """Frames whose atoms are concatenated already.

    Args:
        numbers: atomic numbers [A].
        positions: angstrom [A, 3].
        sizes: atoms of each frame [n].
        energy: eV [n].
        sources: provenance, of one file.
        forces: eV/angstrom [A, 3], -dE/dr.
        cells: angstrom [n, 3, 3]; default molecules in vacuum.
        pbc: [n, 3]; default not periodic.
        stress: eV/angstrom^3 [n, 6], as in `Dataset`.
        groups: [n], what must not be split apart; default each frame by itself.

    Raises:
        InconsistentData: naming the array and the shape that was expected.
    """
    atoms = np.asarray(sizes, np.int64)
    n = len(atoms)
    return Dataset(
        numbers=np.asarray(numbers, np.int64),
        positions=np.asarray(positions, np.float64),
        offsets=_offsets(atoms),
        energy=np.asarray(energy, np.float64),
        forces=None if forces is None else np.asarray(forces, np.float64),
        cells=None if cells is None else np.asarray(cells, np.float64),
        pbc=np.zeros((n, 3), bool) if pbc is None else np.asarray(pbc, bool),
        stress=None if stress is None else np.asarray(stress, np.float64),
        groups=np.arange(n, dtype=np.int64) if groups is None else np.asarray(groups, np.int64),
        frames=np.arange(n, dtype=np.int64),
        source=np.zeros(n, np.int64),
        sources=tuple(sources),
    )


def uniform(
    numbers: ArrayLike,
    positions: ArrayLike,
    energy: ArrayLike,
    sources: Sequence[DataSource],
    forces: ArrayLike | None = None,
) -> Dataset:
    """Many frames of one molecule in vacuum: numbers [N], positions [n, N, 3], energy [n], forces [n, N, 3]."""
    z, r = np.asarray(numbers, np.int64), np.asarray(positions, np.float64)
    _expect_shape("positions", r, (*r.shape[:1], len(z), 3))
    f = None if forces is None else np.asarray(forces, np.float64)
    _expect_shape("forces", f, r.shape)
    return flat(
        np.tile(z, len(r)),
        r.reshape(-1, 3),
        np.full(len(r), len(z)),
        energy,
        sources,
        forces=None if f is None else f.reshape(-1, 3),
    )


def ragged(
    numbers: Sequence[ArrayLike],
    positions: Sequence[ArrayLike],
    energy: ArrayLike,
    sources: Sequence[DataSource],
    *,
    forces: Sequence[ArrayLike] | None = None,
    cells: Sequence[ArrayLike | None] | None = None,
    pbc: ArrayLike | None = None,
    stress: ArrayLike | None = None,
    groups: ArrayLike | None = None,
) -> Dataset:
    """Frames of any sizes, each argument a sequence over frames; a cell of None stands for no cell. Else as `flat`."""
    return flat(
        _joined("numbers", numbers, np.zeros(0, np.int64)),
        _joined("positions", positions, np.zeros((0, 3))),
        [len(np.asarray(z)) for z in numbers],
        energy,
        sources,
        forces=None if forces is None else _joined("forces", forces, np.zeros((0, 3))),
        cells=None if cells is None else np.array([_NO_CELL if c is None else c for c in cells], np.float64),
        pbc=pbc,
        stress=stress,
        groups=groups,
    )


def concatenate(datasets: Sequence[Dataset]) -> Dataset:
    """One data set of several; their groups stay apart, and they have kinds if all of them have.

    Raises:
        InconsistentData: some have forces (or stresses) and some have none, which no loss could weigh silently.
    """
    if not datasets:
        raise EmptyData("concatenate needs at least one data set.")
    file_start = np.cumsum([0] + [len(d.sources) for d in datasets])
    group_start = np.cumsum([0] + [int(d.groups.max(initial=-1)) + 1 for d in datasets])
    return Dataset(
        numbers=np.concatenate([d.numbers for d in datasets]),
        positions=np.concatenate([d.positions for d in datasets]),
        offsets=_offsets(np.concatenate([d.sizes for d in datasets])),
        energy=np.concatenate([d.energy for d in datasets]),
        forces=_all_or_none("forces", datasets),
        cells=_cells(datasets),
        pbc=np.concatenate([d.pbc for d in datasets]),
        stress=_all_or_none("stress", datasets),
        groups=np.concatenate([d.groups + g for d, g in zip(datasets, group_start[:-1], strict=True)]),
        frames=np.concatenate([d.frames for d in datasets]),
        source=np.concatenate([d.source + s for d, s in zip(datasets, file_start[:-1], strict=True)]),
        sources=tuple(source for d in datasets for source in d.sources),
        kinds=_kinds(datasets),
    )


def _expect_shape(name: str, array: NDArray[Any] | None, shape: tuple[int, ...]) -> None:
    if array is not None and array.shape != shape:
        raise InconsistentData(
            f"{name} has shape {list(array.shape)}, expected {list(shape)}. One row per atom for numbers, positions "
            "and forces; one entry per frame for everything else."
        )


def _offsets(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def _joined(name: str, parts: Sequence[ArrayLike], empty: NDArray[Any]) -> NDArray[Any]:
    arrays = [np.asarray(part, empty.dtype) for part in parts]
    for frame, array in enumerate(arrays):
        if array.ndim != empty.ndim or array.shape[1:] != empty.shape[1:]:
            row = "one number" if empty.ndim == 1 else "a row of three numbers"
            raise InconsistentData(
                f"frame {frame}: {name} has shape {list(array.shape)}, expected {row} for each atom."
            )
    return np.concatenate([empty, *arrays])


def _taken(array: NDArray[T] | None, rows: NDArray[np.int64]) -> NDArray[T] | None:
    return None if array is None else array[rows]


def _all_or_none(name: str, datasets: Sequence[Dataset]) -> NDArray[np.float64] | None:
    have = [getattr(d, name) is not None for d in datasets]
    if all(have):
        return np.concatenate([getattr(d, name) for d in datasets])
    if any(have):
        lacking = ", ".join(d._names() for d, h in zip(datasets, have, strict=True) if not h)
        raise InconsistentData(f"{lacking} has no {name}, the others have. Train on it apart or drop the {name}.")
    return None


def _cells(datasets: Sequence[Dataset]) -> NDArray[np.float64] | None:
    if all(d.cells is None for d in datasets):
        return None
    return np.concatenate([np.tile(_NO_CELL, (len(d), 1, 1)) if d.cells is None else d.cells for d in datasets])


def _kinds(datasets: Sequence[Dataset]) -> NDArray[np.str_] | None:
    kinds = [d.kinds for d in datasets if d.kinds is not None]
    return np.concatenate(kinds) if len(kinds) == len(datasets) else None
