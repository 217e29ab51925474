"""RMSE + MAE, weights and guards."""

import math
from typing import Any

import pytest
import torch

from training.objectives.losses import Labels, energy_objective, rmse_plus_mae


def test_the_loss_is_rmse_plus_mae_summed_over_members() -> None:
    error = torch.tensor([[3.0, -4.0], [1.0, 1.0]])
    assert rmse_plus_mae(error).item() == pytest.approx(math.sqrt(12.5) + 3.5 + 2.0)


def test_a_frame_of_weight_zero_does_not_count() -> None:
    error = torch.tensor([[3.0, 100.0], [5.0, 1.0]])
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert rmse_plus_mae(error, weight).item() == pytest.approx(6.0 + 2.0)


def test_a_member_that_sees_no_frame_of_the_batch_has_no_loss_and_a_finite_gradient() -> None:
    error = torch.tensor([[3.0, 4.0]], requires_grad=True)
    rmse_plus_mae(error, torch.zeros(1, 2)).backward()
    assert error.grad is not None
    assert torch.equal(error.grad, torch.zeros(1, 2))


def test_a_perfect_prediction_has_a_finite_gradient() -> None:
    error = torch.zeros(1, 3, requires_grad=True)
    rmse_plus_mae(error).backward()
    assert error.grad is not None
    assert error.grad.isfinite().all()


def test_members_are_trained_apart_by_the_energy_objective(molecules: list, batch_of: Any, network_of: Any) -> None:
    network, batch = network_of(members=2), batch_of(molecules)
    weight = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    objective = energy_objective(network, batch, Labels(torch.zeros(3, dtype=torch.float64), weight=weight))
    objective.surrogate.backward()
    gradient = network.blocks[0].interaction.weight.grad
    assert gradient[0].abs().max() > 0
    assert torch.equal(gradient[1], torch.zeros_like(gradient[1]))
    assert objective.terms["energy"] * 2 == pytest.approx(objective.surrogate.item())
