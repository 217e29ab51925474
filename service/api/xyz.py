"""Extended XYZ bodies to structures, by ASE's reader and from memory, after checks that bound what it is given.

Only species, positions, `Lattice` and `pbc` are read. Labels in a file (energy, forces, stress) are not results and are
left out before the reader sees them.
"""

import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from contract.errors import UnknownElement
from contract.structures import Structure, checked_structure
from service.api.parse import refuse_many
from service.errors import MalformedXyz, UnknownField
from service.settings import Limits

COMMENT_CHARACTERS: Final = 16_384
COLUMNS: Final = 256
_NEUTRAL: Final = {"charge": (0,), "total_charge": (0,), "spin": (0, 1), "multiplicity": (1,)}
_READ_KEYS: Final = ("Lattice", "pbc", "Properties")
_READ_COLUMNS: Final = {"species", "symbols", "Z", "numbers", "pos", "positions"}


def structures_from_xyz(body: bytes | bytearray, limits: Limits) -> list[Structure]:
    """Every frame of an extended XYZ file.

    Raises:
        InvalidInput, ServiceError: naming the frame's index, the line and the remedy.
    """
    from ase.io.extxyz import read_xyz  # slow to import, and rarely needed

    text = _decoded(body)
    frames = _counted_frames(text.split("\n"), limits)
    structures: list[Structure] = []
    try:
        for atoms in read_xyz(io.StringIO(text), slice(0, frames), properties_parser=_comment):
            cell = np.array(atoms.cell) if atoms.cell.any() else None
            structures.append(
                checked_structure(atoms.numbers, atoms.positions, cell, np.array(atoms.pbc), len(structures))
            )
    except KeyError as error:  # ASE looks symbols up in a dictionary
        raise _unknown_symbol(str(error), len(structures)) from None
    except (ValueError, TypeError, IndexError, RuntimeError, OSError) as error:
        raise _malformed(
            f"structures[{len(structures)}] cannot be read: {_one_line(error)}.", index=len(structures)
        ) from None
    return structures


def _decoded(body: bytes | bytearray) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _malformed(f"The body is not text in UTF-8: {error.reason} at byte {error.start}.") from None


def _counted_frames(lines: Sequence[str], limits: Limits) -> int:
    """How many frames there are; every claimed number of atoms is compared with the lines that are there."""
    position = frames = atoms = 0
    while position < len(lines) and lines[position].strip():
        claim = _claimed_atoms(lines[position], position)
        present = len(lines) - position - 2
        if claim > present:
            raise _malformed(
                f"Line {position + 1} claims {claim:,} atoms, but at most {max(present, 0):,} lines follow.",
                index=frames,
                line=position + 1,
                expected=claim,
                got=max(present, 0),
            )
        if len(lines[position + 1]) > COMMENT_CHARACTERS:
            raise _malformed(f"Line {position + 2} is longer than {COMMENT_CHARACTERS:,} characters.", index=frames)
        frames, atoms, position = frames + 1, atoms + claim, position + 2 + claim
        refuse_many(frames, limits.structures, "structures")
        refuse_many(atoms, limits.atoms, "atoms")
    _refuse_rest(lines, position)
    if not frames:
        raise _malformed("The body holds no structure.")
    return frames


def _claimed_atoms(line: str, position: int) -> int:
    text = line.strip()
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise _malformed(f"Line {position + 1} should be a number of atoms, got {text[:40]!r}.", line=position + 1)
    return int(text)


def _refuse_rest(lines: Sequence[str], position: int) -> None:
    for number, line in enumerate(lines[position:], position + 1):
        if line.strip():
            raise _malformed(f"Line {number} follows an empty line and would not be read.", line=number)


def _comment(line: str) -> dict[str, Any]:
    """The comment line without labels; columns that are not read become text, so that nothing of them is converted."""
    from ase.io.extxyz import key_val_str_to_dict

    said = key_val_str_to_dict(line)  # type: ignore[no-untyped-call]
    _refuse_charged(said)
    kept = {key: said[key] for key in _READ_KEYS if key in said}
    if "pbc" in kept and np.asarray(kept["pbc"]).dtype.kind not in "bi":
        raise ValueError('pbc must be written as "T T F"')
    if "Properties" in kept:
        kept["Properties"] = _read_columns(str(kept["Properties"]))
    return kept


def _refuse_charged(said: dict[str, Any]) -> None:
    """A charge or a spin that no model of this family takes must not be left out in silence."""
    for name, neutral in _NEUTRAL.items():
        if name in said and said[name] not in neutral:
            raise UnknownField(
                f"The comment line says {name}={str(said[name])[:40]}; models here take neutral closed shells only.",
                hint="Ask a model that was made for it; without this entry the structure is taken as neutral.",
                field=name,
            )


def _read_columns(properties: str) -> str:
    fields = properties.split(":")
    triples = list(zip(fields[::3], fields[1::3], map(int, fields[2::3]), strict=True))
    if not all(0 < count <= COLUMNS for _, _, count in triples) or sum(count for _, _, count in triples) > COLUMNS:
        raise ValueError(f"Properties must name 1 to {COLUMNS} columns")
    return ":".join(
        f"{name}:{kind}:{count}" if name in _READ_COLUMNS else f"skipped{place}:S:{count}"
        for place, (name, kind, count) in enumerate(triples)
    )


def _unknown_symbol(symbol: str, index: int) -> UnknownElement:
    return UnknownElement(
        f"structures[{index}]: {symbol[:40]} is no element.",
        hint="The species column holds chemical symbols such as C.",
        field="species",
        index=index,
    )


def _malformed(detail: str, **facts: Any) -> MalformedXyz:
    return MalformedXyz(
        detail,
        hint="Each frame is a number of atoms, a comment line, and one line 'symbol x y z' per atom, in angstrom.",
        **facts,
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
