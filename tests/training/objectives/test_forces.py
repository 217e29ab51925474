"""Three routes to the gradient of a force loss, against each other, and what one step down it does."""

import math
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from contract.structures import checked_structure
from training.batches import virial_of
from training.networks.hipnn import Batch, HipNN
from training.objectives.forces import EnergyForceObjective, ForceMode
from training.objectives.losses import Labels

MODES = get_args(ForceMode)
ORDERS = pytest.mark.parametrize("order", [0, 1, 2])


@pytest.fixture(scope="module")
def structures(molecules: list, crystals: list) -> list:
    return [*molecules, *crystals]


@ORDERS
@pytest.mark.parametrize(
    ("dtype", "displacement", "bound"),
    [(torch.float32, 1e-3, 1e-3), (torch.float64, 1e-4, 1e-5), (torch.float64, 1e-5, 1e-6)],
)
def test_a_directional_difference_gives_the_gradient_of_double_backpropagation(
    order: int, dtype: torch.dtype, displacement: float, bound: float, structures: list, batch_of: Any, network_of: Any
) -> None:
    network, batch = network_of(order=order, dtype=dtype), batch_of(structures, dtype=dtype)
    labels = _labels(network, batch)
    exact = _gradient(network, batch, labels, EnergyForceObjective(mode="double_backprop"))
    objective = EnergyForceObjective(mode="directional_difference", displacement_angstrom=displacement)
    assert _relative(_gradient(network, batch, labels, objective), exact) < bound


@ORDERS
def test_its_error_falls_with_the_square_of_the_displacement(
    order: int, structures: list, batch_of: Any, network_of: Any
) -> None:
    network, batch = network_of(order=order), batch_of(structures)
    labels = _labels(network, batch)
    exact = _gradient(network, batch, labels, EnergyForceObjective(mode="double_backprop"))
    steps = np.array([3e-3, 1e-3, 3e-4, 1e-4])
    errors = [
        _relative(
            _gradient(
                network, batch, labels, EnergyForceObjective(mode="directional_difference", displacement_angstrom=step)
            ),
            exact,
        )
        for step in steps
    ]
    assert np.polyfit(np.log(steps), np.log(errors), 1)[0] == pytest.approx(2.0, abs=0.05)


@ORDERS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_backpropagation_through_the_adjoint_equals_double_backpropagation(
    order: int, dtype: torch.dtype, structures: list, batch_of: Any, network_of: Any
) -> None:
    network, batch = network_of(order=order, dtype=dtype), batch_of(structures, dtype=dtype)
    labels = _labels(network, batch)
    exact = _gradient(network, batch, labels, EnergyForceObjective(mode="double_backprop"))
    ours = _gradient(network, batch, labels, EnergyForceObjective(mode="adjoint"))
    assert _relative(ours, exact) < (1e-11 if dtype == torch.float64 else 1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_reports_the_same_terms(mode: ForceMode, structures: list, batch_of: Any, network_of: Any) -> None:
    network, batch = network_of(), batch_of(structures)
    labels = _labels(network, batch)
    error = network.evaluate(batch)
    energy, forces = error.energy[0] - labels.energy, error.forces - labels.forces
    terms = EnergyForceObjective(mode=mode)(network, batch, labels).terms
    assert terms["energy"] == pytest.approx(_rmse_plus_mae(energy))
    assert terms["forces"] == pytest.approx(_rmse_plus_mae(forces))


@pytest.mark.parametrize("mode", MODES)
@ORDERS
def test_one_step_down_the_gradient_lowers_the_force_error(
    mode: ForceMode, order: int, structures: list, batch_of: Any, network_of: Any
) -> None:
    network, batch = network_of(order=order, dtype=torch.float32), batch_of(structures, dtype=torch.float32)
    labels = _labels(network, batch)
    objective = EnergyForceObjective(energy_weight=0.0, mode=mode)
    before = objective(network, batch, labels).terms["forces"]
    optimiser = torch.optim.SGD(network.parameters(), lr=1e-5)
    objective(network, batch, labels).surrogate.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    assert objective(network, batch, labels).terms["forces"] < before


def test_a_structure_without_force_error_is_skipped(batch_of: Any, network_of: Any) -> None:
    """An isolated atom has no force and no error: its displacement would be 0/0."""
    network = network_of()
    batch = batch_of([checked_structure([1], [[0.0, 0, 0]]), checked_structure([6, 8], [[0.0, 0, 0], [1.2, 0, 0]])])
    labels = _labels(network, batch)
    labels = labels._replace(forces=labels.forces * (batch.structure == 1)[:, None])
    objective = EnergyForceObjective(mode="directional_difference", displacement_angstrom=1e-4)
    exact = _gradient(network, batch, labels, EnergyForceObjective(mode="double_backprop"))
    gradient = _gradient(network, batch, labels, objective)
    assert gradient.isfinite().all()
    assert _relative(gradient, exact) < 1e-5


def test_a_committee_trains_on_forces_by_double_backpropagation_member_by_member(
    structures: list, batch_of: Any, network_of: Any
) -> None:
    from training.networks.exportable import member

    committee, batch = network_of(members=2), batch_of(structures)
    labels = _labels(committee, batch)
    objective = EnergyForceObjective(mode="double_backprop")
    together = _gradients(committee, batch, labels, objective)
    alone = [_gradients(member(committee, m), batch, labels, objective) for m in range(2)]
    name = "blocks.1.interaction.weight"
    for m in range(2):
        assert _relative(together[name][m], alone[m][name][0]) < 1e-11
    for mode in ("adjoint", "directional_difference"):
        with pytest.raises(ValueError, match="one member"):
            EnergyForceObjective(mode=mode)(committee, batch, labels)


@pytest.mark.parametrize("mode", MODES)
def test_data_without_forces_are_refused(mode: ForceMode, structures: list, batch_of: Any, network_of: Any) -> None:
    batch = batch_of(structures)
    with pytest.raises(ValueError, match="needs forces"):
        EnergyForceObjective(mode=mode)(network_of(), batch, Labels(torch.zeros(len(batch.cells))))


def _labels(network: HipNN, batch: Batch) -> Labels:
    """Targets near the network's own answers, so that the errors are of the size met in training."""
    generator = torch.Generator().manual_seed(8)
    answer = network.evaluate(batch)
    energy = answer.energy.mean(dim=0).detach()
    forces = answer.forces.detach()
    return Labels(
        energy + 0.1 * torch.randn(energy.shape, generator=generator, dtype=energy.dtype),
        forces + 0.3 * torch.randn(forces.shape, generator=generator, dtype=forces.dtype),
    )


def _gradients(network: HipNN, batch: Batch, labels: Labels, objective: EnergyForceObjective) -> dict[str, Tensor]:
    network.zero_grad()
    objective(network, batch, labels).surrogate.backward()  # type: ignore[no-untyped-call]
    return {n: torch.zeros_like(p) if p.grad is None else p.grad.clone() for n, p in network.named_parameters()}


def _gradient(network: HipNN, batch: Batch, labels: Labels, objective: EnergyForceObjective) -> Tensor:
    return torch.cat([g.flatten() for g in _gradients(network, batch, labels, objective).values()])


def _relative(value: Tensor, reference: Tensor) -> float:
    return ((value - reference).norm() / reference.norm()).item()


def _rmse_plus_mae(error: Tensor) -> float:
    return math.sqrt((error**2).mean().item()) + error.abs().mean().item()


def test_a_virial_is_the_stress_times_the_volume_and_its_gradient_reaches_the_weights(
    crystals: list, batch_of: Any, network_of: Any
) -> None:
    network, batch = network_of(), batch_of(crystals)
    virial = network.evaluate(batch).virial.detach()
    cells = np.stack([structure.cell for structure in crystals])
    stress = virial.numpy()[:, [0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1]] / np.abs(np.linalg.det(cells))[:, None]
    again = torch.from_numpy(virial_of(stress, cells))
    assert torch.allclose(again.double(), virial, atol=1e-5)
    answer = network.evaluate(batch)
    labels = Labels(answer.energy[0].detach(), answer.forces.detach(), virial=virial + 0.5)
    objective = EnergyForceObjective(virial_weight=1.0)(network, batch, labels)
    objective.surrogate.backward()
    assert objective.terms["virials"] == pytest.approx(1.0, rel=1e-6)
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())
    with pytest.raises(ValueError, match="for mode 'adjoint'"):
        EnergyForceObjective(virial_weight=1.0, mode="double_backprop")(network, batch, labels)
