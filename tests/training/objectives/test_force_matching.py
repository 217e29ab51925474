"""Force matching: its value, its weights, and that the mean force is where it is smallest."""

from typing import Any

import pytest
import torch

from training.objectives.force_matching import ForceMatching
from training.objectives.losses import Labels


def test_it_is_the_weighted_mean_square_and_energies_do_not_matter(
    network_of: Any, batch_of: Any, molecules: Any
) -> None:
    network, batch = network_of(), batch_of(molecules)
    forces = network.evaluate(batch).forces.detach()
    target = forces + torch.arange(len(forces), dtype=torch.float64).unsqueeze(1)
    weight = torch.tensor([[1.0, 0.5, 2.0]], dtype=torch.float64)
    energy = torch.full((3,), torch.nan, dtype=torch.float64)
    found = ForceMatching()(network, batch, Labels(energy, target, weight))
    expected = (((forces - target) ** 2).mean(dim=1) * weight[0, batch.structure]).mean()
    assert found.surrogate.item() == pytest.approx(expected.item())
    assert found.terms["forces"] == pytest.approx(expected.item())
    found.surrogate.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


def test_constants_of_the_energy_get_no_gradient(network_of: Any, batch_of: Any, molecules: Any) -> None:
    network, batch = network_of(), batch_of(molecules)
    ForceMatching()(network, batch, Labels(torch.zeros(3), torch.zeros(len(batch.species), 3))).surrogate.backward()
    assert all(block.readout_bias.grad is None for block in network.blocks)


def test_a_committee_or_data_without_forces_are_refused(network_of: Any, batch_of: Any, molecules: Any) -> None:
    batch = batch_of(molecules)
    with pytest.raises(ValueError, match="one member"):
        ForceMatching()(network_of(members=2), batch, Labels(torch.zeros(3), torch.zeros(len(batch.species), 3)))
    with pytest.raises(ValueError, match="needs forces"):
        ForceMatching()(network_of(), batch, Labels(torch.zeros(3)))
