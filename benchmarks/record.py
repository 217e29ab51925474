"""What a benchmark found, with what a reader needs to judge it: machine and load, versions, revision, seeds, digests.

A benchmark is a function without arguments that returns a `Finding`, or a plain dict of values. See benchmarks/run.py.
"""

import importlib.metadata
import json
import math
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RECORDS = Path(__file__).parent / "records"
_PACKAGES = (
    *("torch", "numpy", "numba", "onnx", "onnxruntime", "onnxruntime-gpu", "onnxscript", "vesin", "hippynn", "ase"),
    *("fastapi", "uvicorn", "orjson", "httpx", "pydantic", "tritonclient"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """Values of a benchmark and where they came from.

    Attributes:
        values: numbers by name; a unit is part of the name.
        notes: what the numbers mean and what they do not; the record holds it in one line.
        seeds: of everything random in it.
        digests: sha256 of data and models that were used, by name.
    """

    values: Mapping[str, Any]
    notes: str = ""
    seeds: list[int] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)


def write_record(name: str, finding: Finding | Mapping[str, Any], seconds: float, folder: Path = RECORDS) -> Path:
    """Write records/<name>.json; an older record of that name is replaced (git keeps it)."""
    found = finding if isinstance(finding, Finding) else Finding(finding)
    content = {
        "name": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "revision": revision(),
        "machine": machine(),
        "versions": versions(),
        "seeds": found.seeds,
        "digests": found.digests,
        "notes": " ".join(found.notes.split()),
        "values": found.values,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(_rounded(content), indent=2) + "\n")
    return path


def machine() -> dict[str, Any]:
    """CPU, cores, memory and how busy they are; a load near or above the usable cores makes timings unreliable."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": _cpu_model(),
        "logical_cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(pages / 2**30, 1),
        "load_average_1_5_15_min": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Versions of what computes, of what is installed."""
    installed = {dist.metadata["Name"].lower(): dist.version for dist in importlib.metadata.distributions()}
    return {"python": platform.python_version()} | {p: installed[p] for p in _PACKAGES if p in installed}


def revision() -> str:
    """Git revision, with a mark when files differ from it; empty outside a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return answer.stdout.strip()


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def _rounded(value: Any, digits: int = 5) -> Any:
    """Floats to a few significant digits, recursively: no more than a timing or an error deserves; no NaN."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _rounded(v, digits) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v, digits) for v in value]
    return value
