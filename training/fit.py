"""The one training loop: progress, plateau schedule, averaged weights, checkpoints, resume."""

import copy
import csv
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import Tensor, nn

from training import processes
from training.batches import LabelledGraphs
from training.checkpoint import load_checkpoint, save_checkpoint
from training.errors import NotReady, require_finite
from training.event_log import event_log
from training.networks.hipnn import Batch, HipNN
from training.objectives.losses import Labels, Objective, ObjectiveFunction
from training.schedule import Plateau, cosine


class FitConfig(BaseModel):
    """How to train."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    schedule: Literal["plateau", "cosine"] = Field("plateau", description="cosine runs max_epochs at one batch size")
    learning_rate: float = Field(1e-3, gt=0)
    batch_size: int = Field(16, ge=1, description="configurations a step, at the start")
    max_batch_size: int = Field(64, ge=1, description="plateaus grow the batch up to this, then lower the rate")
    factor: float = Field(0.5, gt=0, lt=1)
    patience: int = Field(10, ge=0, description="epochs without improvement before a change")
    termination_patience: int = Field(50, ge=1, description="epochs after the best one before stopping")
    max_epochs: int = Field(500, ge=1)
    max_cpu_minutes: float = Field(math.inf, gt=0, description="stop at the end of the epoch that passes it")
    averaging: float = Field(0.99, ge=0, lt=1, description="decay a step of the running average of weights; 0 for none")
    gradient_clip: float = Field(10.0, gt=0, description="largest norm of the gradient of one member")
    seed: int = 0
    device: str = "cpu"
    tensorboard: bool = Field(False, description="also write the learning curve for TensorBoard (extra `tensorboard`)")


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of the learning curve; `train` and `valid` are in the unit of the loss."""

    epoch: int
    train: float
    valid: float
    batch_size: int
    learning_rate: float
    cpu_seconds: float
    wall_seconds: float


Validation = Callable[[HipNN], float]


def fit(
    network: HipNN,
    objective: ObjectiveFunction,
    train: LabelledGraphs,
    validation: Validation,
    config: FitConfig,
    folder: Path,
    *,
    title: str = "training",
) -> list[Epoch]:
    """Train a network in place; it ends with the averaged weights of its best validation epoch.

    Args:
        network: trained in place, on config.device.
        objective: see training/objectives.
        train: graphs with labels.
        validation: value to be lowered, from data that training does not see.
        config: schedule, limits and seed.
        title: what the progress bar says.
        folder: holds history.csv and checkpoint.pt; a fit that was interrupted goes on from there. With
            config.tensorboard also a folder of TensorBoard's event files.

    Returns:
        The learning curve.

    Raises:
        Diverged: a loss is not finite; the checkpoint is that of the epoch before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = State.start(network.to(config.device), config, folder / "checkpoint.pt")
    with _progress() as progress, _logging(config, folder, len(state.history)) as log:
        bar = progress.add_task(title, total=config.max_epochs, completed=len(state.history), note=state.note())
        while not state.finished(config):
            state.run_epoch(objective, train, validation, config)
            last = state.history[-1]
            require_finite(last.train, last.valid, during=f"{title}, epoch {last.epoch}")
            state.save(folder)
            log(last)
            progress.update(bar, completed=len(state.history), note=state.note())
    network.load_state_dict(state.best_weights)
    return state.history


def require_device(device: str) -> None:
    """Try a device before data are read and frames are labelled.

    Raises:
        NotReady: it cannot be used on this machine.
    """
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise NotReady(f"fit.device: {device} cannot be used here ({reason}). Set `fit.device: cpu`.") from None


class _Stepper(nn.Module):
    """What is asked of a network in a step, as a forward pass: DistributedDataParallel watches those."""

    def __init__(self, network: HipNN) -> None:
        super().__init__()
        self.network = network

    def forward(self, objective: ObjectiveFunction, batch: Batch, labels: Labels) -> Objective:
        return objective(self.network, batch, labels)


class State:
    """Everything that changes during a fit."""

    def __init__(self, network: HipNN, config: FitConfig) -> None:
        self.network = network
        self.stepper = processes.in_step(_Stepper(network))
        self.average = copy.deepcopy(network)
        self.optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)
        self.plateau = Plateau(config.batch_size, config.learning_rate)
        self.best_weights = copy.deepcopy(network.state_dict())
        self.history: list[Epoch] = []
        self.steps = 0

    @classmethod
    def start(cls, network: HipNN, config: FitConfig, checkpoint: Path) -> "State":
        """A new fit, or the one that was interrupted."""
        state = cls(network, config)
        stored = processes.as_the_first_has_it(load_checkpoint(checkpoint) if processes.is_first() else None)
        if stored is not None:
            state.network.load_state_dict(stored["network"])
            state.average.load_state_dict(stored["average"])
            state.optimiser.load_state_dict(stored["optimiser"])
            state.plateau = Plateau(**stored["plateau"])
            state.best_weights = stored["best_weights"]
            state.history = [Epoch(**line) for line in stored["history"]]
            state.steps = stored["steps"]
        return state

    def save(self, folder: Path) -> None:
        """Write the checkpoint and the learning curve."""
        if not processes.is_first():
            return
        save_checkpoint(
            folder / "checkpoint.pt",
            {
                "network": self.network.state_dict(),
                "average": self.average.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "plateau": asdict(self.plateau),
                "best_weights": self.best_weights,
                "history": [asdict(line) for line in self.history],
                "steps": self.steps,
            },
        )
        with (folder / "history.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(asdict(self.history[0])))
            writer.writeheader()
            writer.writerows(asdict(line) for line in self.history)

    def run_epoch(
        self, objective: ObjectiveFunction, train: LabelledGraphs, validation: Validation, config: FitConfig
    ) -> None:
        """All frames once, and what that changed."""
        cpu, wall, epoch = time.process_time(), time.perf_counter(), len(self.history)
        generator = np.random.default_rng((config.seed, epoch))
        rate = self.plateau.learning_rate
        if config.schedule == "cosine":
            rate = cosine(epoch, config.max_epochs, config.learning_rate)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        losses = [
            self.step(objective, batch, labels, config)
            for batch, labels in train.shares(
                self.plateau.batch_size, generator, config.device, processes.place(), processes.count()
            )
        ]
        value = processes.as_the_first_has_it(validation(self.average))
        before = self.history[-1] if self.history else Epoch(-1, 0, 0, 0, 0, 0.0, 0.0)
        self.history.append(
            processes.as_the_first_has_it(
                Epoch(
                    epoch,
                    float(np.mean(losses)),
                    value,
                    self.plateau.batch_size,
                    rate,
                    before.cpu_seconds + time.process_time() - cpu,
                    before.wall_seconds + time.perf_counter() - wall,
                )
            )
        )
        largest = config.max_batch_size if config.schedule == "plateau" else config.batch_size
        self.plateau = self.plateau.after(
            epoch, value, max_batch_size=largest, factor=config.factor, patience=config.patience
        )
        if self.plateau.best_epoch == epoch:
            self.best_weights = copy.deepcopy(self.average.state_dict())

    def step(self, objective: ObjectiveFunction, batch: Batch, labels: Labels, config: FitConfig) -> float:
        """One step of the optimiser and of the running average; the loss before it."""
        self.optimiser.zero_grad()
        result: Objective = self.stepper(objective, batch, labels)
        result.surrogate.backward()  # type: ignore[no-untyped-call]
        limit = config.gradient_clip * math.sqrt(self.network.config.members)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        self.optimiser.step()
        self.steps += 1
        self._move_average(min(config.averaging, self.steps / (self.steps + 10.0)))
        return sum(result.terms.values())

    @torch.no_grad()
    def _move_average(self, decay: float) -> None:
        averaged: list[Tensor] = list(self.average.parameters())
        current: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(averaged, current, 1.0 - decay)

    def finished(self, config: FitConfig) -> bool:
        """Whether a limit was reached."""
        if not self.history:
            return False
        over = self.history[-1].cpu_seconds > 60.0 * config.max_cpu_minutes
        bored = len(self.history) > self.plateau.best_epoch + config.termination_patience
        return over or bored or len(self.history) >= config.max_epochs

    def note(self) -> str:
        """For the progress bar."""
        if not self.history:
            return ""
        last = self.history[-1]
        best = f"valid {last.valid:.4g}  best {self.plateau.best:.4g}"
        return f"{best}  batch {last.batch_size}  rate {last.learning_rate:.1e}"


@contextmanager
def _logging(config: FitConfig, folder: Path, epochs: int) -> Iterator[Callable[[Epoch], None]]:
    """What logs an epoch for TensorBoard, if the configuration wants it, in the first of several processes."""
    if not config.tensorboard or not processes.is_first():
        yield lambda epoch: None
        return
    with event_log(folder / "tensorboard", epochs) as log:
        yield lambda epoch: log(
            epoch.epoch,
            {
                "loss/training": epoch.train,
                "error/validation": epoch.valid,
                "learning_rate": epoch.learning_rate,
                "batch_size": epoch.batch_size,
                "cpu_seconds": epoch.cpu_seconds,
            },
        )


def _progress() -> Progress:
    """A bar, of the first of several processes."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("epochs"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        disable=not processes.is_first(),
    )
