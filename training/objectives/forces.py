"""Energies and forces: the gradient of a force loss by double backpropagation, the adjoint or a directional difference.

Directional difference: Smith, Lubbers, Thompson, Barros, "Simple and efficient algorithms for training machine learning
potentials to force data", arXiv:2006.05475. With v = dL_F/df and w = dL_E/dE held fixed,

    dL/dtheta = d/dtheta sum_b [ w_b (E+ + E-) / 2 - (E+ - E-) / (2 eta_b) ] + O(eta^2),   E+- = E(r +- eta v),

so no second derivative is ever taken.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from training.networks.hipnn import Batch, HipNN
from training.objectives.losses import Labels, Objective, rmse_plus_mae

ForceMode = Literal["double_backprop", "adjoint", "directional_difference"]


@dataclass(frozen=True)
class EnergyForceObjective:
    """RMSE + MAE of energies (eV), of force components (eV/angstrom) and, if weighed, of virials (eV) of every member.

    Args:
        energy_weight, force_weight: dimensionless.
        virial_weight: of the components of dE/dstrain; only with mode `adjoint`. Forces say nothing of how the energy
            changes with the volume, energies little.
        mode: how the gradient of the force term is taken. `adjoint` backpropagates through the network's own adjoint.
        displacement_angstrom: largest displacement of an atom in a directional difference.
    """

    energy_weight: float = 1.0
    force_weight: float = 1.0
    mode: ForceMode = "adjoint"
    displacement_angstrom: float = 1e-3
    virial_weight: float = 0.0

    def __call__(self, network: HipNN, batch: Batch, labels: Labels) -> Objective:
        """The objective of a batch; labels need forces."""
        if labels.forces is None:
            raise ValueError("this objective needs forces; the data have none")
        if self.virial_weight and self.mode != "adjoint":
            raise ValueError("virial_weight is for mode 'adjoint'; set it to 0")
        route = {
            "double_backprop": self._double_backprop,
            "adjoint": self._adjoint,
            "directional_difference": self._directional_difference,
        }
        return route[self.mode](network, batch, labels, labels.forces)

    def _double_backprop(self, network: HipNN, batch: Batch, labels: Labels, target: Tensor) -> Objective:
        energy, forces = energy_and_forces(network, batch)
        return self._sum(energy, forces, batch, labels, target)

    def _adjoint(self, network: HipNN, batch: Batch, labels: Labels, target: Tensor) -> Objective:
        if network.config.members != 1:
            raise ValueError("mode 'adjoint' trains one member at a time; use 'double_backprop' for a committee")
        evaluation = network.evaluate(batch)
        found = self._sum(evaluation.energy, evaluation.forces.unsqueeze(0), batch, labels, target)
        return found if not self.virial_weight else plus_virial(found, self.virial_weight, evaluation.virial, labels)

    def _directional_difference(self, network: HipNN, batch: Batch, labels: Labels, target: Tensor) -> Objective:
        if network.config.members != 1:
            raise ValueError("mode 'directional_difference' trains one member at a time")
        with torch.no_grad():
            answer = network.evaluate(batch)
        energy, forces = answer.energy.requires_grad_(), answer.forces.unsqueeze(0).requires_grad_()
        loss = self._sum(energy, forces, batch, labels, target)
        w, v = torch.autograd.grad(loss.surrogate, (energy, forces))
        step = _step_lengths(v[0], batch, self.displacement_angstrom)
        moved = _displaced(batch, step.to(v.dtype)[batch.structure].unsqueeze(1) * v[0])
        plus, minus = network.energy(moved).chunk(2, dim=1)
        slope = torch.where(step > 0, (plus - minus) / (2.0 * step.clamp_min(1e-30)), 0.0)
        return Objective((0.5 * w * (plus + minus) - slope).sum(), loss.terms)

    def _sum(self, energy: Tensor, forces: Tensor, batch: Batch, labels: Labels, target: Tensor) -> Objective:
        on_energy = rmse_plus_mae(energy - labels.energy, labels.weight)
        weight = None if labels.weight is None else labels.weight[:, batch.structure].repeat_interleave(3, dim=1)
        on_forces = rmse_plus_mae((forces - target).flatten(1), weight)
        members = energy.shape[0]
        terms = {"energy": on_energy.item() / members, "forces": on_forces.item() / members}
        return Objective(self.energy_weight * on_energy + self.force_weight * on_forces, terms)


def plus_virial(found: Objective, weight: float, virial: Tensor, labels: Labels) -> Objective:
    """An objective of a single network with the term of its virials, eV [B, 3, 3], added.

    Raises:
        ValueError: the data have no stress.
    """
    if labels.virial is None:
        raise ValueError("virial_weight is set, but the data have no stress; set it to 0")
    each = None if labels.weight is None else labels.weight.repeat_interleave(9, dim=1)
    on_virial = rmse_plus_mae((virial - labels.virial).reshape(1, -1), each)
    return Objective(found.surrogate + weight * on_virial, {**found.terms, "virials": on_virial.item()})


def energy_and_forces(network: HipNN, batch: Batch) -> tuple[Tensor, Tensor]:
    """Energies eV [M, B] and forces eV/angstrom [M, N, 3] of every member, differentiable once more, by autograd."""
    positions = batch.positions.detach().requires_grad_()
    energy = network.energy(batch._replace(positions=positions))
    gradients = [
        torch.autograd.grad(energy[m].sum(), positions, create_graph=True)[0] for m in range(network.config.members)
    ]
    return energy, -torch.stack(gradients)


def _step_lengths(v: Tensor, batch: Batch, displacement: float) -> Tensor:
    """Step eta per structure, float64 [B]: the longest displacement becomes `displacement`; zero where v is zero."""
    length = v.norm(dim=1).to(torch.float64)
    longest = torch.zeros(batch.cells.shape[0], dtype=torch.float64, device=v.device)
    longest = longest.scatter_reduce(0, batch.structure, length, "amax")
    return torch.where(longest > 0, displacement / longest.clamp_min(1e-30), 0.0)


def _displaced(batch: Batch, by: Tensor) -> Batch:
    """Both displaced copies as one batch of 2 B structures that share the neighbour lists."""
    n_atoms, n_slots = batch.neighbours.shape
    n_structures = batch.cells.shape[0]
    return Batch(
        torch.cat([batch.species, batch.species]),
        torch.cat([batch.positions + by, batch.positions - by]),
        torch.cat([batch.neighbours, batch.neighbours + n_atoms]),
        torch.cat([batch.shifts, batch.shifts]),
        torch.cat([batch.reverse, batch.reverse + n_atoms * n_slots]),
        torch.cat([batch.structure, batch.structure + n_structures]),
        torch.cat([batch.cells, batch.cells]),
    )
