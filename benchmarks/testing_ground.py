"""Labelled molecules as a testing ground for ways to train: energies, and forces that an arm may use or may not see."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.intervals import half_width_95
from training.batches import LabelledGraphs, fit_references, labelled_graphs
from training.data.dataset import Dataset
from training.data.splits import Fractions, Split
from training.evaluation import predict_energies, predict_forces
from training.fit import Epoch, FitConfig, fit
from training.networks.hipnn import HipNN, HipNNConfig
from training.objectives.losses import ObjectiveFunction
from training.pipelines.members import fresh_member

Arm = dict[str, float]
Error = Callable[[HipNN, LabelledGraphs], float]


@dataclass(frozen=True, slots=True)
class Parts:
    """Data, parted: graphs with labels, atomic references subtracted."""

    train: LabelledGraphs
    valid: LabelledGraphs
    test: LabelledGraphs


@dataclass(frozen=True, slots=True)
class Ground:
    """Data with true forces, how they are parted, and the network that learns from them.

    Attributes:
        name: of the data.
        dataset: with forces.
        network: what every arm trains.
        part: a split that leaves nothing of the test part to the training part.
        about: the data and their parts in a sentence.
    """

    name: str
    dataset: Dataset
    network: HipNNConfig
    part: Callable[[Dataset, Fractions, int], Split]
    about: str

    @property
    def sha256(self) -> str:
        """Of the file."""
        return self.dataset.sources[0].sha256

    def parts(self, frames: int, held_out: int, seed: int) -> Parts:
        """`frames` to train on, half as many to validate, `held_out` to test on."""
        parts = self.part(self.dataset, (0.4, 0.2, 0.4), seed)
        generator = np.random.default_rng(seed)
        chosen = [
            self.dataset.select(np.sort(generator.choice(part, count, replace=False)))
            for part, count in ((parts.train, frames), (parts.valid, frames // 2), (parts.test, held_out))
        ]
        references = fit_references(chosen[0])
        return Parts(*(labelled_graphs(part, self.network.cutoff_angstrom, references) for part in chosen))


def trained(
    network: HipNNConfig,
    objective: ObjectiveFunction,
    parts: Parts,
    error: Error,
    epochs: int,
    seed: int,
    title: str,
    folder: Path | None = None,
) -> tuple[HipNN, list[Epoch]]:
    """A new network of this seed, trained on one part; `error` on another part chooses its best epoch.

    Its sensitivities are fixed, so that networks can be stacked into a committee. With a folder a training that was
    stopped goes on.
    """
    made = fresh_member(network, seed)
    config = FitConfig(
        schedule="cosine", learning_rate=2e-3, batch_size=16, max_epochs=epochs, termination_patience=epochs, seed=seed
    )
    with tempfile.TemporaryDirectory() as passing:
        where = folder or Path(passing)
        history = fit(made, objective, parts.train, lambda n: error(n, parts.valid), config, where, title=title)
    return made, history


def energy_error(network: HipNN, graphs: LabelledGraphs) -> float:
    """RMSE + MAE of energies, eV."""
    return _rmse_plus_mae(predict_energies(network, graphs).error)


def energy_and_force_error(network: HipNN, graphs: LabelledGraphs) -> float:
    """RMSE + MAE of energies, eV, and of the force components that the graphs hold, eV/angstrom."""
    predicted, forces = predict_forces(network, graphs)
    return _rmse_plus_mae(predicted.error) + _rmse_plus_mae(forces - np.concatenate(graphs.forces or []))


def errors(network: HipNN, graphs: LabelledGraphs) -> Arm:
    """Test errors of energies and forces; of a committee, those of its mean."""
    predicted, forces = predict_forces(network, graphs)
    energy, off = predicted.energy.mean(axis=0) - graphs.energy, forces - np.concatenate(graphs.forces or [])
    return {
        "energy MAE meV": 1e3 * float(np.abs(energy).mean()),
        "energy RMSE meV": 1e3 * float(np.sqrt((energy**2).mean())),
        "force MAE meV/angstrom": 1e3 * float(np.abs(off).mean()),
        "force RMSE meV/angstrom": 1e3 * float(np.sqrt((off**2).mean())),
    }


def mean_and_interval(arms: Sequence[Arm]) -> dict[str, list[float]]:
    """Mean, and half of the 95 % interval of the mean by Student's t, of every number."""
    values = {key: [arm[key] for arm in arms] for key in arms[0]}
    return {key: [float(np.mean(each)), half_width_95(each)] for key, each in values.items()}


def _rmse_plus_mae(error: Any) -> float:
    return float(np.sqrt((error**2).mean()) + np.abs(error).mean())
