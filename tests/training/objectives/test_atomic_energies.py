"""A teacher's atomic energies in the loss: weighed as said, without padding, and demanded when they are weighed."""

from typing import Any

import numpy as np
import pytest
import torch

from contract.structures import Structure
from training.objectives.atomic_energies import AtomicEnergyObjective
from training.objectives.losses import Labels, rmse_plus_mae


@pytest.fixture
def case(molecules: list[Structure], batch_of: Any, network_of: Any) -> Any:
    batch, network = batch_of(molecules), network_of()
    answer = network.evaluate(batch)
    rng = np.random.default_rng(0)
    off = torch.from_numpy(rng.normal(size=len(batch.species)))
    exact = Labels(answer.energy[0].detach(), answer.forces.detach(), None, answer.atomic_energy[0].detach())
    return network, batch, exact, off


def test_a_student_that_agrees_with_labels_and_teacher_has_no_loss(case: Any) -> None:
    network, batch, exact, _ = case
    assert AtomicEnergyObjective()(network, batch, exact).surrogate.item() < 1e-6


def test_only_the_atoms_of_the_batch_count(case: Any) -> None:
    network, batch, exact, off = case
    labels = exact._replace(atomic_energy=exact.atomic_energy + off)
    found = AtomicEnergyObjective(atomic_weight=3.0)(network, batch, labels)
    assert found.surrogate.item() == pytest.approx(3.0 * float(rmse_plus_mae(off[None])), rel=1e-6)
    assert found.terms["atomic energies"] == pytest.approx(float(rmse_plus_mae(off[None])))


def test_a_configuration_that_does_not_count_adds_nothing(case: Any) -> None:
    network, batch, exact, off = case
    first = (batch.structure == 0).to(off.dtype)
    labels = exact._replace(atomic_energy=exact.atomic_energy + first * off, weight=torch.tensor([[0.0, 1.0, 1.0]]))
    assert AtomicEnergyObjective()(network, batch, labels).surrogate.item() < 1e-6


def test_without_a_teacher_the_weight_must_be_zero(case: Any) -> None:
    network, batch, exact, _ = case
    alone = exact._replace(atomic_energy=None)
    assert AtomicEnergyObjective(atomic_weight=0.0)(network, batch, alone).surrogate.item() < 1e-6
    with pytest.raises(ValueError, match="atomic_weight is set"):
        AtomicEnergyObjective()(network, batch, alone)


def test_virials_count_where_they_are_weighed(case: Any) -> None:
    network, batch, exact, _ = case
    virial = network.evaluate(batch).virial.detach()
    agreed = AtomicEnergyObjective(virial_weight=2.0)(network, batch, exact._replace(virial=virial))
    assert agreed.surrogate.item() < 1e-6
    off = AtomicEnergyObjective(virial_weight=2.0)(network, batch, exact._replace(virial=virial + 1.5))
    assert off.surrogate.item() == pytest.approx(2.0 * (1.5 + 1.5), rel=1e-6)
    with pytest.raises(ValueError, match="the data have no stress"):
        AtomicEnergyObjective(virial_weight=2.0)(network, batch, exact)
