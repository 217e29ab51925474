"""What runs and samplings write: JSON and arrays, each file whole or not at all."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.files import replaced, write_text


def write_json(path: Path, value: Any) -> None:
    """Write plain values; paths and dates as text."""
    write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """A record that was written by `write_json`."""
    value: dict[str, Any] = json.loads(path.read_text())
    return value


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays as compressed npz, without pickle."""
    with replaced(path) as part, part.open("wb") as stream:
        np.savez_compressed(stream, allow_pickle=False, **arrays)
