"""Objectives of potentials: energies alone, and energies with forces.

Every objective returns an `Objective`: `surrogate`, whose backward() gives the parameter gradients, and the
value of each term. For most objectives the surrogate is the loss; for directional differences it is not (forces.py).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from training import processes
from training.networks.hipnn import Batch, HipNN

RMSE_GUARD = 1e-16


class Labels(NamedTuple):
    """Targets of a batch, atomic references already subtracted.

    energy: eV [B]; forces: eV/angstrom [N, 3] or None; weight: [M, B], how much a configuration counts for a member
    (zero for the fold that a member is kept from), or None for one everywhere; atomic_energy: eV [N], a
    teacher's, or None; virial: dE/dstrain, eV [B, 3, 3], or None.
    """

    energy: Tensor
    forces: Tensor | None = None
    weight: Tensor | None = None
    atomic_energy: Tensor | None = None
    virial: Tensor | None = None


class Objective(NamedTuple):
    """The scalar to call backward() on, and the terms of the loss for the log."""

    surrogate: Tensor
    terms: dict[str, float]


ObjectiveFunction = Callable[[HipNN, Batch, Labels], Objective]


def rmse_plus_mae(error: Tensor, weight: Tensor | None = None) -> Tensor:
    """RMSE + MAE of each member, summed over members: the loss of this family of codes, in the unit of the error.

    Of several processes (training/processes.py), over the errors of all.

    Args:
        error: [M, X], prediction minus target.
        weight: [M, X] or None.
    """
    if weight is None:
        weight = torch.ones_like(error)
    sums = torch.stack([weight.sum(dim=1), (weight * error * error).sum(dim=1), (weight * error.abs()).sum(dim=1)])
    count, square, size = processes.total(sums).unbind()
    mean_square, mean_absolute = square / count.clamp_min(1e-12), size / count.clamp_min(1e-12)
    return (torch.sqrt(mean_square + RMSE_GUARD) + mean_absolute).sum()


def energy_objective(network: HipNN, batch: Batch, labels: Labels) -> Objective:
    """Energies alone."""
    loss = rmse_plus_mae(network.energy(batch) - labels.energy, labels.weight)
    return Objective(loss, {"energy": loss.item() / network.config.members})
