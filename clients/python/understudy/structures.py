"""What a caller may give: ASE atoms, dictionaries, files, or lists of these; and how it becomes tensors."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from understudy.errors import InvalidStructure
from understudy.framing import Array

if TYPE_CHECKING:
    from ase import Atoms

ASE_HINT: Final = "Reading structure files needs ASE: pip install ase."
_LONGEST_SYMBOL: Final = 3
_NEUTRAL: Final = {"charge": (0,), "total_charge": (0,), "spin": (0, 1), "multiplicity": (1,)}


class AtomsLike(Protocol):
    """Anything shaped as `ase.Atoms`: angstrom, rows of `cell` are lattice vectors."""

    @property
    def numbers(self) -> Any:
        """Atomic numbers [n]."""

    @property
    def positions(self) -> Any:
        """Angstrom [n, 3]."""

    @property
    def cell(self) -> Any:
        """Angstrom [3, 3], or None."""

    @property
    def pbc(self) -> Any:
        """One bool or three, or None."""


@dataclass(frozen=True, slots=True, eq=False)
class Structure:
    """Atoms in space.

    Attributes:
        numbers: int64 [n], atomic numbers.
        positions: float64 [n, 3], angstrom.
        cell: float64 [3, 3] in angstrom, rows are lattice vectors; None where nothing is periodic.
        pbc: bool [3], periodic along each lattice vector.
    """

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    cell: NDArray[np.float64] | None
    pbc: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.numbers)


One: TypeAlias = AtomsLike | Mapping[str, Any]
Many: TypeAlias = Sequence[One | str | os.PathLike[str]] | str | os.PathLike[str]


def as_structures(value: One | Many) -> tuple[list[Structure], bool]:
    """Everything that was given, in order, and whether it was one structure rather than a list.

    Args:
        value: an `ase.Atoms`, a dictionary with `numbers`, `positions` and where needed `cell` and `pbc` (angstrom),
            anything with attributes of these names, a path to a structure file (every frame of it, needs ASE), or a
            list of any of these.

    Raises:
        InvalidStructure: naming the structure's index, the field and the remedy.
    """
    if _is_list(value):
        return [as_structure(item, index) for index, item in enumerate(_expanded(value))], False
    if isinstance(value, str | os.PathLike):
        return [as_structure(frame, index) for index, frame in enumerate(read_frames(value))], False
    return [as_structure(cast(One, value))], True


def as_structure(value: One, index: int = 0) -> Structure:
    """One structure from `ase.Atoms`, a dictionary, or anything with `numbers`, `positions`, `cell` and `pbc`.

    Raises:
        InvalidStructure: naming the field; `index` is the structure's place in the caller's list.
    """
    if isinstance(value, Structure):
        return value
    field = value.get if isinstance(value, Mapping) else lambda name: getattr(value, name, None)
    if field("numbers") is None or field("positions") is None:
        raise _invalid(
            index, "numbers", f"is a {type(value).__name__} without numbers and positions", "Give ase.Atoms or a dict."
        )
    _refuse_charged(value if isinstance(value, Mapping) else field("info") or {}, index)
    numbers, pbc = _numbers(field("numbers"), index), _pbc(field("pbc"), index)
    positions = _floats(field("positions"), "positions", (len(numbers), 3), index)
    return Structure(numbers, positions, _cell(field("cell"), pbc, index), pbc)


def _refuse_charged(said: Mapping[str, Any], index: int) -> None:
    """A charge or a spin cannot be sent, and must not be left out in silence."""
    for name, neutral in _NEUTRAL.items():
        value = said.get(name)
        if isinstance(value, int | float) and value not in neutral:
            raise _invalid(index, name, f"is {value}", "The served models know neutral, closed-shell systems alone.")


def read_frames(path: str | os.PathLike[str]) -> "list[Atoms]":
    """Every frame of a structure file (xyz, extxyz, cif, POSCAR, ... whatever ASE reads), as ASE atoms.

    Raises:
        InvalidStructure: ASE is missing, or cannot read the file, or finds no structure in it.
        OSError: the file cannot be opened.
    """
    try:
        from ase.io import read
    except ImportError as error:
        raise InvalidStructure(f"{path} was not read.", code="ase_missing", hint=ASE_HINT) from error
    with open(path, "rb"):
        pass
    try:
        frames = read(os.fspath(path), index=":")
    except Exception as error:  # ASE's readers raise anything, from IndexError to their own
        raise InvalidStructure(
            f"{path} cannot be read as a structure file: {_reason(error)}.",
            code="unreadable_file",
            hint="Check its format and its ending, such as .xyz, .extxyz or .cif.",
        ) from error
    if not frames:
        raise InvalidStructure(f"{path} holds no structure.", code="unreadable_file")
    return list(frames)


def _reason(error: Exception) -> str:
    symbol = str(error.args[0]) if isinstance(error, KeyError) and error.args else ""
    if symbol.isalpha() and len(symbol) <= _LONGEST_SYMBOL:  # ASE looks symbols up in a table
        return f"no element is called {symbol}"
    return f"{type(error).__name__}: {error}"


def plain(structure: Structure) -> dict[str, Any]:
    """A structure as JSON has it, with all digits."""
    said = {"numbers": structure.numbers.tolist(), "positions": structure.positions.tolist()}
    if structure.cell is None:
        return said
    return {**said, "cell": structure.cell.tolist(), "pbc": structure.pbc.tolist()}


def pack(structures: Sequence[Structure]) -> dict[str, Array]:
    """The request's tensors: all structures concatenated.

    Returns:
        numbers [N] int64, positions [N, 3] float64 in angstrom, natoms [B] int64; if any structure is periodic also
        cell [B, 3, 3] float64 in angstrom (zeros for the others) and pbc [B, 3] bool.
    """
    tensors: dict[str, Array] = {
        "numbers": np.concatenate([s.numbers for s in structures]),
        "positions": np.concatenate([s.positions for s in structures]),
        "natoms": np.array([len(s) for s in structures], np.int64),
    }
    if any(s.cell is not None for s in structures):
        tensors["cell"] = np.stack([np.zeros((3, 3)) if s.cell is None else s.cell for s in structures])
        tensors["pbc"] = np.stack([s.pbc for s in structures])
    return tensors


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence | Iterator) and not isinstance(value, str) and not hasattr(value, "positions")


def _expanded(values: Any) -> Iterator[Any]:
    for value in values:
        if isinstance(value, str | os.PathLike):
            yield from read_frames(value)
        else:
            yield value


def _numbers(value: Any, index: int) -> NDArray[np.int64]:
    array = _array(value, "numbers", index)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise _invalid(
            index, "numbers", f"is {array.dtype} {list(array.shape)}", "Give one atomic number per atom, as integers."
        )
    if not len(array):
        raise _invalid(index, "numbers", "has no atoms", "Leave it out or give it at least one atom.")
    return array.astype(np.int64)


def _cell(value: Any, pbc: NDArray[np.bool_], index: int) -> NDArray[np.float64] | None:
    if not pbc.any():
        return None
    if value is None:
        raise _invalid(index, "cell", "is missing although pbc is true", "Give the lattice vectors, or pbc=False.")
    return _floats(value, "cell", (3, 3), index)


def _pbc(value: Any, index: int) -> NDArray[np.bool_]:
    array = _array(False if value is None else value, "pbc", index)
    if array.dtype != bool or array.shape not in ((), (3,)):
        raise _invalid(index, "pbc", f"is {array.dtype} {list(array.shape)}", "Give one bool or three.")
    return np.broadcast_to(array, 3).copy()


def _floats(value: Any, field: str, shape: tuple[int, ...], index: int) -> NDArray[np.float64]:
    array = _array(value, field, index)
    if array.dtype.kind not in "iuf" or array.shape != shape:
        raise _invalid(
            index, field, f"is {array.dtype} {list(array.shape)}", f"Give real numbers of shape {list(shape)}."
        )
    finite = np.isfinite(array)
    if not finite.all():
        row = int(np.argwhere(~finite)[0][0])
        raise _invalid(index, field, f"is not finite in row {row}", "Remove NaN and infinities.", row=row)
    return array.astype(np.float64)


def _array(value: Any, field: str, index: int) -> Array:
    try:
        return np.asarray(value)
    except ValueError as error:
        raise _invalid(index, field, "is ragged", "Give rows of equal length.") from error


def _invalid(index: int, field: str, fault: str, hint: str, **facts: Any) -> InvalidStructure:
    return InvalidStructure(
        f"structures[{index}].{field} {fault}.", hint=hint, facts={"index": index, "field": field, **facts}
    )
