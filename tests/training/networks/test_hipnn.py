"""The network against automatic differentiation and against physics, in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from contract.structures import Structure, checked_structure
from training.networks.exportable import MemberForces, member
from training.networks.hipnn import Batch, Evaluation, HipNN

ORDERS = pytest.mark.parametrize("order", [0, 1, 2])


@ORDERS
@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("blocks", [1, 3])
def test_the_hand_written_derivative_equals_automatic_differentiation(
    order: int, members: int, blocks: int, molecules: list, crystals: list, batch_of: Any, network_of: Any
) -> None:
    network = network_of(order=order, members=members, interaction_layers=blocks)
    batch = batch_of([*molecules, *crystals])
    ours = network.evaluate(batch)
    forces, virial = _autograd(network, batch)
    assert _difference(ours.forces, forces) < 1e-12
    assert _difference(ours.virial, virial) < 1e-12
    assert torch.equal(ours.energy, network.energy(batch))


@ORDERS
def test_its_parameter_gradients_equal_those_of_double_backpropagation(
    order: int, molecules: list, crystals: list, batch_of: Any, network_of: Any
) -> None:
    network = network_of(order=order)
    batch = batch_of([*molecules, *crystals])
    positions = batch.positions.clone().requires_grad_()
    energy = network.energy(batch._replace(positions=positions)).sum()
    forces = -torch.autograd.grad(energy, positions, create_graph=True)[0]
    expected = torch.autograd.grad((forces**2).sum(), list(network.parameters()), allow_unused=True)
    got = torch.autograd.grad(
        (network.evaluate(batch).forces ** 2).sum(), list(network.parameters()), allow_unused=True
    )
    for (name, parameter), mine, theirs in zip(network.named_parameters(), got, expected, strict=True):
        mine, theirs = (torch.zeros_like(parameter) if g is None else g for g in (mine, theirs))
        assert (mine - theirs).abs().max() <= 1e-11 * theirs.abs().max() + 1e-13, name


@pytest.mark.physics
@ORDERS
def test_energies_are_invariant_and_forces_and_virials_turn_with_the_structure(
    order: int, molecules: list, crystals: list, batch_of: Any, network_of: Any
) -> None:
    network = network_of(order=order, members=2)
    turn = Rotation.random(random_state=5).as_matrix()
    turn[:, 0] *= -1.0  # a reflection too
    structures = [*molecules, *crystals]
    before, after = (network.evaluate(batch_of(s)) for s in (structures, [_turned(s, turn) for s in structures]))
    q = torch.from_numpy(turn)
    assert _difference(after.energy, before.energy) < 1e-6  # float32 positions from the neighbour list
    assert _difference(after.forces, before.forces @ q.T) < 1e-5
    assert _difference(after.virial, q @ before.virial @ q.T) < 1e-5


@pytest.mark.physics
@ORDERS
def test_a_rotated_batch_gives_the_same_energies_to_float64_rounding(
    order: int, molecules: list, crystals: list, batch_of: Any, network_of: Any
) -> None:
    network = network_of(order=order, members=2)
    batch = batch_of([*molecules, *crystals])
    q = torch.from_numpy(Rotation.random(random_state=6).as_matrix())
    turned = batch._replace(positions=batch.positions @ q.T + 3.0, shifts=batch.shifts @ q.T)
    before, after = network.evaluate(batch), network.evaluate(turned)
    assert _difference(after.energy, before.energy) < 1e-12
    assert _difference(after.forces, before.forces @ q.T) < 1e-12


@pytest.mark.physics
def test_exchanging_atoms_exchanges_their_forces(molecules: list, batch_of: Any, network_of: Any) -> None:
    network, (molecule, *_) = network_of(order=2), molecules
    order = np.random.default_rng(7).permutation(len(molecule))
    permuted = checked_structure(molecule.numbers[order], molecule.positions[order])
    before, after = network.evaluate(batch_of([molecule])), network.evaluate(batch_of([permuted]))
    assert _difference(after.energy, before.energy) < 1e-6
    assert _difference(after.forces, before.forces[order]) < 1e-5


@pytest.mark.physics
def test_a_doubled_cell_and_two_molecules_far_apart_have_twice_the_energy(
    molecules: list, crystals: list, batch_of: Any, network_of: Any
) -> None:
    network = network_of(order=2)
    crystal, molecule = crystals[1], molecules[0]
    cell = crystal.cell * np.array([[2.0], [1.0], [1.0]])
    positions = np.vstack([crystal.positions, crystal.positions + crystal.cell[0]])
    doubled = checked_structure(np.tile(crystal.numbers, 2), positions, cell, True)
    apart = checked_structure(np.tile(molecule.numbers, 2), np.vstack([molecule.positions, molecule.positions + 50.0]))
    energy = network.energy(batch_of([crystal, doubled, molecule, apart]))[0]
    assert energy[1].item() == pytest.approx(2.0 * energy[0].item(), rel=1e-6)
    assert energy[3].item() == pytest.approx(2.0 * energy[2].item(), rel=1e-6)


@ORDERS
def test_an_isolated_atom_has_a_finite_energy_of_its_own_and_no_force(
    order: int, batch_of: Any, network_of: Any
) -> None:
    network = network_of(order=order)
    alone = network.evaluate(batch_of([checked_structure([z], [[0.0, 0.0, 0.0]]) for z in (1, 6)]))
    assert alone.energy.isfinite().all()
    assert alone.energy[0, 0] != alone.energy[0, 1]
    assert torch.equal(alone.forces, torch.zeros_like(alone.forces))
    assert torch.equal(alone.virial, torch.zeros_like(alone.virial))


@pytest.mark.physics
def test_energy_and_forces_go_to_zero_continuously_at_the_cutoff(batch_of: Any, network_of: Any) -> None:
    network = network_of(order=2)

    def answer(distance: float) -> Evaluation:
        return network.evaluate(batch_of([checked_structure([6, 8], [[0.0, 0, 0], [distance, 0, 0]])]))

    inside, outside = answer(4.0 - 1e-4), answer(4.0 + 1e-4)
    assert (inside.energy - outside.energy).abs().max() < 1e-7
    assert inside.forces.abs().max() < 1e-3
    assert torch.equal(outside.forces, torch.zeros_like(outside.forces))


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nan_in_one_structure_leaves_the_others_bitwise_unchanged(
    members: int, dtype: torch.dtype, molecules: list, crystals: list, batch_of: Any, network_of: Any
) -> None:
    network = network_of(order=2, members=members, dtype=dtype)
    batch = batch_of([*molecules, *crystals], dtype=dtype)
    poisoned = batch._replace(positions=batch.positions.clone())
    poisoned.positions[batch.structure == 1] = float("nan")
    clean, dirty = network.evaluate(batch), network.evaluate(poisoned)
    others = torch.arange(len(batch.cells)) != 1
    atoms = batch.structure != 1
    assert dirty.energy[:, 1].isnan().all()
    assert torch.equal(dirty.energy[:, others], clean.energy[:, others])
    assert torch.equal(dirty.forces[atoms], clean.forces[atoms])
    assert torch.equal(dirty.virial[others], clean.virial[others])


def test_more_padding_changes_nothing_but_rounding(
    molecules: list, crystals: list, batch_of: Any, network_of: Any
) -> None:
    network, structures = network_of(order=2), [*molecules, *crystals]
    tight, wide = (network.evaluate(batch_of(structures, slots_per_atom=k)) for k in (96, 160))
    assert _difference(wide.energy, tight.energy) < 1e-14
    assert _difference(wide.forces, tight.forces) < 1e-13


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("features", [4, 8])
def test_the_number_of_parameters_is_that_of_the_formula(order: int, features: int, network_of: Any) -> None:
    network = network_of(order=order, features=features, interaction_layers=2, atom_layers=3)
    n_s, elements, f = 6, 4, features
    expected = sum(
        n_s * f_in * f + f_in * f + f + 2 * n_s + order * f + f * f + f + (f_in * f if f_in != f else 0)
        + 3 * (2 * f * f + 2 * f)
        + (f + 1)  # the readout
        for f_in in (elements, f)
    )  # fmt: skip
    assert sum(p.numel() for p in network.parameters()) == expected


def test_a_member_alone_answers_what_it_answers_in_the_committee(
    molecules: list, crystals: list, batch_of: Any, network_of: Any
) -> None:
    committee = network_of(order=2, members=3)
    batch = batch_of([*molecules, *crystals])
    together = committee.evaluate(batch)
    energy, forces, virial, _, each, strains = MemberForces(committee)(*batch)
    assert _difference(member(committee, 2).energy(batch)[0], together.energy[2]) < 1e-13
    assert _difference(energy, together.energy) < 1e-13
    assert _difference(forces, together.forces) < 1e-12
    assert _difference(virial, together.virial) < 1e-12
    alone = member(committee, 1).evaluate(batch)
    assert _difference(each[1], alone.forces) < 1e-13
    assert _difference(strains[1], alone.virial) < 1e-13


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constants_are_exact_in_the_dtype_that_a_network_was_cast_to(dtype: torch.dtype, network_of: Any) -> None:
    network = network_of(dtype=torch.float32, cutoff_angstrom=5.3, cusp_regulariser=1e-6).to(dtype)
    exact = torch.tensor([5.3, 1.0 / 3.0, 1e-6], dtype=dtype)
    held = torch.stack([network.cutoff, network.third, network.blocks[1].interaction.epsilon])
    assert torch.equal(held, exact)


def _autograd(network: HipNN, batch: Batch) -> tuple[Tensor, Tensor]:
    """Forces [N, 3] and virials [B, 3, 3] of the committee mean: strain each structure about the origin."""
    positions = batch.positions.clone().requires_grad_()
    strain = torch.zeros(len(batch.cells), 3, 3, dtype=positions.dtype, requires_grad=True)
    deformation = torch.eye(3, dtype=positions.dtype) + strain[batch.structure]
    moved = torch.einsum("na,nab->nb", positions, deformation)
    shifts = torch.einsum("nka,nab->nkb", batch.shifts, deformation)
    energy = network.energy(batch._replace(positions=moved, shifts=shifts)).mean(dim=0).sum()
    gradient, virial = torch.autograd.grad(energy, (positions, strain))
    return -gradient, virial


def _turned(structure: Structure, turn: np.ndarray) -> Structure:
    cell = None if structure.cell is None else structure.cell @ turn.T
    return checked_structure(structure.numbers, structure.positions @ turn.T, cell, structure.pbc)


def _difference(value: Tensor, reference: Tensor) -> float:
    return ((value - reference).abs().max() / reference.abs().max()).item()
