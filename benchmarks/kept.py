"""Results of a slow comparison that are kept on disk, so that it goes on where it was stopped."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from training.checkpoint import Run, load_run, save_run
from training.files import read_json, write_json
from training.fit import Epoch
from training.networks.hipnn import HipNN


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


def kept_network(folder: Path, make: Callable[[Path], tuple[HipNN, list[Epoch]]]) -> tuple[HipNN, float]:
    """The network in this folder and the CPU seconds of its training, which is done now, or goes on, if it is not."""
    if not (folder / "run.json").exists():
        network, history = make(folder)
        save_run(folder, Run(network, {}, {"cpu_seconds": history[-1].cpu_seconds}))
    run = load_run(folder)
    return run.network, float(run.record["cpu_seconds"])
