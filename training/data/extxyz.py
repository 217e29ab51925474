"""Extended xyz, through ASE: energy, forces (-dE/dr) and stress (tensile positive) of molecules and crystals."""

import gzip
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from ase import Atoms
from ase.io import iread
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from contract.errors import InvalidInput
from contract.structures import Structure, checked_structure
from contract.units import HARTREE_EV, KCAL_MOL_EV
from training.data.cuts import cut_energy, drop_duplicates
from training.data.dataset import Dataset, ragged
from training.data.errors import UnreadableData
from training.data.provenance import Provenance

EnergyUnit = Literal["eV", "hartree", "kcal/mol"]
_EV: Final[dict[EnergyUnit, float]] = {"eV": 1.0, "hartree": HARTREE_EV, "kcal/mol": KCAL_MOL_EV}
_PROPERTIES: Final = re.compile(r"Properties=\"?([^\s\"]+)")
_USUAL: Final = "species:S:1:pos:R:3"
_MOST_COLUMNS: Final = 1000
_VOIGT: Final = ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))


class ExtxyzKeys(BaseModel):
    """Names under which labels may stand, the first that is found counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    energy: tuple[str, ...] = Field(default=("REF_energy", "energy"), min_length=1)
    forces: tuple[str, ...] = ("REF_forces", "forces")
    stress: tuple[str, ...] = ("REF_stress", "stress")
    group: str | None = Field(default=None, description="info key; frames of equal value must not be split apart")
    kind: str = Field(default="kind", description="info key; errors are told apart by it where every frame has it")


def read_extxyz(
    path: Path,
    provenance: Provenance,
    keys: ExtxyzKeys | None = None,
    energy_unit: EnergyUnit = "eV",
    max_energy_ev: float | None = None,
) -> Dataset:
    """Read every frame of an extended xyz file (also .gz); exact repeats of a geometry are dropped.

    Args:
        path: the file; lengths in angstrom.
        provenance: what the file does not say of itself.
        keys: names of the labels; default the usual ones. An isolated atom without forces has zero forces.
        energy_unit: of energies; forces are in this unit per angstrom, stresses per angstrom^3.
        max_energy_ev: frames higher than this above the lowest of the same formula are left out; None keeps all.

    Raises:
        UnreadableData: not extended xyz, or frames without energy, or some with and some without forces.
    """
    frames, keys = _frames(path), keys or ExtxyzKeys()
    dataset = ragged(
        [atoms.numbers for atoms in frames],
        [atoms.positions for atoms in frames],
        _EV[energy_unit] * _energies(frames, keys.energy, path),
        [provenance.source(path, len(frames), _virial_note(frames, keys))],
        forces=_forces(frames, keys.forces, _EV[energy_unit], path),
        cells=[atoms.cell.complete().array if atoms.pbc.any() else None for atoms in frames]
        if any(atoms.pbc.any() for atoms in frames)
        else None,
        pbc=np.array([atoms.pbc for atoms in frames]),
        stress=_stresses(frames, keys.stress, _EV[energy_unit], path),
        groups=_groups(frames, keys.group, path),
    )
    dataset = drop_duplicates(replace(dataset, kinds=_kinds(frames, keys.kind)))
    return dataset if max_energy_ev is None else cut_energy(dataset, max_energy_ev, "composition")


def read_structures(path: Path) -> list[Structure]:
    """Every frame of an extended xyz file without its labels, such as a harvest of the service that waits for them.

    Raises:
        UnreadableData: not extended xyz, or a frame that is no structure, naming it.
    """
    structures = []
    for index, atoms in enumerate(_frames(path)):
        try:
            cell = atoms.cell.complete().array if atoms.pbc.any() else None
            structures.append(checked_structure(atoms.numbers, atoms.positions, cell, atoms.pbc, index))
        except InvalidInput as error:
            raise UnreadableData(f"{path}: {error}") from None
    return structures


def _frames(path: Path) -> list[Atoms]:
    try:
        frames = list(iread(path, index=":", format="extxyz"))
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise UnreadableData(f"{path} is not extended xyz{_where_it_breaks(path)}: {error}") from None
    if not frames:
        raise UnreadableData(f"{path} has no frames.")
    return frames


def _where_it_breaks(path: Path) -> str:
    """The first frame that has not as many lines as it says, or whose atoms are not what its comment says."""
    frame = line = 0
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as lines:
            while head := lines.readline():
                line += 1
                place = f" (frame {frame}, line {line})"
                if not head.strip().isdigit():
                    return place
                kinds = _column_kinds(lines.readline())
                atoms = (lines.readline() for _ in range(int(head)))
                broken = next((i for i, atom in enumerate(atoms) if not _is_atom(atom, kinds)), None)
                if broken is not None:
                    return f" (frame {frame}, line {line + broken + 2})"
                frame, line = frame + 1, line + int(head) + 1
    except (OSError, EOFError, UnicodeDecodeError):
        return f" (after frame {frame})"
    return ""


def _column_kinds(comment: str) -> str:
    """A letter for each column of a frame: S text, R and I numbers, L truth; the usual ones where that is not said."""
    named = _PROPERTIES.search(comment)
    said = (named[1] if named else _USUAL).split(":")
    if len(said) % 3 or not all(count.isdigit() for count in said[2::3]):
        said = _USUAL.split(":")
    return "".join(kind * min(int(count), _MOST_COLUMNS) for kind, count in zip(said[1::3], said[2::3], strict=True))


def _is_atom(line: str, kinds: str) -> bool:
    words = line.split()
    return len(words) >= len(kinds) and all(_is_number(w) for w, k in zip(words, kinds, strict=False) if k in "RI")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _label(atoms: Atoms, names: Sequence[str]) -> Any:
    """The first of these labels that a frame has, wherever ASE keeps it."""
    results = {} if atoms.calc is None else atoms.calc.results
    for name in names:
        for place in (results, atoms.info, atoms.arrays):
            if name in place:
                return place[name]
    return None


def _energies(frames: Sequence[Atoms], names: Sequence[str], path: Path) -> NDArray[np.float64]:
    labels = [_label(atoms, names) for atoms in frames]
    _require(labels, f"energy ({' or '.join(names)})", path)
    try:
        return np.array([float(label) for label in labels])
    except (TypeError, ValueError):
        raise UnreadableData(f"{path}: an energy is not one number. Name the right key in `keys`.") from None


def _forces(
    frames: Sequence[Atoms], names: Sequence[str], scale: float, path: Path
) -> list[NDArray[np.float64]] | None:
    labels = [_label(atoms, names) for atoms in frames]
    if not any(label is not None for label in labels):
        return None
    labels = [
        np.zeros((1, 3)) if label is None and len(atoms) == 1 else label
        for atoms, label in zip(frames, labels, strict=True)
    ]
    _require(labels, f"forces ({' or '.join(names)})", path)
    return [scale * np.asarray(label, np.float64) for label in labels]


def _stresses(frames: Sequence[Atoms], names: Sequence[str], scale: float, path: Path) -> NDArray[np.float64] | None:
    labels = [_label(atoms, names) if atoms.pbc.all() else None for atoms in frames]
    if not any(label is not None for label in labels):
        return None
    return np.array([np.full(6, np.nan) if label is None else scale * _voigt(label, path) for label in labels])


def _voigt(stress: Any, path: Path) -> NDArray[np.float64]:
    """Six numbers xx yy zz yz xz xy of a stress given so, as 3 x 3 or as nine numbers."""
    values = np.asarray(stress, np.float64)
    if values.size == 9:
        matrix = values.reshape(3, 3)
        return np.array([0.5 * (matrix[i, j] + matrix[j, i]) for i, j in _VOIGT])
    if values.shape != (6,):
        raise UnreadableData(f"{path}: a stress has shape {list(values.shape)}, expected 6 numbers or 3 x 3.")
    return values


def _groups(frames: Sequence[Atoms], key: str | None, path: Path) -> NDArray[np.int64] | None:
    if key is None:
        return None
    values = [atoms.info.get(key) for atoms in frames]
    _require(values, f"group ({key})", path)
    return np.unique([str(value) for value in values], return_inverse=True)[1].astype(np.int64)


def _kinds(frames: Sequence[Atoms], key: str) -> NDArray[np.str_] | None:
    values = [atoms.info.get(key) for atoms in frames]
    return None if None in values else np.array(values, dtype=np.str_)


def _require(labels: Sequence[Any], what: str, path: Path) -> None:
    lacking = [i for i, label in enumerate(labels) if label is None]
    if lacking:
        raise UnreadableData(
            f"{path}: {len(lacking)} of {len(labels)} frames have no {what}, the first is frame {lacking[0]}. "
            "Name the key in `keys`, or leave these frames out of the file."
        )


def _virial_note(frames: Sequence[Atoms], keys: ExtxyzKeys) -> str:
    """A virial has no agreed sign, so it is never taken for a stress."""
    ignored = any("virial" in atoms.info and _label(atoms, keys.stress) is None for atoms in frames)
    return "The file's virials were not used: their sign is not agreed; write a stress." if ignored else ""
