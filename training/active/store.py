"""What a loop has asked for and been told, in one SQLite file: nothing that was finished is lost by kill -9.

A sample is a set of named arrays (the input), found in a generation by a wave of exploration; its label is another set,
written when the reference has answered. Arrays are stored as npz without pickle.
"""

import io
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS samples (
    number INTEGER PRIMARY KEY, generation INTEGER NOT NULL, wave INTEGER NOT NULL,
    input BLOB NOT NULL, found TEXT NOT NULL, label BLOB, failed TEXT
);
CREATE TABLE IF NOT EXISTS waves (
    generation INTEGER NOT NULL, wave INTEGER NOT NULL, report TEXT NOT NULL, PRIMARY KEY (generation, wave)
);
CREATE TABLE IF NOT EXISTS generations (generation INTEGER PRIMARY KEY, report TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS facts (key TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Sample:
    """One input, where it was found, and its label if there is one.

    Attributes:
        number: in the order in which they were found, from 1.
        generation: 0 for the first, random ones.
        input: named arrays.
        found: why it was asked for, such as the trigger and the spread.
        label: named arrays, None while it waits or where it failed.
    """

    number: int
    generation: int
    input: Arrays
    found: dict[str, Any]
    label: Arrays | None


class Store:
    """The record of one loop.

    Args:
        path: of the SQLite file; made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        with self._open() as connection:
            connection.executescript(_SCHEMA)

    def add_wave(
        self, generation: int, wave: int, found: Sequence[tuple[Arrays, dict[str, Any]]], report: dict[str, Any]
    ) -> None:
        """Record one wave of exploration as a whole: it is there with all its samples, or not at all."""
        rows = [(generation, wave, _packed(arrays), json.dumps(why)) for arrays, why in found]
        with self._open() as connection:
            connection.executemany("INSERT INTO samples (generation, wave, input, found) VALUES (?, ?, ?, ?)", rows)
            connection.execute("INSERT INTO waves VALUES (?, ?, ?)", (generation, wave, json.dumps(report)))

    def waves(self, generation: int) -> list[dict[str, Any]]:
        """Reports of the waves of a generation, in order."""
        query = "SELECT report FROM waves WHERE generation = ? ORDER BY wave"
        with self._open() as connection:
            return [json.loads(row[0]) for row in connection.execute(query, (generation,))]

    def set_label(self, number: int, label: Arrays | None, failed: str = "") -> None:
        """Record the reference's answer to one sample; None with the reason if it gave none."""
        content = None if label is None else _packed(label)
        with self._open() as connection:
            connection.execute("UPDATE samples SET label = ?, failed = ? WHERE number = ?", (content, failed, number))

    def unlabelled(self, generation: int) -> list[Sample]:
        """Samples of a generation that wait for the reference."""
        return self._samples("generation = ? AND label IS NULL AND failed IS NULL", generation)

    def labelled(self, up_to_generation: int | None = None) -> list[Sample]:
        """Labelled samples in the order in which they were found; default of all generations."""
        last = 2**31 if up_to_generation is None else up_to_generation
        return self._samples("generation <= ? AND label IS NOT NULL", last)

    def count(self, generation: int) -> int:
        """Samples of a generation, labelled or not."""
        with self._open() as connection:
            query = "SELECT COUNT(*) FROM samples WHERE generation = ?"
            return int(connection.execute(query, (generation,)).fetchone()[0])

    def close_generation(self, generation: int, report: dict[str, Any]) -> None:
        """Record that a generation is over."""
        with self._open() as connection:
            connection.execute("INSERT OR REPLACE INTO generations VALUES (?, ?)", (generation, json.dumps(report)))

    def generations(self) -> list[dict[str, Any]]:
        """Reports of the generations that are over, in order."""
        with self._open() as connection:
            rows = connection.execute("SELECT report FROM generations ORDER BY generation")
            return [json.loads(row[0]) for row in rows]

    def fact(self, key: str) -> Any:
        """A value that was recorded once, such as the thresholds; None if it was not."""
        with self._open() as connection:
            row = connection.execute("SELECT value FROM facts WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def set_fact(self, key: str, value: Any) -> None:
        """Record a value; a second one of the same key is refused by the database."""
        with self._open() as connection:
            connection.execute("INSERT INTO facts VALUES (?, ?)", (key, json.dumps(value)))

    def _samples(self, where: str, value: int) -> list[Sample]:
        query = f"SELECT number, generation, input, found, label FROM samples WHERE {where} ORDER BY number"
        with self._open() as connection:
            rows = connection.execute(query, (value,)).fetchall()
        return [
            Sample(
                number, generation, _unpacked(content), json.loads(found), None if label is None else _unpacked(label)
            )
            for number, generation, content, found, label in rows
        ]

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """A connection whose changes are on disk when the block ends, or undone if it fails."""
        with closing(sqlite3.connect(self._path, timeout=30.0)) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            with connection:
                yield connection


def _packed(arrays: Arrays) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **dict(arrays))  # type: ignore[arg-type]
    return buffer.getvalue()


def _unpacked(content: bytes) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)
