"""QM-22: potential energy surfaces of small molecules (Bowman et al., J. Chem. Phys. 156, 240901 (2022)).

The published text has, frame after frame: the number of atoms; the energy in hartree (and for two molecules three more
numbers, which are not explained and not used); a line an atom with symbol, position in angstrom and, where known, the
gradient +dE/dr in hartree/bohr. `.xyz` and the published `.zip` are read, and an `.npz` of the same numbers in eV and
angstrom (numbers [N], positions [n, N, 3], energy [n], forces [n, N, 3] where known).
"""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from contract.elements import NUMBERS
from contract.units import HARTREE_EV, HARTREE_PER_BOHR_EV_ANGSTROM
from training.data.cuts import Zero, cut_energy, drop_duplicates
from training.data.dataset import Dataset, flat, uniform
from training.data.errors import UnreadableData
from training.data.provenance import Provenance

EnergyZero = Literal["total", "relative"]
_ABOVE: Final[dict[EnergyZero, Zero]] = {"total": "composition", "relative": "zero"}
_GRADIENT_COLUMNS: Final = 7
_POSITION_COLUMNS: Final = 4


def read_qm22(
    path: Path, provenance: Provenance, energy_zero: EnergyZero, max_energy_ev: float | None = None
) -> Dataset:
    """Read one molecule; exact repeats of a geometry are dropped and the notes say what was left out.

    Args:
        path: `.zip` with one `.xyz`, `.xyz`, or `.npz`.
        provenance: what the file does not say of itself.
        energy_zero: `total` energies, which are cut above the lowest frame; or `relative` to the potential's minimum.
        max_energy_ev: frames higher than this are left out; None keeps all.

    Raises:
        UnreadableData: naming the line or the array.
        EmptyData: the cut leaves nothing.
    """
    dataset = _read_npz(path, provenance) if path.suffix == ".npz" else _read_xyz(path, provenance)
    dataset = drop_duplicates(dataset)
    return dataset if max_energy_ev is None else cut_energy(dataset, max_energy_ev, _ABOVE[energy_zero])


def _read_npz(path: Path, provenance: Provenance) -> Dataset:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            numbers, positions, energy = (arrays[name] for name in ("numbers", "positions", "energy"))
            forces = arrays.get("forces")
    except (KeyError, ValueError, zipfile.BadZipFile) as error:
        raise UnreadableData(
            f"{path}: {error}. Expected arrays numbers, positions and energy (angstrom, eV)."
        ) from None
    return uniform(numbers, positions, energy, [provenance.source(path, len(energy))], forces)


def _read_xyz(path: Path, provenance: Provenance) -> Dataset:
    lines = _text(path).splitlines()
    heads, sizes = _frames(lines, path)
    energy = [_energy(lines, head + 1, path) for head in heads]
    atom_lines = np.concatenate([np.arange(head + 2, head + 2 + n) for head, n in zip(heads, sizes, strict=True)])
    numbers, values = _atoms(lines, atom_lines, path)
    forces = -HARTREE_PER_BOHR_EV_ANGSTROM * values[:, 3:] if values.shape[1] > 3 else None
    source = provenance.source(path, len(heads))
    return flat(numbers, values[:, :3], sizes, HARTREE_EV * np.array(energy), [source], forces=forces)


def _text(path: Path) -> str:
    if path.suffix != ".zip":
        return path.read_text(encoding="ascii", errors="replace")
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.lower().endswith(".xyz")]
            if len(members) != 1:
                raise UnreadableData(
                    f"{path} holds {len(members)} .xyz files, expected one. Unpack it and name the file."
                )
            with archive.open(members[0]) as member:
                return io.TextIOWrapper(member, encoding="ascii", errors="replace").read()
    except zipfile.BadZipFile:
        raise UnreadableData(f"{path} is not a zip archive. Fetch it again.") from None


def _frames(lines: Sequence[str], path: Path) -> tuple[list[int], list[int]]:
    """Line index of each frame's head, and its number of atoms."""
    heads: list[int] = []
    sizes: list[int] = []
    at, end = 0, len(lines)
    while end and not lines[end - 1].strip():
        end -= 1
    while at < end:
        word = lines[at].strip()
        if not word.isdecimal() or int(word) < 1 or at + 2 + int(word) > end:
            raise _unreadable(path, at, lines[at], "the number of atoms, with as many lines after it")
        heads.append(at)
        sizes.append(int(word))
        at += 2 + sizes[-1]
    if not heads:
        raise UnreadableData(f"{path} has no frames.")
    return heads, sizes


def _energy(lines: Sequence[str], at: int, path: Path) -> float:
    try:
        return float(lines[at].split()[0])
    except (ValueError, IndexError):
        raise _unreadable(path, at, lines[at], "an energy in hartree") from None


def _atoms(lines: Sequence[str], at: NDArray[np.int64], path: Path) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Atomic numbers [A] and the numbers behind each symbol [A, 3 or 6]."""
    words = [lines[i].split() for i in at]
    columns = len(words[0])
    for i, row in zip(at, words, strict=True):
        if len(row) != columns or columns not in (_POSITION_COLUMNS, _GRADIENT_COLUMNS) or row[0] not in NUMBERS:
            raise _unreadable(path, int(i), lines[i], "a chemical symbol, then 3 or 6 numbers as on every other line")
    try:
        values = np.array([row[1:] for row in words], np.float64)
    except ValueError:
        bad = next(int(i) for i, row in zip(at, words, strict=True) if not _all_numbers(row[1:]))
        raise _unreadable(path, bad, lines[bad], "numbers behind the symbol") from None
    return np.array([NUMBERS[row[0]] for row in words], np.int64), values


def _all_numbers(words: Sequence[str]) -> bool:
    try:
        return bool([float(word) for word in words])
    except ValueError:
        return False


def _unreadable(path: Path, at: int, line: str, expected: str) -> UnreadableData:
    return UnreadableData(f"{path}, line {at + 1}: expected {expected}, found {line[:60]!r}.")
