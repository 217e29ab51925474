"""Training steps beside hippynn's: the same frames, network, batch, loss and optimiser, in one process on one thread.

A step is everything that is paid for a batch: taking it from the data, forward, loss, backward, Adam. Ours is the step
of training/fit.py, the running average of the weights included; hippynn's is that of its loop, with the kernel that is
fastest on these data. Labels are random: no time depends on them.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import torch

from benchmarks.hippynn_training import Task, database_of, fastest_kernel, graph, quietly, use_kernel
from benchmarks.network_speed import network_config
from benchmarks.record import Finding
from benchmarks.structures import molecules
from contract.card import DataSource
from training.batches import LabelledGraphs
from training.data.dataset import ragged
from training.data.splits import Split
from training.fit import FitConfig, State
from training.networks.hipnn import HipNN
from training.objectives.forces import EnergyForceObjective
from training.objectives.losses import ObjectiveFunction, energy_objective
from training.pipelines.preparation import Prepared

FRAMES: Final = 128
ATOMS: Final = 20
BATCH: Final = 16
ROUNDS: Final = 5
Steps = Callable[[], Iterator[None]]
SIZES: Final = ("student", "teacher")
FORCES: Final = EnergyForceObjective(mode="adjoint")


def run() -> Finding:
    """Steps of every case, and hippynn's time over ours."""
    torch.set_num_threads(1)
    values = {}
    for size in SIZES:
        for name, forces in (("energies", None), ("energies and forces", FORCES)):
            values[f"{size}, batch of {BATCH}, {name}"] = case(size, BATCH, forces)
    notes = (
        f"CPU milliseconds of one step on random molecules of {ATOMS} atoms, one thread, float32: of every batch of "
        f"{FRAMES} frames the least of {ROUNDS} rounds, taken in turns. times: hippynn over ours."
    )
    return Finding(values, notes, seeds=[0])


def case(size: str, batch: int, forces: EnergyForceObjective | None, kernel: str | None = None) -> dict[str, Any]:
    """Milliseconds a step of both, and their ratio; `kernel` of hippynn, the fastest if None."""
    task = _task(size, batch, forces)
    ours = _our_steps(task)
    with quietly():
        theirs, kernel = _their_steps(task, kernel)
        taken = _in_turns({"ours": ours, "hippynn": theirs})
    return taken | {"times": taken["hippynn"] / taken["ours"], "hippynn_kernel": kernel}


def _task(size: str, batch: int, forces: EnergyForceObjective | None) -> Task:
    """Random molecules with random labels; all but two pairs of them to train on."""
    count = FRAMES + 4
    structures, generator = molecules(count, ATOMS), np.random.default_rng(0)
    source = DataSource(
        name="random molecules", origin="benchmarks/structures.py", licence="BSD-3-Clause", sha256="0" * 64,
        count=count, level_of_theory="none", citation="none",
    )  # fmt: skip
    dataset = ragged(
        [s.numbers for s in structures],
        [s.positions for s in structures],
        generator.normal(size=count),
        [source],
        forces=[generator.normal(size=(ATOMS, 3)) for _ in structures],
    )
    train, valid, test = np.split(np.arange(count), [FRAMES, FRAMES + 2])
    prepared = Prepared(dataset, Split(train, valid, test, count, 1, 0, "in order"), dict.fromkeys("HCNO", 0.0))
    fit = FitConfig(batch_size=batch, max_batch_size=batch)
    return Task("steps", network_config(size, "molecules"), prepared, fit, forces, None, 1, 0.0, 0)


def _our_steps(task: Task) -> Steps:
    objective: ObjectiveFunction = energy_objective if task.forces is None else task.forces
    train: LabelledGraphs = task.prepared.graphs("train", task.network.cutoff_angstrom)
    torch.manual_seed(0)
    state = State(HipNN(task.network), task.fit)

    def steps() -> Iterator[None]:
        for batch, labels in train.batches(task.fit.batch_size):
            state.step(objective, batch, labels, task.fit)
            yield

    return steps


def _their_steps(task: Task, kernel: str | None) -> tuple[Steps, str]:
    """Hippynn's training step, without what its loop adds once an epoch."""
    torch.manual_seed(0)
    modules, _ = graph(task)
    database = database_of(task, modules, seed=0)
    kernel = use_kernel(kernel or fastest_kernel(modules, database, task))
    optimiser = torch.optim.Adam([p for p in modules.model.parameters() if p.requires_grad], lr=1e-3)
    inputs = len(database.inputs)

    def steps() -> Iterator[None]:
        modules.model.train()
        for batch in database.make_generator("train", "eval", task.fit.batch_size):
            optimiser.zero_grad()
            loss = modules.loss(*modules.model(*batch[:inputs]), *batch[inputs:])[0]
            loss.backward()
            optimiser.step()
            yield

    return steps, kernel


def _in_turns(steps: dict[str, Steps]) -> dict[str, float]:
    """CPU milliseconds of a step of each: of every batch the least of all rounds but the first, then their mean."""
    taken: dict[str, list[list[float]]] = {name: [] for name in steps}
    for _ in range(ROUNDS + 1):
        for name, epoch in steps.items():
            torch.set_num_threads(1)  # numba may have raised it
            taken[name].append(_milliseconds(epoch))
    return {name: float(np.min(rounds[1:], axis=0).mean()) for name, rounds in taken.items()}


def _milliseconds(epoch: Steps) -> list[float]:
    """Of each step of an epoch."""
    found, start = [], time.process_time()
    for _ in epoch():
        now = time.process_time()
        found.append(1e3 * (now - start))
        start = time.process_time()
    return found
