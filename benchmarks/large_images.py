"""Images too large for one call, bit-packed through a whole gateway: memory beside the engine, time, and seams.

Each side has a process of its own, as an engine keeps what it once took. The gateway and its caller are in it, so that
tracemalloc sees what both of them hold in Python and NumPy, and not what ONNX Runtime holds. UNDERSTUDY_MODEL_REPO and
UNDERSTUDY_MODEL name another model, UNDERSTUDY_SIDES sides.
"""

import io
import os
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from rich.console import Console
from scipy.ndimage import gaussian_filter
from understudy.inprocess import InProcess

from benchmarks.memory import anonymous_mb, peaks
from benchmarks.record import Finding
from service.app import Gateway, create_app
from service.settings import Limits, Settings

NOTES: Final = """
One axis of periodic blobs of porosity 0.25, one bit a voxel in the body. `python_mb` is the peak of what Python and
NumPy hold in gateway and caller, start-up subtracted; `resident_anonymous_mb` that of the whole process with the engine
and every model of the repository in it, of which it held `started_mb` before it was asked. `spool_mb` is on disk. CPU
seconds are those of the process, one engine call at a time. `seam` is the largest difference of the velocity in tiles
from that of the whole image in one call, over the largest velocity.
"""
SIDES: Final = tuple(int(side) for side in os.environ.get("UNDERSTUDY_SIDES", "128,256,512").split(","))
WHOLE_UP_TO: Final = 128
TIMEOUT_S: Final = 6 * 3600.0
MODEL: Final = os.environ.get("UNDERSTUDY_MODEL", "permeability")
SEED: Final = 0
_console: Final = Console()


def run() -> Finding:
    """Every side."""
    repo = Path(os.environ.get("UNDERSTUDY_MODEL_REPO", "model_repo"))
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as processes:
        measured = processes.map(_side, SIDES, [repo] * len(SIDES))
        return Finding(dict(zip(map(str, SIDES), measured, strict=True)), notes=NOTES, seeds=[SEED])


def image_of(side: int) -> np.ndarray:
    """Blobs with a period of 128 voxels, or the side."""
    period = min(side, 128)
    noise = gaussian_filter(np.random.default_rng(SEED).normal(size=(period,) * 3), 4.0, mode="wrap")
    return np.tile(noise > np.quantile(noise, 0.75), (side // period,) * 3)


def _side(side: int, repo: Path) -> dict[str, Any]:
    limits = Limits(whole_voxels=1, flow_timeout_s=TIMEOUT_S)
    with _gateway(Settings(model_repo=repo, workers=1, limits=limits)) as (client, app):
        measured = _measured(client, app, side)
    if side <= WHOLE_UP_TO:
        measured |= _seam(side, repo)
    _console.print(side, measured)
    return measured


def _measured(client: httpx.Client, app: Gateway, side: int) -> dict[str, Any]:
    bits = np.packbits(image_of(side)).tobytes()
    spool = app.state.plane.spool
    tracemalloc.start()
    begun, cpu, started = time.perf_counter(), time.process_time(), anonymous_mb()
    with peaks(resident_anonymous_mb=anonymous_mb, spool_mb=lambda: spool.used_bytes / 1e6) as largest:
        said = _ask(client, side, bits, "application/json").json()
    python = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    return {
        "voxels": side**3,
        "body_mb": len(bits) / 1e6,
        "tiles": said["tiles"]["z"],
        "k_voxel2": said["k_voxel2"]["z"],
        "python_mb": python,
        "started_mb": started,
        **largest,
        "cpu_seconds": time.process_time() - cpu,
        "wall_seconds": time.perf_counter() - begun,
    }


def _seam(side: int, repo: Path) -> dict[str, Any]:
    """Tiles beside the whole."""
    bits = np.packbits(image_of(side)).tobytes()
    fields = []
    for limits in (Limits(whole_voxels=1), Limits(whole_voxels=side**3)):
        with _gateway(Settings(model_repo=repo, workers=1, limits=limits)) as (client, _):
            cpu = time.process_time()
            fields.append(np.load(io.BytesIO(_ask(client, side, bits, "application/x-npy").content)))
            cpu = time.process_time() - cpu
    tiled, whole = fields
    return {
        "seam": float(np.abs(tiled - whole).max() / np.abs(whole).max()),
        "k_apart": float(tiled.mean(dtype=np.float64) / whole.mean(dtype=np.float64) - 1.0),
        "whole_cpu_seconds": cpu,
    }


def _ask(client: httpx.Client, side: int, bits: bytes, accept: str) -> httpx.Response:
    query: dict[str, str | float] = {
        "voxel_size_um": 2.0,
        "axis": "z",
        "axes": "z",
        "shape": f"{side},{side},{side}",
        "dtype": "bits",
    }
    headers = {"Content-Type": "application/octet-stream", "Accept": accept}
    return client.post(f"/v1/fields/{MODEL}", params=query, headers=headers, content=bits).raise_for_status()


@contextmanager
def _gateway(settings: Settings) -> Iterator[tuple[httpx.Client, Gateway]]:
    app = create_app(settings)
    with httpx.Client(transport=InProcess(app), base_url="http://127.0.0.1", timeout=None) as client:
        if not app.state.plane.models.field(MODEL).passes:
            raise RuntimeError(f"{settings.model_repo}/{MODEL} has no graphs for tiles")
        yield client, app
