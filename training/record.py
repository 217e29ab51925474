"""What a training run writes about itself, so that anyone can tell where its weights came from and make them again."""

import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from training.fit import Epoch
    from training.pipelines.preparation import Prepared

_PACKAGES = ("torch", "numpy", "onnx", "onnxscript", "onnxruntime", "onnxruntime-gpu", "vesin")


def run_record(config: BaseModel, prepared: "Prepared", history: "Sequence[Epoch]") -> dict[str, Any]:
    """Configuration, seeds, data with hashes, split, cost, versions and revision of a run, as plain values."""
    return {
        "config": config.model_dump(mode="json"),
        "config_sha256": config_sha256(config),
        "data": [source.model_dump() for source in prepared.dataset.sources],
        "split": prepared.split.record().model_dump(),
        "epochs": len(history),
        "cpu_seconds": history[-1].cpu_seconds,
        "versions": versions(),
        "revision": revision(),
    }


def config_sha256(config: BaseModel) -> str:
    """sha256 of a configuration's canonical JSON."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()


def versions() -> dict[str, str]:
    """Versions of what computes."""
    installed = {d.name for d in importlib.metadata.distributions()}
    present = {name: importlib.metadata.version(name) for name in _PACKAGES if name in installed}
    return {"python": platform.python_version()} | present


def revision() -> str:
    """Git revision of the code, with a mark when files differ from it; empty outside a checkout."""
    here = Path(__file__).parent
    try:
        command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
        commit = subprocess.run(command, cwd=here, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit.stdout.strip()
