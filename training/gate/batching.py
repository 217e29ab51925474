"""How long a batch takes, by its cost: measured at admission, so that the service knows how large a batch to make."""

import time
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Final

import onnxruntime
from numpy.typing import NDArray

from contract.card import BatchingCurve, BatchPoint
from contract.graphs import build_graph, collate
from contract.structures import Structure

BATCHES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
LARGEST_SLOTS: Final = 40_000
ROUNDS: Final = 7
NEAR_THE_BEST: Final = 1.05


def batching_curve(graph_file: Path, structures: Sequence[Structure], cutoff: float) -> BatchingCurve:
    """Time a model's everyday graph on batches of more and more of its own test structures, on one thread.

    The best batch is the largest whose time per neighbour slot is within 5 % of the least: what a call costs beside the
    engine is paid once a batch.

    Args:
        graph_file: model.onnx.
        structures: of the kind that the model is for; at least one.
        cutoff: angstrom.
    """
    session = onnxruntime.InferenceSession(graph_file, _options(), providers=["CPUExecutionProvider"])
    points: list[BatchPoint] = []
    for size in BATCHES:
        batch = collate([build_graph(s, cutoff) for s in islice(cycle(structures), size)])
        slots = batch["neighbours"].size
        if points and slots > LARGEST_SLOTS:
            break
        points.append(BatchPoint(slots=slots, milliseconds=round(_milliseconds(session, batch), 4)))
    least = min(point.milliseconds / point.slots for point in points)
    best = max(p.slots for p in points if p.milliseconds / p.slots <= NEAR_THE_BEST * least)
    engine = f"onnxruntime {onnxruntime.__version__}"
    return BatchingCurve(device="cpu", engine=engine, threads=1, points=points, best_slots=best)


def _milliseconds(session: onnxruntime.InferenceSession, batch: dict[str, NDArray[Any]]) -> float:
    """Least wall time of some calls: what the machine can do when nothing else disturbs it."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        session.run(None, batch)
        times.append(1e3 * (time.perf_counter() - start))
    return min(times)


def _options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
