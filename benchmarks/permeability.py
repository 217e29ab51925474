"""The shipped model of permeability on images it never saw, on a real rock, and beside the simulation in speed."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console

from benchmarks.record import Finding
from contract.flow import flow_inputs
from contract.repository import ModelRepository, StoredModel
from contract.units import MILLIDARCY_M2
from contract.voxels import AXES, Image
from service.engines import Runner
from service.engines.onnxruntime import OnnxRuntime
from service.families.field import FlowFamily, FlowPrediction
from training.flow_evaluation import baselines, load_tables, network_permeability, permeability_metrics
from training.pipelines.permeability import load_committee
from training.sampling.porous_media import MEDIA, packs
from training.simulators.creeping_flow import Flow, Solver, solve_flow

RUN: Final = Path("runs/permeability")
ROCKS: Final = Path("../shared/data/porous_mit")
CROP: Final = 64
SIZES: Final = {64: 2, 128: 1}
"""Images of each family by their length in voxels."""
SEED: Final = 90
SOLVER: Final = Solver(tolerance=3e-4, flux_tolerance=5e-3, max_steps=10_000)
NOTES: Final = """
Errors on the test part of the run, whose images no weight has seen: committee of MS-Nets beside formulas fitted to the
training part, all images and by family. `conduction` is the estimate that the networks start from, times one fitted
factor. Sizes: fresh images of every family, longer than any of the training set. Berea: two crops of a sandstone that
is of no family of the training set, and all of it, along every axis; what did not become steady is said so. Speed: one
image and axis on one thread, beside the time the solver takes to its own tolerance, and to the first look at which its
permeability stays within the model's error of its final value; the solver sets out from the same estimate. A busy
machine makes all slower.
"""
_console = Console(stderr=True)


def run() -> Finding:
    """Claims and speed: minutes."""
    stored = ModelRepository(Path("model_repo")).load("permeability")
    model, tables = _Model.of(stored), load_tables(RUN)
    values = {
        "test": dict(_errors(tables)),
        "coverage": [c.model_dump() for c in _calibrated(stored)],
        "sizes": list(_sizes(model)),
        "berea": list(_berea(model)),
        "speed": list(_speed(model)),
    }
    record = json.loads((RUN / "run.json").read_text())
    digests = {"model": stored.digest, "images": record["campaign"]["images_sha256"]}
    return Finding(values, NOTES, seeds=[0, 1, 2, SEED], digests=digests)


@dataclass(frozen=True, slots=True)
class _Model:
    """The served model on one thread."""

    family: FlowFamily
    runner: Runner

    @classmethod
    def of(cls, stored: StoredModel) -> "_Model":
        model = cls(FlowFamily.of(stored.field_card), OnnxRuntime(1, "cpu").open(stored, "model.onnx"))
        model.answer(np.ones((8, 8, 8), bool), 2)  # numba compiles before any clock runs
        return model

    def answer(self, image: Image, axis: int) -> tuple[FlowPrediction, dict[str, float]]:
        """The answer as the service gives it, and CPU seconds of what comes before the network, and of all."""
        begun = time.process_time()
        sample = self.family.encode(np.ascontiguousarray(image), axis)
        encoded = time.process_time()
        if sample.inputs.pores.percolates:
            prediction = self.family.decode(self.runner(self.family.collate([sample])), sample)
        else:
            prediction = self.family.without_flow(sample.inputs.geometry)
        ended = time.process_time()
        return prediction, {"features": encoded - begun, "all": ended - begun}


def _errors(tables: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, dict[str, float]]]]:
    """By family, then by method: the four numbers of training/flow_evaluation.py."""
    test = tables["test"]
    predicted = {"MS-Net committee": network_permeability(test), **baselines(tables)}
    families = sorted(set(test["family"].tolist()))
    for family in ("all", *families):
        at = np.ones(len(test["family"]), bool) if family == "all" else test["family"] == family
        yield (
            family,
            {
                name: {m.name: m.value for m in permeability_metrics(k[at], test["permeability"][at])}
                for name, k in predicted.items()
            },
        )


def _calibrated(stored: StoredModel) -> list[Any]:
    calibration = stored.field_card.committee.log_permeability
    return [] if calibration is None else list(calibration.coverage)


def _sizes(model: _Model) -> Iterator[dict[str, Any]]:
    """Fresh images of every family, two and four times as long as those of the training set."""
    for length, count in SIZES.items():
        for family, number in product(MEDIA, range(count)):
            rng = np.random.default_rng((SEED, length, list(MEDIA).index(family), number))
            image = MEDIA[family](length, rng.uniform(0.15, 0.4), rng)
            yield {"family": family, "length": length, **_compared(model, image, 2)}


def _berea(model: _Model) -> Iterator[dict[str, Any]]:
    path = ROCKS / "berea_110.npz"
    if not path.exists():
        _console.print(f"{path} is not there: Berea is left out")
        return
    with np.load(path) as arrays:
        image = arrays["image"] == 0
    low, high = (slice(0, CROP),) * 3, (slice(-CROP, None),) * 3
    for (name, crop), axis in product(
        {"low corner": image[low], "high corner": image[high], "all": image}.items(), range(3)
    ):
        yield {"crop": name, "axis": AXES[axis], **_compared(model, np.ascontiguousarray(crop), axis)}


def _compared(model: _Model, image: Image, axis: int) -> dict[str, Any]:
    """Model, estimate and simulation along an axis, voxel^2."""
    said, _ = model.answer(image, axis)
    flow = solve_flow(image, axis, solver=SOLVER)
    ratio = said.permeability / flow.permeability if flow.permeability else 1.0
    _console.print(f"{image.shape} {AXES[axis]}: model {said.permeability:.3g}, simulated {flow.permeability:.3g}")
    return {
        "porosity": float(image.mean()),
        "model": said.permeability,
        "interval_95": said.interval_95,
        "simulated": flow.permeability,
        "model_over_simulated": ratio,
        "estimate": float(flow_inputs(image, axis, 1).estimate.sum(dtype=np.float64) / image.size),
        "steady": flow.converged,
        "verdict": said.domain.verdict,
    }


def _speed(model: _Model) -> Iterator[dict[str, Any]]:
    with np.load("examples/rock.npz") as arrays:
        rock = np.unpackbits(arrays["image"]).reshape(arrays["shape"]).astype(bool)
    for image in (rock, packs(128, 0.28, np.random.default_rng(SEED))):
        said, seconds = model.answer(image, 2)
        begun = time.process_time()
        flow = solve_flow(image, 2)
        solved = time.process_time() - begun
        error = abs(said.permeability / flow.permeability - 1.0)
        yield {
            "shape": list(image.shape),
            "porosity": float(image.mean()),
            "features_cpu_seconds": seconds["features"],
            "model_cpu_seconds": seconds["all"],
            "eager_torch_cpu_seconds": _eager(image),
            "simulation_cpu_seconds": solved,
            "simulation_over_model": solved / seconds["all"],
            "simulation_to_the_models_error_cpu_seconds": _until(image, flow, error) or solved,
            "relative_error_of_k": error,
            "steps": flow.steps,
            "steady": flow.converged,
            "k_mD_at_2_um": said.permeability * 4e-12 / MILLIDARCY_M2,
        }


@torch.no_grad()
def _eager(image: Image) -> float:
    """CPU seconds of the committee in PyTorch, without the features."""
    torch.set_num_threads(1)
    config, committee = load_committee(RUN)
    tensors = [torch.from_numpy(v) for v in flow_inputs(image, 2, config.network.divisor).tensors().values()]
    begun = time.process_time()
    committee(*tensors)
    return time.process_time() - begun


def _until(image: Image, flow: Flow, error: float) -> float | None:
    """CPU seconds of the shortest simulation within an error of the final permeability; None: the whole one."""
    steps = 10
    while steps < flow.steps:
        begun = time.process_time()
        stopped = solve_flow(image, 2, solver=Solver(max_steps=steps, every=10, relaxation=flow.relaxation))
        if abs(stopped.permeability / flow.permeability - 1.0) <= error:
            return time.process_time() - begun
        steps *= 2
    return None
