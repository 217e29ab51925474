"""The shipped model of permeability on images it never saw and on a real rock."""

import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from benchmarks.record import Finding
from contract.flow import FlowInputs
from contract.repository import ModelRepository, StoredModel
from contract.voxels import AXES, Image
from service.engines import Runner
from service.engines.onnxruntime import OnnxRuntime
from service.families.field import FlowFamily, FlowPrediction
from training.files import read_json
from training.flow_evaluation import baselines, load_tables, network_permeability, permeability_metrics
from training.sampling.permeability import FLOW_AXIS, read_label
from training.simulators.creeping_flow import Solver, solve_flow

RUN: Final = Path("runs/permeability")
LARGER: Final = Path("runs/permeability-media-larger")
BEREA: Final = Path(os.environ.get("UNDERSTUDY_BEREA", "../shared/data/porous_mit/berea_110.npz"))
CROP: Final = 64
SOLVER: Final = Solver(tolerance=3e-4, flux_tolerance=5e-3, max_steps=10_000)
NOTES: Final = """
Errors on the test part of the run, whose images no weight has seen: committee of MS-Nets beside formulas fitted to the
training part, all images and by family. `conduction` is the estimate that the networks start from, times one fitted
factor. Sizes: the images of training/configs/permeability-media-larger.yaml, longer than any of the training set.
Berea: three cubes of a sandstone that is of no family of the training set, along every axis; what did not become steady
is said so.
"""
_console = Console(stderr=True)


def run() -> Finding:
    """Minutes."""
    stored = ModelRepository(Path("model_repo")).load("permeability")
    model, tables = ServedModel.of(stored), load_tables(RUN)
    values = {
        "test": dict(_errors(tables)),
        "coverage": [c.model_dump() for c in _calibrated(stored)],
        "sizes": list(_sizes(model)),
        "berea": list(_berea(model)),
    }
    digests = {
        "model": stored.digest,
        "images": read_json(RUN / "run.json")["campaign"]["images_sha256"],
        "larger images": read_json(LARGER / "sampling.json")["images_sha256"],
    }
    return Finding(values, NOTES, seeds=[0, 1, 2, 90], digests=digests)


@dataclass(frozen=True, slots=True)
class Answer:
    """Of the service along an axis, what its graph was given, and CPU seconds."""

    prediction: FlowPrediction
    inputs: FlowInputs
    features_cpu_seconds: float
    network_cpu_seconds: float

    @property
    def cpu_seconds(self) -> float:
        """Of all."""
        return self.features_cpu_seconds + self.network_cpu_seconds


@dataclass(frozen=True, slots=True)
class ServedModel:
    """The served model on one thread."""

    family: FlowFamily
    runner: Runner

    @classmethod
    def of(cls, stored: StoredModel) -> "ServedModel":
        model = cls(FlowFamily.of(stored.field_card), OnnxRuntime(1, "cpu").open(stored, "model.onnx"))
        model.answer(np.ones((8, 8, 8), bool), 2)  # numba compiles before any clock runs
        return model

    def answer(self, image: Image, axis: int) -> Answer:
        """What the service says."""
        begun = time.process_time()
        sample = self.family.encode(np.ascontiguousarray(image), axis)
        encoded = time.process_time()
        if sample.inputs.pores.percolates:
            prediction = self.family.decode(self.runner(self.family.collate([sample])), sample)
        else:
            prediction = self.family.without_flow(sample.inputs.geometry, keep_field=False)
        ended = time.process_time()
        return Answer(prediction, sample.inputs, encoded - begun, ended - encoded)


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


def _sizes(model: ServedModel) -> Iterator[dict[str, Any]]:
    """Images of every family that are up to four times as long as those of the training set."""
    for label in map(read_label, sorted(LARGER.glob("*.npz"))):
        facts = {"family": label.facts["family"], "length": label.image.shape[0], "steady": label.facts["converged"]}
        yield {**facts, **_compared(model.answer(label.image, FLOW_AXIS), label.permeability)}


def _berea(model: ServedModel) -> Iterator[dict[str, Any]]:
    if not BEREA.exists():
        _console.print(
            f"Berea is left out: {BEREA} is not there. It is data/berea_pore.raw of "
            "github.com/digital-porous-media/dpm_tools as `image`, uint8 [110, 110, 110], 0 = pore; UNDERSTUDY_BEREA "
            "names another place."
        )
        return
    with np.load(BEREA) as arrays:
        image = arrays["image"] == 0
    first, last = (len(image) - CROP) // 2, (len(image) + CROP) // 2
    cuts = {"low corner": slice(0, CROP), "middle": slice(first, last), "high corner": slice(-CROP, None)}
    for (name, cut), axis in product(cuts.items(), range(3)):
        part = np.ascontiguousarray(image[cut, cut, cut])
        flow = solve_flow(part, axis, solver=SOLVER)
        facts = {"crop": name, "axis": AXES[axis], "steady": flow.converged}
        yield {**facts, **_compared(model.answer(part, axis), flow.permeability)}


def _compared(said: Answer, simulated: float) -> dict[str, Any]:
    """Model, estimate and simulation, voxel^2."""
    prediction = said.prediction
    _console.print(f"model {prediction.permeability:.3g}, simulated {simulated:.3g}")
    return {
        "porosity": prediction.geometry.porosity,
        "model": prediction.permeability,
        "interval_95": prediction.interval_95,
        "simulated": simulated,
        "model_over_simulated": prediction.permeability / simulated if simulated else 1.0,
        "estimate": said.inputs.estimated_permeability,
        "verdict": prediction.domain.verdict,
    }
