"""ANI's environment vectors and forces against automatic differentiation, a plain formula, and published values."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from contract.structures import Structure, checked_structure
from training.networks.ani import Ani, AniConfig
from training.networks.hipnn import Batch

ELEMENTS = [1, 6, 8, 13]


@pytest.fixture(scope="module")
def network() -> Ani:
    """Two members with random weights, in float64; cutoffs short enough that some neighbours see no angle."""
    torch.manual_seed(0)
    config = AniConfig(
        elements=ELEMENTS,
        hidden=[[7, 5], [6, 5], [7, 4], [5, 3]],
        cutoff_angstrom=4.0,
        angular_cutoff_angstrom=2.5,
        radial_shifts=[0.9, 1.6, 2.3],
        zeta=5,
        angle_shifts=[0.4, 1.2, 2.6],
        angular_shifts=[0.9, 1.7],
        members=2,
    )
    made = Ani(config)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.normal_(std=0.3)
    return made.double()


def test_forces_and_virials_are_the_derivatives_of_the_mean_energy(
    network: Ani, molecules: list, crystals: list, batch_of: Any
) -> None:
    batch = batch_of([*molecules, *crystals])
    ours = network.evaluate(batch)
    forces, virial = _autograd(network, batch)
    assert _difference(ours.forces, forces) < 1e-12
    assert _difference(ours.virial, virial) < 1e-12


def test_environment_vectors_equal_the_published_formulas(network: Ani, molecules: list, batch_of: Any) -> None:
    vectors, _ = network.environment(batch_of(molecules[:1]))
    expected = _environment(molecules[0], network.config)
    assert np.abs(vectors.detach().numpy() - expected).max() < 1e-6  # float32 positions in the neighbour list


def test_a_lone_atom_has_its_networks_offset_and_no_force(network: Ani, batch_of: Any) -> None:
    alone = network.evaluate(batch_of([checked_structure([6], [[0.0, 0.0, 0.0]])]))
    assert torch.isfinite(alone.energy).all()
    assert alone.forces.abs().max() == 0.0


def test_batch_mates_and_padding_change_nothing(network: Ani, molecules: list, batch_of: Any) -> None:
    together = network.evaluate(batch_of(molecules, slots_per_atom=24))
    apart = [network.evaluate(batch_of([molecule])) for molecule in molecules]
    assert _difference(together.forces, torch.cat([a.forces for a in apart])) < 1e-12
    assert _difference(together.energy, torch.cat([a.energy for a in apart], dim=1)) < 1e-12


def _autograd(network: Ani, batch: Batch) -> tuple[Tensor, Tensor]:
    """-dE/dr and dE/dstrain of the members' mean."""
    strain = torch.zeros(len(batch.cells), 3, 3, dtype=torch.float64, requires_grad=True)
    positions = batch.positions.clone().requires_grad_()
    bend = strain[batch.structure]
    moved = positions + torch.einsum("na,nab->nb", positions, bend)
    shifts = batch.shifts + torch.einsum("nka,nab->nkb", batch.shifts, bend)
    energy = network.energy(batch._replace(positions=moved, shifts=shifts)).mean(dim=0).sum()
    by_position, by_strain = torch.autograd.grad(energy, (positions, strain))
    return -by_position, by_strain


def _environment(molecule: Structure, config: AniConfig) -> np.ndarray:
    """The descriptor by loops over atoms and pairs, as it is printed."""
    numbers, r = molecule.numbers, molecule.positions
    s, radial, angular = len(config.elements), len(config.radial_shifts), len(config.angular_shifts)
    pairs = [(a, b) for a in range(s) for b in range(a, s)]
    kind = [config.elements.index(z) for z in numbers]
    out = np.zeros((len(numbers), config.environment))

    def fc(distance: float, cutoff: float) -> float:
        return 0.5 * np.cos(np.pi * distance / cutoff) + 0.5 if distance < cutoff else 0.0

    for i in range(len(numbers)):
        near = [(j, r[j] - r[i]) for j in range(len(numbers)) if j != i]
        for j, d in near:
            x = float(np.linalg.norm(d))
            for k, shift in enumerate(config.radial_shifts):
                value = 0.25 * np.exp(-config.radial_eta * (x - shift) ** 2) * fc(x, config.cutoff_angstrom)
                out[i, radial * kind[j] + k] += value
        for at, (j, dj) in enumerate(near):
            for k, dk in near[at + 1 :]:
                x, y = float(np.linalg.norm(dj)), float(np.linalg.norm(dk))
                both = fc(x, config.angular_cutoff_angstrom) * fc(y, config.angular_cutoff_angstrom)
                theta = np.arccos(0.95 * dj @ dk / (x * y))
                place = pairs.index((min(kind[j], kind[k]), max(kind[j], kind[k])))
                for a, mean in enumerate(config.angular_shifts):
                    bell = np.exp(-config.angular_eta * ((x + y) / 2 - mean) ** 2)
                    for z, angle in enumerate(config.angle_shifts):
                        lobe = 2 * ((1 + np.cos(theta - angle)) / 2) ** config.zeta
                        column = s * radial + (place * angular + a) * len(config.angle_shifts) + z
                        out[i, column] += lobe * bell * both
    return out


def _difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().abs().max())
