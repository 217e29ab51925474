"""Room on disk for what is too large for memory: arrays of a running request, and images that come in parts.

Files have no name, so that they are gone with the process; blocks are taken when a file is made, so that a full disk is
an error then and not a crash later; and all files together have a limit.
"""

import mmap
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from contract.errors import UnderstudyError
from service.errors import SpoolFull


class SpoolUnusable(UnderstudyError):
    """The folder cannot be made or written to; the gateway does not start with it."""


class Spool:
    """Files of one gateway.

    Args:
        folder: where, made if it is missing; None: the system's place for temporary files.
        limit_bytes: of all files together.

    Raises:
        SpoolUnusable: no file can be made in the folder.

    Attributes:
        used_bytes: at present.
    """

    def __init__(self, folder: Path | None, limit_bytes: int) -> None:
        self.used_bytes = 0
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        if folder is not None:
            _require_usable(folder)

    @contextmanager
    def scratch(self) -> Iterator["Scratch"]:
        """Arrays for the time of a request."""
        scratch = Scratch(self)
        try:
            yield scratch
        finally:
            scratch.close()

    def open(self, size: int) -> BinaryIO:
        """A file of so many bytes; `close` gives its room back.

        Raises:
            SpoolFull: this is more than there is room for.
        """
        with self._lock:
            if self.used_bytes + size > self._limit_bytes:
                raise _full(size, self._limit_bytes - self.used_bytes)
            self.used_bytes += size
        try:
            file = tempfile.TemporaryFile(dir=self._folder, prefix="understudy-")  # noqa: SIM115 (closed by `close`)
            os.posix_fallocate(file.fileno(), 0, max(size, 1))
        except OSError as error:
            self._give_back(size)
            raise _full(size, 0) from error
        return file

    def close(self, file: BinaryIO, size: int) -> None:
        """A file that was opened with this size is needed no more."""
        file.close()
        self._give_back(size)

    def _give_back(self, size: int) -> None:
        with self._lock:
            self.used_bytes -= size


def _require_usable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise SpoolUnusable(f"UNDERSTUDY_SPOOL={folder} cannot be used: {error}") from error


class Scratch:
    """Arrays in files of a spool, until it is closed."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._files: list[tuple[BinaryIO, int]] = []
        self._maps: list[mmap.mmap] = []
        self._parts: list[Scratch] = []

    def room(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """An array of zeros, float32.

        Raises:
            SpoolFull
        """
        size = 4 * int(np.prod(shape))
        file = self._spool.open(size)
        self._files.append((file, size))
        self._maps.append(mmap.mmap(file.fileno(), size))
        return np.frombuffer(self._maps[-1], np.float32).reshape(shape)

    @contextmanager
    def part(self) -> Iterator["Scratch"]:
        """Arrays for a part of this time."""
        with self._spool.scratch() as part:
            self._parts.append(part)
            try:
                yield part
            finally:
                self._parts.remove(part)

    def let_go(self) -> None:
        """Leave what was read and written to the system, which may keep it as it likes: it counts here no more."""
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)
        for part in self._parts:
            part.let_go()

    def close(self) -> None:
        """The room is given back; arrays that are still held keep theirs until they go."""
        self._maps.clear()
        for file, size in self._files:
            self._spool.close(file, size)
        self._files.clear()


def _full(size: int, left: int) -> SpoolFull:
    return SpoolFull(
        f"This takes {size:,} bytes on the gateway's disk; {max(0, left):,} are free.",
        hint="Ask again when less is going on, or ask the operator for more (UNDERSTUDY_SPOOL_BYTES).",
        got=size,
        limit=max(0, left),
        unit="bytes",
    )
