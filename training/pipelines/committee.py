"""A committee of HIP-NN potentials from energies, and from forces where the data have them.

references <- least squares of energies on composition (training part)
member m   <- minimise RMSE + MAE over the training part without its own fold; all members in one network, or with
              forces one after another
keep the averaged weights of the epoch with the lowest validation error
"""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from training.batches import LabelledGraphs
from training.checkpoint import Run, save_run
from training.data import DataSpec
from training.data.checks import require_known
from training.evaluation import predict_energies, predict_forces, save_predictions
from training.fit import FitConfig, Validation, fit
from training.networks.hipnn import HipNN, HipNNConfig
from training.objectives.forces import EnergyForceObjective
from training.objectives.losses import energy_objective
from training.pipelines.members import cpu_seconds, train_apart
from training.pipelines.preparation import Prepared, SplitConfig, member_weights, prepare
from training.record import run_record


class CommitteeConfig(BaseModel):
    """A committee trained on labels. Serialised as YAML in training/configs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: Literal["committee"] = "committee"
    name: str
    purpose: str
    data: DataSpec
    split: SplitConfig = SplitConfig()
    network: HipNNConfig
    forces: EnergyForceObjective | None = Field(None, description="train on forces too; null for energies alone")
    energy_scale_ev: float | None = Field(None, gt=0, description="a frame E above the lowest counts 1 / (1 + E/scale)")
    folds: int = Field(0, ge=0, description="member m does not see fold m of so many; 0 for none")
    fit: FitConfig = FitConfig()


def train_committee(config: CommitteeConfig, folder: Path) -> Run:
    """Train a committee and save it in `folder`; an interrupted run goes on where it was."""
    prepared = prepare(config.data, config.split)
    require_known(prepared.dataset, config.network.elements)
    train = _training_graphs(config, prepared)
    valid = prepared.graphs("valid", config.network.cutoff_angstrom)
    value = validation(valid, config)
    title = f"training {config.name}"
    if config.forces is not None:
        network, history = train_apart(config.network, config.forces, train, value, config.fit, folder, title)
    else:
        torch.manual_seed(config.fit.seed)
        network = HipNN(config.network)
        history = fit(network, energy_objective, train, value, config.fit, folder, title=title)
    record = run_record(config, prepared, history) | {"cpu_seconds": cpu_seconds(history)}
    run = Run(network.cpu(), prepared.references, record)
    save_run(folder, run)
    save_predictions(folder, run.network, prepared)
    return run


def validation(valid: LabelledGraphs, config: CommitteeConfig) -> Validation:
    """RMSE + MAE of the members' energies in eV, weighted as in training; with forces, those of the mean are added."""
    weight = member_weights(valid.energy, 1, config.energy_scale_ev, folds=0, seed=0)[:, 0]
    weight /= weight.sum()

    def value(network: HipNN) -> float:
        device = config.fit.device
        if config.forces is None or valid.forces is None:
            return _rmse_plus_mae(predict_energies(network, valid, device).energy - valid.energy, weight)
        answer, forces = predict_forces(network, valid, device)
        error = forces - np.concatenate(valid.forces)
        on_forces = float(np.sqrt((error**2).mean()) + np.abs(error).mean())
        return _rmse_plus_mae(answer.energy - valid.energy, weight) + config.forces.force_weight * on_forces

    return value


def _training_graphs(config: CommitteeConfig, prepared: Prepared) -> LabelledGraphs:
    energy = prepared.part("train").energy
    weight = member_weights(energy, config.network.members, config.energy_scale_ev, config.folds, seed=config.fit.seed)
    return prepared.graphs("train", config.network.cutoff_angstrom, weight)


def _rmse_plus_mae(error: np.ndarray, weight: np.ndarray) -> float:
    return float((np.sqrt((weight * error**2).sum(axis=1)) + (weight * np.abs(error)).sum(axis=1)).mean())
