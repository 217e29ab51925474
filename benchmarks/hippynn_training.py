"""One hippynn 0.1.3 network trained as a network of ours is: same data, split, shape, loss, optimiser and schedule.

Graph, data loader, training loop, plateau scheduler and kernels are hippynn's own.
"""

import contextlib
import copy
import io
import itertools
import math
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

os.environ.setdefault("HIPPYNN_WARN_LOW_DISTANCES", "False")
os.environ.setdefault("HIPPYNN_PROGRESS", "none")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import hippynn
import numpy as np
import torch
from hippynn.databases import Database
from hippynn.experiment import SetupParams, assemble_for_training, setup_training
from hippynn.experiment.controllers import PatienceController, RaiseBatchSizeOnPlateau
from hippynn.experiment.routines import training_loop
from hippynn.graphs import IdxType, inputs, loss, networks, physics, targets
from hippynn.pretraining import hierarchical_energy_initialization
from rich.console import Console
from torch import Tensor

from benchmarks.hippynn_twin import CLASSES
from contract.card import Metric
from training.batches import labelled_graphs, reference_energies
from training.data.dataset import Dataset
from training.data.strata import strata_of
from training.evaluation import EVALUATION_BATCH, force_metrics_by_stratum, metrics_by_stratum, predict_forces
from training.fit import FitConfig
from training.networks.hipnn import HipNN, HipNNConfig
from training.networks.hippynn_weights import HippynnSettings, load_hippynn
from training.objectives.forces import EnergyForceObjective
from training.pipelines.preparation import Prepared, member_weights
from training.schedule import cosine

_COSINE_STEPS: Final = 1000
_console = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Task:
    """What one network of a run was to learn, and what that took.

    Attributes:
        name: of the run.
        network: the shape of one network.
        prepared: data, split and atomic references.
        fit: optimiser and schedule.
        forces: weights of energies and forces in the loss; None for energies alone.
        energy_scale_ev: how frames are weighted (CommitteeConfig).
        members: networks in the run.
        cpu_seconds: of the whole run.
        epochs: that each network saw.
    """

    name: str
    network: HipNNConfig
    prepared: Prepared
    fit: FitConfig
    forces: EnergyForceObjective | None
    energy_scale_ev: float | None
    members: int
    cpu_seconds: float
    epochs: int


@dataclass(frozen=True, slots=True)
class Budget:
    """A training ends with the epoch that passes one of these."""

    cpu_seconds: float = math.inf
    epochs: float = math.inf

    def spent(self, cpu_seconds: float, epochs: float) -> float:
        """The share that is spent, 1 when it is all."""
        return max(cpu_seconds / self.cpu_seconds, epochs / self.epochs)


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained hippynn network: its errors on the test part, and what it took."""

    metrics: list[Metric]
    cpu_seconds: float
    epochs: int
    kernel: str


def version() -> str:
    """Of hippynn."""
    return str(hippynn.__version__)


def train(task: Task, budget: Budget, seed: int, kernel: str | None = None) -> Trained:
    """Train one hippynn network and measure it on the test part."""
    torch.manual_seed(seed)
    with quietly(), _console.status(f"hippynn beside {task.name}, seed {seed}") as status:
        modules, energy = graph(task)
        database = database_of(task, modules, seed)
        hierarchical_energy_initialization(energy, database, trainable_after=False)
        kernel = use_kernel(kernel or fastest_kernel(modules, database, task))
        pace = Pace(budget, task.fit, len(task.prepared.split.train))
        modules, controller, metrics = setup_training(
            modules, SetupParams(controller=pace.controller(modules.model), device="cpu")
        )
        callbacks = [lambda epoch, better: status.update(pace.text(task.name, epoch))]
        pace.start()
        training_loop(
            modules, database, controller, metrics, callbacks, [pace.after_batch],
            store_all_better=False, store_best=False, store_every=0, quiet=True,
        )  # fmt: skip
        modules.model.load_state_dict(metrics.best_model)
    return Trained(
        held_out_errors(task, modules.model.state_dict()), pace.cpu_seconds, controller.current_epoch, kernel
    )


def graph(task: Task) -> tuple[Any, Any]:
    """Training modules of hippynn (model, loss, evaluator) and its energy node."""
    c = task.network
    species, positions = inputs.SpeciesNode(db_name="Z"), inputs.PositionsNode(db_name="R")
    shape = {
        "possible_species": [0, *c.elements],
        "n_features": c.features,
        "n_sensitivities": c.sensitivities,
        "dist_soft_min": c.soft_min_angstrom,
        "dist_soft_max": c.soft_max_angstrom,
        "dist_hard_max": c.cutoff_angstrom,
        "n_interaction_layers": c.interaction_layers,
        "n_atom_layers": c.atom_layers,
    }
    if c.order:
        shape["cusp_reg"] = c.cusp_regulariser
    network = getattr(networks, CLASSES[c.order])("network", (species, positions), module_kwargs=shape)
    energy = targets.HEnergyNode("energy", network, db_name="E")
    weight = inputs.InputNode(db_name="W", index_state=IdxType.Molecules)
    total = loss.WeightedMSELoss.of_node(energy.mol_energy, weight) ** 0.5
    total = total + loss.WeightedMAELoss.of_node(energy.mol_energy, weight)
    if task.forces is not None:
        forces = physics.GradientNode("forces", (energy, positions), sign=-1)
        forces.db_name = "F"
        on_forces = loss.MSELoss.of_node(forces) ** 0.5 + loss.MAELoss.of_node(forces)
        total = task.forces.energy_weight * total + task.forces.force_weight * on_forces
    modules, _ = assemble_for_training(total, {"loss": total})
    return modules, energy


def database_of(task: Task, modules: Any, seed: int) -> Any:
    """The run's frames in hippynn's database, parted as the run's, atomic references subtracted in float64."""
    parts = task.prepared.split
    data = task.prepared.dataset
    if data.pbc.any():
        raise ValueError(f"{task.name} has periodic frames; this comparison knows molecules in vacuum")
    if task.forces is not None and task.energy_scale_ev is not None:
        raise ValueError(f"{task.name} weighs forces by energy_scale_ev; the losses of hippynn cannot")
    info = modules.evaluator.db_info
    wanted = {name: array for name, array in arrays(task).items() if name in info["inputs"] + info["targets"]}
    database = Database(wanted, info["inputs"], info["targets"], seed=seed, pin_memory=False, quiet=True)
    for name in ("train", "valid", "test"):
        database.make_explicit_split(name, torch.from_numpy(getattr(parts, name)))
    return database


def arrays(task: Task) -> dict[str, Tensor]:
    """Padded arrays of all frames: Z [n, N], R and where they are known F [n, N, 3], E and weights W [n, 1].

    Weights are those of the run's loss: each part has its own lowest frame.
    """
    data = task.prepared.dataset
    energy = data.energy - reference_energies(data, task.prepared.references)
    weight = np.ones((len(data), 1), np.float32)
    for name in ("train", "valid", "test"):
        part = getattr(task.prepared.split, name)
        weight[part] = member_weights(data.energy[part], 1, task.energy_scale_ev, folds=0, seed=0)
    found = {
        "Z": padded(data, data.numbers),
        "R": padded(data, data.positions).float(),
        "E": torch.from_numpy(energy[:, None]).float(),
        "W": torch.from_numpy(weight),
    }
    return found if data.forces is None else found | {"F": padded(data, data.forces).float()}


def padded(data: Dataset, values: Any) -> Tensor:
    """Values of atoms [A, ...] as [n, N, ...], zeros behind; N atoms in the largest frame."""
    frames = [torch.from_numpy(values[data.atoms_of(i)]) for i in range(len(data))]
    return torch.nn.utils.rnn.pad_sequence(frames, batch_first=True)


class Pace:
    """Keeps a training to its budget: the learning rate by the share that is spent, the end, and what it took."""

    def __init__(self, budget: Budget, fit: FitConfig, frames: int) -> None:
        self.budget, self.fit, self.frames = budget, fit, frames
        self.cpu_seconds, self.epochs = 0.0, 0.0
        self._batches = math.ceil(frames / fit.batch_size)
        self._whole, self._start = 0, 0.0
        self.optimiser: Any = None

    def controller(self, model: Any) -> Any:
        """A controller of hippynn with Adam, and for the plateau schedule its own scheduler."""
        self.optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=self.rate())
        by_plateau = self.fit.schedule == "plateau"
        scheduler = RaiseBatchSizeOnPlateau(
            self.optimiser, self.fit.max_batch_size, factor=self.fit.factor, patience=self.fit.patience
        )
        return _Paced(
            self,
            optimizer=self.optimiser,
            scheduler=scheduler if by_plateau else None,
            batch_size=self.fit.batch_size,
            eval_batch_size=EVALUATION_BATCH,
            fraction_train_eval=max(0.01, 1.5 / self.frames),  # at least one frame, or hippynn fails
            max_epochs=sys.maxsize,
            stopping_key="loss",
            termination_patience=self.fit.termination_patience,
            quiet=True,
        )

    def start(self) -> None:
        """Start the clock."""
        self._start = time.process_time()

    def after_batch(self, *_: object) -> None:
        """Move the cosine."""
        self.epochs += 1.0 / self._batches
        self.cpu_seconds = time.process_time() - self._start
        if self.fit.schedule == "cosine":
            for group in self.optimiser.param_groups:
                group["lr"] = self.rate()

    def after_epoch(self) -> bool:
        """Whether there is budget for one more epoch."""
        self._whole += 1
        self.epochs = float(self._whole)
        self.cpu_seconds = time.process_time() - self._start
        return self.share() < 1.0

    def share(self) -> float:
        """Of the budget, spent so far."""
        return self.budget.spent(self.cpu_seconds, self.epochs)

    def rate(self) -> float:
        """The learning rate now."""
        if self.fit.schedule == "plateau":
            return self.fit.learning_rate
        return cosine(min(int(_COSINE_STEPS * self.share()), _COSINE_STEPS - 1), _COSINE_STEPS, self.fit.learning_rate)

    def text(self, name: str, epoch: int) -> str:
        """For the terminal."""
        return f"hippynn beside {name}: epoch {epoch + 1}, {100 * self.share():.0f} % of the budget"


class _Paced(PatienceController):  # type: ignore[misc]
    """A controller that also ends when the budget is spent."""

    def __init__(self, pace: Pace, **settings: Any) -> None:
        self.pace = pace
        super().__init__(**settings)

    def push_epoch(self, epoch: int, better_model: bool, metric: float, **rest: Any) -> bool:
        more = super().push_epoch(epoch, better_model, metric, **rest)
        return self.pace.after_epoch() and more


def use_kernel(kernel: str) -> str:
    """Let hippynn compute with one of its kernels."""
    return str(hippynn.custom_kernels.set_custom_kernels(kernel))


def fastest_kernel(modules: Any, database: Any, task: Task, steps: int = 12) -> str:
    """The kernel of hippynn with the shortest training step on these data."""
    shuffled = database.make_generator("train", "train", task.fit.batch_size)
    batches = list(itertools.islice(shuffled, steps))
    seconds: dict[str, float] = {}
    for kernel in (*hippynn.custom_kernels.CUSTOM_KERNELS_AVAILABLE, "_pytorch_raw"):
        hippynn.custom_kernels.set_custom_kernels(kernel)
        try:
            seconds[kernel] = _step_seconds(copy.deepcopy(modules), batches, len(database.inputs))
        except RuntimeError:  # torch.compile without a C++ compiler
            continue
    return min(seconds, key=lambda kernel: seconds[kernel])


def _step_seconds(modules: Any, batches: Sequence[Sequence[Tensor]], n_inputs: int) -> float:
    """Median CPU seconds of forward and backward over batches of their own shapes; the first third warms up."""
    taken = []
    for batch in batches:
        start = time.process_time()
        modules.loss(*modules.model(*batch[:n_inputs]), *batch[n_inputs:])[0].backward()
        taken.append(time.process_time() - start)
    return float(np.median(taken[len(taken) // 3 :]))


def held_out_errors(task: Task, state: Mapping[str, Any]) -> list[Metric]:
    """Errors on the test part, by the same function in our network with hippynn's weights."""
    test = task.prepared.part("test")
    network, references = as_ours(task, state)
    answer, forces = predict_forces(network, labelled_graphs(test, task.network.cutoff_angstrom, references))
    metrics = metrics_by_stratum(answer.error, strata_of(test))
    return (
        metrics
        if test.forces is None
        else metrics + force_metrics_by_stratum(forces - test.forces, test.sizes, strata_of(test))
    )


def as_ours(task: Task, state: Mapping[str, Any]) -> tuple[HipNN, dict[str, float]]:
    """Our network with hippynn's weights, and all atomic references, eV per element."""
    c = task.network
    settings = HippynnSettings(
        cutoff=c.cutoff_angstrom,
        soft_min=c.soft_min_angstrom,
        soft_max=c.soft_max_angstrom,
        energy_unit="eV",
        length_unit="angstrom",
        activation="softplus",
        elements=c.elements,
    )
    imported = load_hippynn(state, settings)
    return imported.network, {s: e + imported.references[s] for s, e in task.prepared.references.items()}


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what hippynn tells the terminal; its errors are heard."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
