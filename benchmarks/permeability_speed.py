"""How long the shipped model of permeability takes, beside the simulation and PyTorch, and in how much memory."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console

from benchmarks.memory import anonymous_mb, peaks
from benchmarks.permeability import RUN, Answer, ServedModel
from benchmarks.record import Finding
from contract.flow import FlowInputs
from contract.repository import ModelRepository
from contract.voxels import Image
from training.flow_evaluation import load_tables, network_permeability
from training.pipelines.permeability import load_committee
from training.sampling.permeability import FLOW_AXIS
from training.sampling.porous_media import packs
from training.simulators.creeping_flow import Flow, Solver, solve_flow

LENGTHS: Final = (64, 128, 256)
SIMULATED_UP_TO: Final = 128
SEED: Final = 90
NOTES: Final = """
Sphere packs of porosity 0.28, one axis on one thread. `features` come before the networks, and most of them is the
estimate by conduction; `onnxruntime` and `eager_torch` are the three networks alone. `simulation` is the solver's time
to its own tolerance, and `simulation_to_the_models_error` that of the shortest one whose permeability is within `error`
of the final one: the model's median error on the test part of its run. The solver sets out from the same estimate.
`bytes_a_voxel`: the growth of the process's anonymous memory at its peak, engine included, over the voxels. A busy
machine makes all slower.
"""
_console = Console(stderr=True)


def run() -> Finding:
    """Five minutes."""
    torch.set_num_threads(1)
    stored = ModelRepository(Path("model_repo")).load("permeability")
    model, error = ServedModel.of(stored), _median_error(load_tables(RUN))
    solve_flow(np.ones((8, 8, 8), bool), FLOW_AXIS)  # numba compiles before any clock runs
    values = {str(length): _at(length, model, error) for length in LENGTHS}
    return Finding(values, NOTES, seeds=[SEED], digests={"model": stored.digest})


def _median_error(tables: Mapping[str, Mapping[str, Any]]) -> float:
    test = tables["test"]
    return float(np.median(np.abs(network_permeability(test) / test["permeability"] - 1.0)))


def _at(length: int, model: ServedModel, error: float) -> dict[str, Any]:
    """Everything about one length."""
    image = packs(length, 0.28, np.random.default_rng(SEED))
    before = anonymous_mb()
    with peaks(anonymous_mb=anonymous_mb) as largest:
        said = model.answer(image, FLOW_AXIS)
    found = {
        "model": said.prediction.permeability,
        "features_cpu_seconds": said.features_cpu_seconds,
        "onnxruntime_cpu_seconds": said.network_cpu_seconds,
        "eager_torch_cpu_seconds": _eager(said.inputs),
        "model_cpu_seconds": said.cpu_seconds,
        "bytes_a_voxel": 1e6 * (largest["anonymous_mb"] - before) / image.size,
    }
    if length <= SIMULATED_UP_TO:
        found |= _simulated(image, said, error)
    _console.print(length, found)
    return found


def _simulated(image: Image, said: Answer, error: float) -> dict[str, Any]:
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
def _eager(inputs: FlowInputs) -> float:
    """CPU seconds of the committee in PyTorch."""
    _, committee = load_committee(RUN)
    tensors = [torch.from_numpy(value) for value in inputs.tensors().values()]
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
