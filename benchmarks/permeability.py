"""The shipped model of permeability on images it never saw, on a real rock, and beside the simulation in speed."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console

from benchmarks.memory import anonymous_mb, peaks
from benchmarks.record import Finding
from contract.flow import flow_inputs
from contract.repository import ModelRepository, StoredModel
from contract.voxels import AXES, Image
from service.engines import Runner
from service.engines.onnxruntime import OnnxRuntime
from service.families.field import FlowFamily, FlowPrediction
from training.files import read_json
from training.flow_evaluation import baselines, load_tables, network_permeability, permeability_metrics
from training.pipelines.permeability import load_committee
from training.sampling.permeability import FLOW_AXIS, read_label
from training.sampling.porous_media import packs
from training.simulators.creeping_flow import Flow, Solver, solve_flow

RUN: Final = Path("runs/permeability")
LARGER: Final = Path("runs/permeability-media-larger")
BEREA: Final = Path(os.environ.get("UNDERSTUDY_BEREA", "../shared/data/porous_mit/berea_110.npz"))
CROP: Final = 64
LENGTHS: Final = (64, 128, 256)
SIMULATED_UP_TO: Final = 128
SEED: Final = 90
SOLVER: Final = Solver(tolerance=3e-4, flux_tolerance=5e-3, max_steps=10_000)
NOTES: Final = """
Errors on the test part of the run, whose images no weight has seen: committee of MS-Nets beside formulas fitted to the
training part, all images and by family. `conduction` is the estimate that the networks start from, times one fitted
factor. Sizes: the images of training/configs/permeability-media-larger.yaml, longer than any of the training set.
Berea: two crops of a sandstone that is of no family of the training set, and all of it, along every axis; what did not
become steady is said so. Speed: sphere packs of porosity 0.28, one axis on one thread. `features` come before the
networks, and most of them is the estimate; `simulation` is the solver's time to its own tolerance, and
`simulation_to_the_models_error` that of the shortest one whose permeability is within the model's median error on the
test part of the final one; the solver sets out from the same estimate. Bytes a voxel: the growth of the process's
anonymous memory at its peak, over the voxels. A busy machine makes all slower.
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
        "speed": list(_speed(model, _median_error(tables))),
    }
    digests = {
        "model": stored.digest,
        "images": read_json(RUN / "run.json")["campaign"]["images_sha256"],
        "larger images": read_json(LARGER / "sampling.json")["images_sha256"],
    }
    return Finding(values, NOTES, seeds=[0, 1, 2, SEED], digests=digests)


@dataclass(frozen=True, slots=True)
class _Answer:
    """Of the service, with the estimate that it starts from in voxel^2, and CPU seconds."""

    prediction: FlowPrediction
    estimate: float
    features_cpu_seconds: float
    network_cpu_seconds: float

    @property
    def cpu_seconds(self) -> float:
        """Of all."""
        return self.features_cpu_seconds + self.network_cpu_seconds


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

    def answer(self, image: Image, axis: int) -> _Answer:
        """What the service says."""
        begun = time.process_time()
        sample = self.family.encode(np.ascontiguousarray(image), axis)
        encoded = time.process_time()
        if sample.inputs.pores.percolates:
            prediction = self.family.decode(self.runner(self.family.collate([sample])), sample)
        else:
            prediction = self.family.without_flow(sample.inputs.geometry)
        ended = time.process_time()
        estimate = sample.inputs.estimated_permeability
        return _Answer(prediction, estimate, encoded - begun, ended - encoded)


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
    """Images of every family that are up to four times as long as those of the training set."""
    for label in map(read_label, sorted(LARGER.glob("*.npz"))):
        facts = {"family": label.facts["family"], "length": label.image.shape[0], "steady": label.facts["converged"]}
        yield {**facts, **_compared(model.answer(label.image, FLOW_AXIS), label.permeability)}


def _berea(model: _Model) -> Iterator[dict[str, Any]]:
    if not BEREA.exists():
        _console.print(
            f"Berea is left out: {BEREA} is not there. It is data/berea_pore.raw of "
            "github.com/digital-porous-media/dpm_tools as `image`, uint8 [110, 110, 110], 0 = pore; UNDERSTUDY_BEREA "
            "names another place."
        )
        return
    with np.load(BEREA) as arrays:
        image = arrays["image"] == 0
    low, high = (slice(0, CROP),) * 3, (slice(-CROP, None),) * 3
    for (name, crop), axis in product(
        {"low corner": image[low], "high corner": image[high], "all": image}.items(), range(3)
    ):
        part = np.ascontiguousarray(crop)
        flow = solve_flow(part, axis, solver=SOLVER)
        facts = {"crop": name, "axis": AXES[axis], "steady": flow.converged}
        yield {**facts, **_compared(model.answer(part, axis), flow.permeability)}


def _compared(said: _Answer, simulated: float) -> dict[str, Any]:
    """Model, estimate and simulation, voxel^2."""
    prediction = said.prediction
    _console.print(f"model {prediction.permeability:.3g}, simulated {simulated:.3g}")
    return {
        "porosity": prediction.geometry.porosity,
        "model": prediction.permeability,
        "interval_95": prediction.interval_95,
        "simulated": simulated,
        "model_over_simulated": prediction.permeability / simulated if simulated else 1.0,
        "estimate": said.estimate,
        "verdict": prediction.domain.verdict,
    }


def _median_error(tables: Mapping[str, Mapping[str, Any]]) -> float:
    test = tables["test"]
    return float(np.median(np.abs(network_permeability(test) / test["permeability"] - 1.0)))


def _speed(model: _Model, error: float) -> Iterator[dict[str, Any]]:
    for length in LENGTHS:
        image = packs(length, 0.28, np.random.default_rng(SEED))
        before = anonymous_mb()
        with peaks(anonymous_mb=anonymous_mb) as largest:
            said = model.answer(image, FLOW_AXIS)
        found = {
            "length": length,
            "porosity": said.prediction.geometry.porosity,
            "model": said.prediction.permeability,
            "features_cpu_seconds": said.features_cpu_seconds,
            "onnxruntime_cpu_seconds": said.network_cpu_seconds,
            "eager_torch_cpu_seconds": _eager(image),
            "model_cpu_seconds": said.cpu_seconds,
            "bytes_a_voxel": 1e6 * (largest["anonymous_mb"] - before) / image.size,
        }
        if length <= SIMULATED_UP_TO:
            found |= _simulated(image, said, error)
        _console.print(found)
        yield found


def _simulated(image: Image, said: _Answer, error: float) -> dict[str, Any]:
    """The solver's time, to its tolerance and to an error of the permeability."""
    begun = time.process_time()
    flow = solve_flow(image, FLOW_AXIS)
    solved = time.process_time() - begun
    stopped = _until(image, flow, error) or solved
    return {
        "simulated": flow.permeability,
        "steps": flow.steps,
        "steady": flow.converged,
        "simulation_cpu_seconds": solved,
        "simulation_over_model": solved / said.cpu_seconds,
        "error": error,
        "simulation_to_the_models_error_cpu_seconds": stopped,
        "simulation_to_the_models_error_over_model": stopped / said.cpu_seconds,
    }


@torch.no_grad()
def _eager(image: Image) -> float:
    """CPU seconds of the committee in PyTorch, without the features."""
    torch.set_num_threads(1)
    config, committee = load_committee(RUN)
    tensors = [torch.from_numpy(v) for v in flow_inputs(image, FLOW_AXIS, config.network.divisor).tensors().values()]
    begun = time.process_time()
    committee(*tensors)
    return time.process_time() - begun


def _until(image: Image, flow: Flow, error: float) -> float | None:
    """CPU seconds of the shortest simulation within an error of the final permeability; None: the whole one."""
    steps = 10
    while steps < flow.steps:
        begun = time.process_time()
        stopped = solve_flow(image, FLOW_AXIS, solver=Solver(max_steps=steps, every=10, relaxation=flow.relaxation))
        if abs(stopped.permeability / flow.permeability - 1.0) <= error:
            return time.process_time() - begun
        steps *= 2
    return None
