"""A structure: atoms in space, periodic or not, checked once at the door."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from contract.errors import (
    BadShape,
    BadType,
    CoordinateRange,
    EmptyStructure,
    MissingCell,
    NonFinite,
    SingularCell,
    UnknownElement,
)

MAX_COORDINATE_ANGSTROM: Final = 1e6
MIN_CELL_HEIGHT_ANGSTROM: Final = 0.1
_NAMED: Final = 10


@dataclass(frozen=True, slots=True)
class Structure:
    """Atoms in space.

    Attributes:
        numbers: int64 [n], atomic numbers.
        positions: float64 [n, 3], angstrom.
        cell: float64 [3, 3] in angstrom, rows are lattice vectors; None for a molecule in vacuum.
        pbc: bool [3], periodic along each lattice vector.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64] | None
    pbc: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def fully_periodic(self) -> bool:
        """Periodic in three directions: the only case in which a volume, and so a stress, exists."""
        return bool(self.pbc.all())

    @property
    def volume(self) -> float:
        """|det cell| in angstrom^3; meaningful for a fully periodic structure."""
        return 0.0 if self.cell is None else float(abs(np.linalg.det(self.cell)))


def checked_structure(numbers: Any, positions: Any, cell: Any = None, pbc: Any = None, index: int = 0) -> Structure:
    """Validate what a caller sent and return it as a Structure.

    Args:
        numbers: atomic numbers [n].
        positions: angstrom [n, 3].
        cell: angstrom [3, 3], rows are lattice vectors; may be left out.
        pbc: one bool or three; default not periodic.
        index: which structure of the request this is, for the error message.

    Raises:
        InvalidInput: a subclass that names the field, the structure's index, the atoms and the remedy.
    """
    z = _numbers(numbers, index)
    r = _positions(positions, len(z), index)
    periodic = _pbc(pbc, index)
    box = None if cell is None else _numeric(cell, "cell", (3, 3), index)
    if periodic.any():
        box = _periodic_cell(box, periodic, index)
    return Structure(z, r, box, periodic)


def _numbers(value: Any, index: int) -> NDArray[np.int64]:
    z = _array(value, "numbers", index)
    if z.ndim != 1:
        raise BadShape(
            f"structures[{index}].numbers has shape {list(z.shape)}, expected [n].",
            hint="Send one atomic number per atom.",
            field="numbers",
            index=index,
            expected=["n"],
            got=list(z.shape),
        )
    if len(z) == 0:
        raise EmptyStructure(
            f"structures[{index}] has no atoms.",
            hint="Leave it out or send at least one atom.",
            field="numbers",
            index=index,
        )
    if z.dtype.kind not in "iu":
        raise BadType(
            f"structures[{index}].numbers must be integers, got {_said(z)}.",
            hint="Send atomic numbers such as 6 for carbon.",
            field="numbers",
            index=index,
        )
    unknown = np.flatnonzero((z < 1) | (z > 118))
    if unknown.size:
        raise UnknownElement(
            f"structures[{index}].numbers: {int(z[unknown[0]])} at atom {int(unknown[0])} is no element.",
            hint="Atomic numbers are 1 to 118.",
            field="numbers",
            index=index,
            atoms=unknown[:_NAMED].tolist(),
            count=int(unknown.size),
        )
    return z.astype(np.int64, copy=False)


def _positions(value: Any, n_atoms: int, index: int) -> NDArray[np.float64]:
    r = _numeric(value, "positions", (n_atoms, 3), index)
    far = np.flatnonzero((np.abs(r) > MAX_COORDINATE_ANGSTROM).any(axis=1))
    if far.size:
        raise CoordinateRange(
            f"structures[{index}].positions: atom {int(far[0])} lies beyond {MAX_COORDINATE_ANGSTROM:.0e} angstrom.",
            hint="Positions are in angstrom; move the structure near its origin.",
            field="positions",
            index=index,
            atoms=far[:_NAMED].tolist(),
            count=int(far.size),
            limit=MAX_COORDINATE_ANGSTROM,
            unit="angstrom",
        )
    return r


def _pbc(value: Any, index: int) -> NDArray[np.bool_]:
    if value is None:
        return np.zeros(3, dtype=bool)
    flags = _array(value, "pbc", index)
    if flags.dtype.kind != "b":
        raise BadType(
            f"structures[{index}].pbc must be true or false, got {_said(flags)}.",
            hint="Send one boolean, or three (one per lattice vector).",
            field="pbc",
            index=index,
        )
    if flags.shape not in ((), (3,)):
        raise BadShape(
            f"structures[{index}].pbc has shape {list(flags.shape)}, expected one boolean or three.",
            hint="Send one boolean, or three (one per lattice vector).",
            field="pbc",
            index=index,
        )
    return np.broadcast_to(flags, (3,)).copy()


def _periodic_cell(box: NDArray[np.float64] | None, pbc: NDArray[np.bool_], index: int) -> NDArray[np.float64]:
    if box is None:
        raise MissingCell(
            f"structures[{index}] is periodic but has no cell.",
            hint="Send cell as three lattice vectors in angstrom, or pbc=false.",
            field="cell",
            index=index,
        )
    if (np.abs(box) > MAX_COORDINATE_ANGSTROM).any():
        raise CoordinateRange(
            f"structures[{index}].cell has a component beyond {MAX_COORDINATE_ANGSTROM:.0e} angstrom.",
            hint="Cell vectors are in angstrom; for a molecule in vacuum send pbc=false.",
            field="cell",
            index=index,
            limit=MAX_COORDINATE_ANGSTROM,
            unit="angstrom",
        )
    box = _completed(box, pbc)
    area = np.linalg.norm(np.cross(np.roll(box, -1, axis=0), np.roll(box, -2, axis=0)), axis=1)
    volume = abs(np.linalg.det(box))
    height = np.divide(volume, area, out=np.zeros(3), where=area > 0)
    if not (height > MIN_CELL_HEIGHT_ANGSTROM).all():
        raise SingularCell(
            f"structures[{index}].cell is flat: its lattice planes are {np.round(height, 4).tolist()} angstrom apart, "
            f"and {MIN_CELL_HEIGHT_ANGSTROM} is the least.",
            hint="Give three linearly independent lattice vectors in angstrom; reduce a very skewed cell.",
            field="cell",
            index=index,
        )
    return box


def _completed(box: NDArray[np.float64], pbc: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Give directions that are not periodic and have no vector a unit vector normal to the others."""
    box = box.copy()
    missing = ~pbc & (np.linalg.norm(box, axis=1) < 1e-8)
    if missing.any():
        _, _, basis = np.linalg.svd(box[~missing])
        box[missing] = basis[3 - int(missing.sum()) :]
    return box


def _numeric(value: Any, field: str, shape: tuple[int, ...], index: int) -> NDArray[np.float64]:
    array = _array(value, field, index)
    if array.dtype.kind not in "iuf":
        raise BadType(
            f"structures[{index}].{field} must be numbers, got {_said(array)}.",
            hint="Send plain numbers: no text, no null.",
            field=field,
            index=index,
        )
    if array.shape != shape:
        raise BadShape(
            f"structures[{index}].{field} has shape {list(array.shape)}, expected {list(shape)}.",
            hint="One row of three numbers per atom." if field == "positions" else "Three rows of three numbers.",
            field=field,
            index=index,
            expected=list(shape),
            got=list(array.shape),
        )
    array = np.ascontiguousarray(array, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
    if bad.size:
        raise NonFinite(
            f"structures[{index}].{field}: row {int(bad[0])} is not finite.",
            hint="Remove NaN and infinity.",
            field=field,
            index=index,
            atoms=bad[:_NAMED].tolist(),
            count=int(bad.size),
        )
    return array


def _said(array: NDArray[Any]) -> str:
    """The kind of an array's elements, in words where NumPy's are none."""
    words = {"U": "text", "S": "text", "b": "booleans", "O": "null or mixed values"}
    return words.get(array.dtype.kind, str(array.dtype))


def _array(value: Any, field: str, index: int) -> NDArray[Any]:
    try:
        return np.asarray(value)
    except (ValueError, OverflowError):
        raise BadShape(
            f"structures[{index}].{field} is ragged: its rows differ in length.",
            hint="Send rows of equal length.",
            field=field,
            index=index,
        ) from None
