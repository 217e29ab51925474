"""Out of memory, as the engines say it, and how much there was."""

import re
from pathlib import Path
from typing import Final

# What tells these failures from all others, by who says it.
_TEXTS: Final = re.compile(
    r"""
      failed\ to\ allocate\ memory        # ONNX Runtime's arena, Triton
    | smaller\ than\ requested\ bytes     # ONNX Runtime's arena at its limit
    | bad_alloc | bad\ allocation         # C++, through ONNX Runtime or TorchScript
    | cudaErrorMemoryAllocation
    | (?:CUBLAS|CUDNN)_STATUS_ALLOC_FAILED
    | not\ enough\ memory                 # PyTorch on the CPU
    | can(?:'t|not)\ allocate\ memory      # PyTorch on the CPU, the operating system
    | unable\ to\ allocate                # NumPy
    | out[ _]of[ _]memory                 # CUDA, PyTorch, AOTInductor, Warp, Triton
    """,
    re.IGNORECASE | re.VERBOSE,
)
_UNITS: Final = {"": 1, "b": 1, "bytes": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_FREE: Final = (
    re.compile(r"of which ([0-9.]+) (\w+) is free", re.IGNORECASE),  # PyTorch on CUDA
    re.compile(r"available memory of ([0-9]+)()", re.IGNORECASE),  # ONNX Runtime's arena
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an engine call failed because memory was short: its own, or that of its device."""
    return isinstance(error, MemoryError) or _TEXTS.search(str(error)) is not None


def free_bytes(error: BaseException) -> int | None:
    """What was free: as the error says, or else what this machine, or its container, has now; None if neither tells."""
    for pattern in _FREE:
        if match := pattern.search(str(error)):
            return int(float(match[1]) * _UNITS.get(match[2].lower(), 1))
    return _host_free_bytes()


def _host_free_bytes() -> int | None:
    known = [free for free in (_machine(), _container()) if free is not None]
    return min(known, default=None)


def _machine() -> int | None:
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _container() -> int | None:
    folder = Path("/sys/fs/cgroup")
    try:
        return int((folder / "memory.max").read_text()) - int((folder / "memory.current").read_text())
    except (OSError, ValueError):  # no cgroup v2, or "max": no limit
        return None
