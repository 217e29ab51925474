"""Results of a slow comparison that are kept on disk, so that it goes on where it was stopped."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.files import read_json, write_json


def folder_of(name: str, *settings: Any) -> Path:
    """runs/<name>/<digest of all that the results follow from>: other settings or data never meet these results."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
    return Path("runs") / name / digest[:12]


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """The result in this file, which is made now if there is none."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, make())
    return read_json(path)
