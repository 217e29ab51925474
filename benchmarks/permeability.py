"""The shipped model of permeability on images it never saw, on a real rock, and beside the simulation in speed."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console

from benchmarks.record import Finding
from contract.flow import flow_inputs
from contract.repository import ModelRepository, StoredModel
from contract.units import MILLIDARCY_M2
from contract.voxels import AXES, Image
from service.engines.onnxruntime import OnnxRuntime
from service.families.field import FlowFamily, FlowPrediction
from training.flow_evaluation import baselines, load_tables, network_permeability, permeability_metrics
from training.simulators.creeping_flow import Flow, Solver, solve_flow

RUN: Final = Path("runs/permeability")
ROCKS: Final = Path("../shared/data/porous_mit")
LENGTH: Final = 64
NOTES: Final = """
Errors on the test part of the run, whose images no weight has seen: committee of MS-Nets beside formulas fitted to the
training part, all images and by family. Berea: two crops of a sandstone that is of no family of the training set, both
solved along the three axes; what did not become steady is said so. Speed: one image and axis on one thread, features
included, beside the time the solver takes to its own tolerance, and to the first look at which its permeability stays
within the model's error of its final value. A busy machine makes both slower.
"""
_console = Console(stderr=True)


def run() -> Finding:
    """Claims and speed: minutes."""
    stored = ModelRepository(Path("model_repo")).load("permeability")
    tables = load_tables(RUN)
    values = {
        "test": dict(_errors(tables)),
        "coverage": [c.model_dump() for c in _calibrated(stored)],
        "berea": list(_berea(stored)),
        "speed": list(_speed(stored)),
    }
    record = json.loads((RUN / "run.json").read_text())
    digests = {"model": stored.digest, "images": record["campaign"]["images_sha256"]}
    return Finding(values, NOTES, seeds=[0, 1, 2], digests=digests)


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


def _berea(stored: StoredModel) -> Iterator[dict[str, Any]]:
    """Two crops of a sandstone, every axis: model, interval and simulation, voxel^2."""
    path = ROCKS / "berea_110.npz"
    if not path.exists():
        _console.print(f"{path} is not there: Berea is left out")
        return
    with np.load(path) as arrays:
        image = arrays["image"] == 0
    for name, crop in (
        ("low corner", image[:LENGTH, :LENGTH, :LENGTH]),
        ("high corner", image[-LENGTH:, -LENGTH:, -LENGTH:]),
    ):
        for axis in range(3):
            said, _ = _predicted(stored, np.ascontiguousarray(crop), axis)
            flow = solve_flow(np.ascontiguousarray(crop), axis, solver=Solver(max_steps=20_000))
            yield {
                "crop": name,
                "axis": AXES[axis],
                "porosity": float(crop.mean()),
                "model": said.permeability,
                "interval_95": said.interval_95,
                "simulated": flow.permeability,
                "steady": flow.converged,
                "verdict": said.domain.verdict,
            }
            _console.print(
                f"Berea {name} {AXES[axis]}: model {said.permeability:.3g}, simulated {flow.permeability:.3g}"
            )


def _speed(stored: StoredModel) -> Iterator[dict[str, Any]]:
    with np.load("examples/rock.npz") as arrays:
        rock = np.unpackbits(arrays["image"]).reshape(arrays["shape"]).astype(bool)
    for image in (rock[:32, :32, :32], rock):
        image = np.ascontiguousarray(image)
        said, seconds = _predicted(stored, image, 2)
        solve_flow(image, 2, solver=Solver(max_steps=2))
        begun = time.process_time()
        flow = solve_flow(image, 2)
        solved = time.process_time() - begun
        error = abs(said.permeability / flow.permeability - 1.0)
        yield {
            "shape": list(image.shape),
            "porosity": float(image.mean()),
            "model_cpu_seconds": seconds,
            "simulation_cpu_seconds": solved,
            "simulation_over_model": solved / seconds,
            "simulation_to_the_models_error_cpu_seconds": _until(image, flow, error) * solved / flow.steps,
            "relative_error_of_k": error,
            "steps": flow.steps,
            "steady": flow.converged,
            "k_mD_at_2_um": said.permeability * 4e-12 / MILLIDARCY_M2,
        }


def _until(image: Image, flow: Flow, error: float) -> int:
    """Steps after which the solver's permeability stays within an error of its final value."""
    steps = 50
    while steps < flow.steps:
        stopped = solve_flow(image, 2, solver=Solver(max_steps=steps, relaxation=flow.relaxation))
        if abs(stopped.permeability / flow.permeability - 1.0) <= error:
            return steps
        steps *= 2
    return flow.steps


def _predicted(stored: StoredModel, image: Image, axis: int) -> tuple[FlowPrediction, float]:
    """The answer as the service gives it, on one thread, and its CPU seconds, features included."""
    family, runner = FlowFamily.of(stored.field_card), OnnxRuntime(1, "cpu").open(stored, "model.onnx")
    flow_inputs(image, axis, 1)  # numba compiles before the clock runs
    begun = time.process_time()
    sample = family.encode(image, axis)
    if not sample.inputs.pores.percolates:
        return family.without_flow(sample), time.process_time() - begun
    prediction = family.decode(runner(family.collate([sample])), sample)
    return prediction, time.process_time() - begun
