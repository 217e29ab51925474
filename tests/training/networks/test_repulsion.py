"""The prior has the force that its parameters say, once a pair, and stays finite where float32 would not."""

from typing import Any

import numpy as np
import pytest
import torch

from contract.structures import checked_structure
from training.networks.repulsion import STEEPEST, RepulsionConfig

T, S = 2.9, 0.2
PRIOR = {"onset_angstrom": T, "force_ev_angstrom": S}


def _dimer(r: float) -> Any:
    return checked_structure([6, 6], [[0.0, 0, 0], [r, 0, 0]])


def _silent(network_of: Any, **changes: Any) -> Any:
    """A network that says nothing but its prior."""
    network = network_of(prior=PRIOR, **changes)
    with torch.no_grad():
        for block in network.blocks:
            block.readout.zero_()
            block.readout_bias.zero_()
    return network


@pytest.mark.parametrize(("r", "force"), [(T, 0.05 * S), (T - 0.15, S)])
def test_two_beads_feel_p_s_at_the_onset_and_s_further_in(
    network_of: Any, batch_of: Any, r: float, force: float
) -> None:
    answer = _silent(network_of).evaluate(batch_of([_dimer(r)]))
    assert answer.forces[1, 0].item() == pytest.approx(force, rel=1e-5)
    assert answer.forces[0, 0].item() == pytest.approx(-force, rel=1e-5)
    steepness = RepulsionConfig.model_validate(PRIOR).steepness
    assert steepness == pytest.approx(19.97, abs=0.01)
    assert answer.energy.item() == pytest.approx(force / steepness, rel=1e-5)


@pytest.mark.physics
@pytest.mark.parametrize("members", [1, 3])
def test_forces_and_virial_with_a_prior_are_the_derivative_of_the_energy(
    network_of: Any, batch_of: Any, crystals: Any, members: int
) -> None:
    network, batch = network_of(prior=PRIOR, members=members), batch_of(crystals)
    positions = batch.positions.clone().requires_grad_()
    energy = network.energy(batch._replace(positions=positions))
    (gradient,) = torch.autograd.grad(energy.mean(dim=0).sum(), positions)
    answer = network.evaluate(batch)
    torch.testing.assert_close(answer.forces, -gradient, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(answer.energy, energy, rtol=1e-10, atol=1e-10)
    strain = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    strained = batch._replace(
        positions=batch.positions + batch.positions @ strain, shifts=batch.shifts + batch.shifts @ strain
    )
    (virial,) = torch.autograd.grad(network.energy(strained).mean(dim=0).sum(), strain)
    torch.testing.assert_close(answer.virial.sum(dim=0), virial, rtol=1e-8, atol=1e-8)


def test_beads_on_top_of_each_other_push_with_a_finite_force_in_float32(network_of: Any, batch_of: Any) -> None:
    network = _silent(network_of, dtype=torch.float32)
    for onset in (2.9, 5.5):
        network = network_of(prior=PRIOR | {"onset_angstrom": onset}, dtype=torch.float32, cutoff_angstrom=8.0)
        answer = network.evaluate(batch_of([_dimer(0.25)], cutoff=8.0, dtype=torch.float32))
        assert torch.isfinite(answer.energy).all()
        assert torch.isfinite(answer.forces).all()
    silent = _silent(network_of, dtype=torch.float32)
    forces = silent.evaluate(batch_of([_dimer(0.25)], dtype=torch.float32)).forces
    assert forces[1, 0].item() == pytest.approx(0.05 * S * np.exp(STEEPEST), rel=1e-4)


def test_a_bead_alone_and_padding_add_exactly_nothing(network_of: Any, batch_of: Any) -> None:
    network = _silent(network_of, dtype=torch.float32)
    batch = batch_of([_dimer(T), checked_structure([6], [[0.0, 0, 0]])], dtype=torch.float32, slots_per_atom=8)
    answer = network.evaluate(batch)
    assert answer.energy[0, 1].item() == 0.0
    assert (answer.forces[2] == 0.0).all()
    alone = network.evaluate(batch_of([_dimer(T)], dtype=torch.float32))
    assert answer.energy[0, 0].item() == alone.energy[0, 0].item()


def test_two_networks_that_differ_in_their_prior_alone_have_the_same_weights(network_of: Any) -> None:
    with_prior, without = network_of(prior=PRIOR), network_of()
    assert with_prior.state_dict().keys() == without.state_dict().keys()
