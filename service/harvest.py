"""The harvest: structures that the models answered badly or may have, kept for whoever trains the next ones.

Extended XYZ in rolling files, read by `training.data.extxyz`. What the models said stands under names of its own
(`predicted_energy`, `predicted_forces`, `teacher_energy`), so that nobody trains on it by accident.

A file is written whole beside its place and renamed into it: no reader, and no kill, ever sees half a structure. A file
takes up to 64 structures or 256 KiB, so what one more structure writes again is small.
"""

import os
import secrets
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from contract.elements import SYMBOLS
from contract.errors import UnderstudyError
from contract.structures import Structure

Outcome = Literal["kept", "duplicate", "full", "failed"]
FILE_STRUCTURES: Final = 64
FILE_BYTES: Final = 256 * 1024
_PATTERN: Final = "harvest-*.extxyz"
_HASH: Final = "input_sha256="


class HarvestUnusable(UnderstudyError):
    """The folder of the harvest cannot be made, read or understood; the gateway does not start with it."""


@dataclass(frozen=True, slots=True, eq=False)
class Harvested:
    """One structure that is worth a reference calculation.

    Attributes:
        input_sha256: of its canonical form, as in receipts.
        reasons: flags, such as "out_of_domain".
        model, version, digest: who answered.
        energy: eV, the model's; energy_std of its committee, where there is one.
        forces: [n, 3], eV/angstrom, the model's.
        teacher_energy: eV, where the teacher was asked.
        teacher_forces: [n, 3], eV/angstrom, likewise.
    """

    structure: Structure
    input_sha256: str
    reasons: Sequence[str]
    model: str
    version: str
    digest: str
    energy: float
    energy_std: float | None
    forces: NDArray[np.float32]
    teacher_energy: float | None = None
    teacher_forces: NDArray[np.float32] | None = None


class Harvest:
    """A folder of harvested structures, bounded and without repeats; safe to share between threads and gateways.

    Args:
        folder: it is made where it is missing.
        max_bytes, max_structures: of the whole folder; what comes when it is full is counted and left.

    Attributes:
        outcomes: how many structures were kept, repeats, too many, or could not be written.
    """

    def __init__(self, folder: Path, max_bytes: int, max_structures: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.max_structures = max_structures
        self.outcomes: Counter[Outcome] = Counter()
        self._lock = threading.Lock()
        self._writer = secrets.token_hex(3)
        self._number = 0
        self._file = _File()
        self._known: set[str] = set()
        self._bytes = 0
        folder.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder)
        self._count()

    @property
    def structures(self) -> int:
        """Structures in the folder."""
        return len(self._known)

    @property
    def bytes(self) -> int:
        """Bytes in the folder."""
        return self._bytes

    def keep(self, harvested: Harvested) -> Outcome:
        """Keep a structure; whatever goes wrong is an outcome, not an error."""
        with self._lock:
            outcome = self._keep(harvested)
            self.outcomes[outcome] += 1
        return outcome

    def _keep(self, harvested: Harvested) -> Outcome:
        if harvested.input_sha256 in self._known:
            return "duplicate"
        now = datetime.now(UTC)
        frame = frame_of(harvested, now)
        if self._is_full(len(frame)):
            self._count()  # somebody may have taken files away
            if self._is_full(len(frame)):
                return "full"
        day = now.date().isoformat()
        if not self._file.takes(day, len(frame)):
            self._number += 1
            self._file = _File(day, self.folder / f"harvest-{day}-{self._writer}-{self._number:05}.extxyz")
        try:
            self._file.add(frame)
        except OSError:  # disk full, folder gone: plain inference goes on
            return "failed"
        self._known.add(harvested.input_sha256)
        self._bytes += len(frame)
        return "kept"

    def _is_full(self, size: int) -> bool:
        return len(self._known) >= self.max_structures or self._bytes + size > self.max_bytes

    def _count(self) -> None:
        """Learn what is in the folder."""
        self._known = set(known_hashes(self.folder))
        self._bytes = sum(path.stat().st_size for path in files_of(self.folder))
        self._file = _File()


@dataclass(slots=True)
class _File:
    """One file of the harvest, and what is in it."""

    day: str = ""
    path: Path = Path()
    content: bytes = b""
    structures: int = 0

    def takes(self, day: str, size: int) -> bool:
        return (
            day == self.day
            and self.structures < FILE_STRUCTURES
            and (not self.content or len(self.content) + size <= FILE_BYTES)
        )

    def add(self, frame: bytes) -> None:
        """Write the file again with one more frame, in one step; if that fails, it stays as it was."""
        content = self.content + frame
        beside = self.path.with_suffix(".tmp")
        try:
            with beside.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(beside, self.path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise
        self.content, self.structures = content, self.structures + 1


def frame_of(harvested: Harvested, when: datetime) -> bytes:
    """One frame of extended XYZ; positions are written so that they are read back to the last bit."""
    structure = harvested.structure
    columns: list[NDArray[Any]] = [structure.positions, harvested.forces]
    properties = "species:S:1:pos:R:3:predicted_forces:R:3"
    if harvested.teacher_forces is not None:
        columns.append(harvested.teacher_forces)
        properties += ":teacher_forces:R:3"
    rows = np.concatenate(columns, axis=1, dtype=np.float64).tolist()
    lines = [str(len(structure)), " ".join(_comment(harvested, properties, when))]
    for number, row in zip(structure.numbers.tolist(), rows, strict=True):
        lines.append(" ".join([SYMBOLS[number], *map(repr, row)]))
    return ("\n".join(lines) + "\n").encode()


def _comment(harvested: Harvested, properties: str, when: datetime) -> Iterator[str]:
    structure = harvested.structure
    if structure.cell is not None and structure.pbc.any():
        yield f'Lattice="{" ".join(map(repr, structure.cell.ravel().tolist()))}"'
    yield f"Properties={properties}"
    yield f"{_HASH}{harvested.input_sha256}"
    yield f"reasons={','.join(harvested.reasons)}"
    yield f"model={harvested.model} model_version={harvested.version} model_digest={harvested.digest}"
    yield f"predicted_energy={harvested.energy!r}"
    if harvested.energy_std is not None:
        yield f"predicted_energy_std={harvested.energy_std!r}"
    if harvested.teacher_energy is not None:
        yield f"teacher_energy={harvested.teacher_energy!r}"
    yield f"asked_at={when.isoformat(timespec='seconds')}"
    yield f'pbc="{" ".join("FT"[flag] for flag in structure.pbc.tolist())}"'


def files_of(folder: Path) -> list[Path]:
    """The files of a harvest, oldest first."""
    return sorted(folder.glob(_PATTERN))


def frames_in(path: Path) -> Iterator[list[str]]:
    """The frames of one file, as lines."""
    lines = path.read_text().splitlines()
    while lines:
        size = int(lines[0]) + 2
        yield lines[:size]
        lines = lines[size:]


def comment_values(frame: Sequence[str]) -> dict[str, str]:
    """The plain `key=value` pairs of a frame's comment line."""
    pairs = (word.partition("=") for word in frame[1].split() if "=" in word)
    return {key: value for key, _, value in pairs}


def known_hashes(folder: Path) -> Iterable[str]:
    """Hashes of all structures of a harvest."""
    for path in files_of(folder):
        for word in path.read_text().split():
            if word.startswith(_HASH):
                yield word.removeprefix(_HASH)


def _remove_leftovers(folder: Path) -> None:
    """What a killed writer left beside its file; that of a living one of another gateway is young."""
    now = datetime.now(UTC).timestamp()
    for path in folder.glob("harvest-*.tmp"):
        if now - path.stat().st_mtime > 60:
            path.unlink(missing_ok=True)
