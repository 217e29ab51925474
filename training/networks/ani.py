"""ANI: atomic environment vectors and one network per element, a committee in one module, with its forces.

Smith, Isayev, Roitberg, Chem. Sci. 8, 3192 (2017); the networks ANI-1x and ANI-1ccx: Smith et al., J. Chem. Phys. 148,
241733 (2018) and Nat. Commun. 10, 2903 (2019). The members share the environment vector, so that its cost and that of
its derivative are paid once.

Shapes: M members, N atoms, K neighbour slots, A slots within the angular cutoff, S elements, P = S (S + 1) / 2 pairs of
elements, G = S n_r + P n_a n_z entries of an environment vector. The bar of a name is the derivative of the summed mean
energy with respect to it. The adjoint is written out, so that ONNX and TorchScript hold forces without autograd.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from contract.units import HARTREE_EV
from training.networks.constants import ExactConstants
from training.networks.hipnn import Batch, Evaluation, sum_per_structure

CELU_ALPHA = 0.1
RADIAL_SCALE = 0.25
ANGULAR_SCALE = 2.0
COSINE_SCALE = 0.95


class AniConfig(BaseModel):
    """Architecture of an ANI committee. Lengths in angstrom, angles in rad, exponents eta in 1/angstrom^2."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    elements: list[int] = Field(min_length=1, description="atomic numbers in the order of the environment vector")
    hidden: list[list[int]] = Field(description="widths of the hidden layers of each element's network")
    cutoff_angstrom: float = Field(5.2, gt=0, description="of the radial part")
    angular_cutoff_angstrom: float = Field(3.5, gt=0)
    radial_eta: float = Field(16.0, gt=0)
    radial_shifts: list[float]
    zeta: int = Field(32, ge=1)
    angle_shifts: list[float]
    angular_eta: float = Field(8.0, gt=0)
    angular_shifts: list[float]
    members: int = Field(1, ge=1)
    kind: Literal["ani"] = "ani"

    @property
    def environment(self) -> int:
        """G, the length of an environment vector."""
        s = len(self.elements)
        return s * len(self.radial_shifts) + s * (s + 1) // 2 * len(self.angular_shifts) * len(self.angle_shifts)


class Pairs(NamedTuple):
    """Neighbour slots: displacements [N, K, 3], inverse distances and unit vectors, elements one-hot [N, K, S]."""

    displacement: Tensor
    distance: Tensor
    inverse: Tensor
    unit: Tensor
    element: Tensor


class _Radial(NamedTuple):
    """What the way back through the radial part needs: dg/dr [N, K, n_r]."""

    slope: Tensor


class _Angular(NamedTuple):
    """What the way back through the angular part needs."""

    slots: Tensor
    unit: Tensor
    cosine: Tensor
    pair: Tensor
    bell: Tensor
    bell_slope: Tensor
    cutoff: Tensor
    cutoff_slope: Tensor
    lobe: Tensor
    lobe_slope: Tensor


class EnvironmentTrace(NamedTuple):
    """Both parts, and the geometry that they share."""

    pairs: Pairs
    radial: _Radial
    angular: _Angular


class Environment(ExactConstants):
    """Atomic environment vectors [N, G] and their adjoint."""

    def __init__(self, config: AniConfig) -> None:
        super().__init__()
        self.zeta = config.zeta
        radial = len(config.elements) * len(config.radial_shifts)
        self.widths = [radial, config.environment - radial]
        self.register_constant("radial_cutoff", config.cutoff_angstrom)
        self.register_constant("angular_cutoff", config.angular_cutoff_angstrom)
        self.register_constant("pi", torch.pi)
        self.register_constant("radial_eta", config.radial_eta)
        self.register_constant("radial_shifts", config.radial_shifts)
        self.register_constant("angular_eta", config.angular_eta)
        self.register_constant("angular_shifts", config.angular_shifts)
        angles = torch.tensor(config.angle_shifts, dtype=torch.float64)
        self.register_constant("cosines", torch.cos(angles).tolist())
        self.register_constant("sines", torch.sin(angles).tolist())
        self.register_constant("cosine_scale", COSINE_SCALE)
        self.register_buffer("elements", torch.tensor(config.elements), persistent=False)
        self.register_buffer("kinds", _kinds_of_pairs(len(config.elements)), persistent=False)
        self.radial_cutoff: Tensor
        self.angular_cutoff: Tensor
        self.pi: Tensor
        self.radial_eta: Tensor
        self.radial_shifts: Tensor
        self.angular_eta: Tensor
        self.angular_shifts: Tensor
        self.cosines: Tensor
        self.sines: Tensor
        self.cosine_scale: Tensor
        self.elements: Tensor
        self.kinds: Tensor

    def forward(self, batch: Batch) -> tuple[Tensor, EnvironmentTrace]:
        """Environment vectors, and the trace for the way back."""
        pairs = self._pairs(batch)
        radial, radial_trace = self._radial(pairs)
        angular, angular_trace = self._angular(pairs)
        return torch.cat([radial, angular], dim=1), EnvironmentTrace(pairs, radial_trace, angular_trace)

    def backward(self, bar: Tensor, trace: EnvironmentTrace) -> Tensor:
        """Derivative by each displacement, [.., N, K, 3], from that by the environment vectors, [.., N, G]."""
        radial, angular = torch.split(bar, self.widths, dim=-1)
        gradient = self._radial_gradient(radial, trace).unsqueeze(-1) * trace.pairs.unit
        return gradient + self._angular_gradient(angular, trace)

    def _pairs(self, batch: Batch) -> Pairs:
        d = batch.positions[batch.neighbours] - batch.positions.unsqueeze(1) + batch.shifts
        square = (d * d).sum(dim=2)
        inverse = torch.rsqrt(square)
        element = (batch.species[batch.neighbours].unsqueeze(2) == self.elements).to(d.dtype)
        return Pairs(d, square * inverse, inverse, d * inverse.unsqueeze(2), element)

    def _cutoff(self, r: Tensor, cutoff: Tensor) -> tuple[Tensor, Tensor]:
        """(1 + cos(pi r / R)) / 2 inside R, and its derivative."""
        inside = (r < cutoff).to(r.dtype)
        angle = r * (self.pi / cutoff)
        return inside * (torch.cos(angle) + 1.0) / 2.0, inside * torch.sin(angle) * (-self.pi / (2.0 * cutoff))

    def _radial(self, pairs: Pairs) -> tuple[Tensor, _Radial]:
        """Sum over the neighbours of each element, [N, S n_r]."""
        cutoff, slope = self._cutoff(pairs.distance, self.radial_cutoff)
        apart = pairs.distance.unsqueeze(2) - self.radial_shifts
        bell = RADIAL_SCALE * torch.exp(-self.radial_eta * apart * apart)
        summed = torch.bmm(pairs.element.transpose(1, 2), bell * cutoff.unsqueeze(2)).flatten(1)
        return summed, _Radial(bell * (slope.unsqueeze(2) - 2.0 * self.radial_eta * apart * cutoff.unsqueeze(2)))

    def _radial_gradient(self, bar: Tensor, trace: EnvironmentTrace) -> Tensor:
        """dE/dr of each slot, [.., N, K]."""
        per_element = torch.unflatten(bar, -1, (trace.pairs.element.shape[2], trace.radial.slope.shape[2]))
        return (torch.matmul(trace.pairs.element, per_element) * trace.radial.slope).sum(dim=-1)

    def _angular(self, pairs: Pairs) -> tuple[Tensor, _Angular]:
        """Sum over unordered pairs of neighbours, [N, P n_a n_z]."""
        slots = _nearest_slots(pairs.distance, self.angular_cutoff)
        r = torch.gather(pairs.distance, 1, slots)
        unit = torch.gather(pairs.unit, 1, slots.unsqueeze(2).expand(-1, -1, 3))
        element = torch.gather(pairs.element, 1, slots.unsqueeze(2).expand(-1, -1, pairs.element.shape[2]))
        cutoff, slope = self._cutoff(r, self.angular_cutoff)
        pair = self._pair_weights(element)
        apart = (r.unsqueeze(2) + r.unsqueeze(1)).unsqueeze(3) / 2.0 - self.angular_shifts
        bell = torch.exp(-self.angular_eta * apart * apart)
        cosine, lobe, lobe_slope = self._lobes(unit)
        both = (cutoff.unsqueeze(2) * cutoff.unsqueeze(1)).unsqueeze(3)
        terms = (bell * both).unsqueeze(4) * lobe.unsqueeze(3)
        summed = torch.bmm(pair.flatten(1, 2).transpose(1, 2), terms.flatten(3, 4).flatten(1, 2)).flatten(1)
        return summed, _Angular(
            slots, unit, cosine, pair, bell, -self.angular_eta * apart, cutoff, slope, lobe, lobe_slope
        )

    def _pair_weights(self, element: Tensor) -> Tensor:
        """One half at the pair of elements of (j, k), which is met twice, and 0 for j = k: [N, A, A, P]."""
        both = element.unsqueeze(2).unsqueeze(4) * element.unsqueeze(1).unsqueeze(3)
        count = element.shape[1]
        index = torch.arange(count, device=element.device)
        apart = (index.unsqueeze(1) != index).to(both.dtype) / 2.0
        return torch.matmul(both.flatten(3, 4), self.kinds) * apart.unsqueeze(2)

    def _lobes(self, unit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cos theta [N, A, A]; 2 ((1 + cos(theta - theta_z)) / 2)^zeta and its derivative by cos theta, [.., n_z]."""
        cosine = self.cosine_scale * torch.bmm(unit, unit.transpose(1, 2))
        sine = torch.sqrt(1.0 - cosine * cosine)
        c, s = cosine.unsqueeze(3), sine.unsqueeze(3)
        half = (1.0 + c * self.cosines + s * self.sines) / 2.0
        below = _power(half, self.zeta - 1)
        slope = (ANGULAR_SCALE * self.zeta / 2.0) * below * (self.cosines - c / s * self.sines)
        return cosine, ANGULAR_SCALE * below * half, slope

    def _angular_gradient(self, bar: Tensor, trace: EnvironmentTrace) -> Tensor:
        """dE/dd of each slot, [.., N, K, 3]. Both orders of a pair add the same, hence the factors 2."""
        near, angular = trace.pairs, trace.angular
        count, bells, lobes = angular.slots.shape[1], angular.bell.shape[3], angular.lobe.shape[3]
        per_pair = torch.unflatten(bar, -1, (angular.pair.shape[3], bells * lobes))
        terms = torch.matmul(angular.pair.flatten(1, 2), per_pair)
        terms = torch.unflatten(torch.unflatten(terms, -1, (bells, lobes)), -3, (count, count))
        by_bell = (terms * angular.lobe.unsqueeze(3)).sum(dim=-1) * angular.bell
        by_lobe = (terms * angular.bell.unsqueeze(4)).sum(dim=-2)
        fj, fk = angular.cutoff.unsqueeze(2), angular.cutoff.unsqueeze(1)
        along = (by_bell * angular.bell_slope).sum(dim=-1) * fj + by_bell.sum(dim=-1) * angular.cutoff_slope.unsqueeze(
            2
        )
        radial = 2.0 * (along * fk).sum(dim=-1, keepdim=True)
        cosine_bar = (by_lobe * angular.lobe_slope).sum(dim=-1) * fj * fk
        across = (2.0 * self.cosine_scale) * torch.matmul(cosine_bar, angular.unit)
        inverse = torch.gather(near.inverse, 1, angular.slots).unsqueeze(2)
        turned = across - angular.unit * (angular.unit * across).sum(dim=-1, keepdim=True)
        gradient = radial * angular.unit + inverse * turned
        slots = angular.slots.unsqueeze(2).expand_as(gradient)
        nowhere = gradient.new_zeros(*gradient.shape[:-2], *near.displacement.shape[1:])
        return nowhere.scatter(gradient.dim() - 2, slots, gradient)


class ElementNetwork(nn.Module):
    """The networks of one element, of all members: CELU layers and a linear one, [n, G] to [M, n]."""

    def __init__(self, widths: Sequence[int], members: int) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.zeros(members, a, b) for a, b in pairwise(widths))
        self.biases = nn.ParameterList(torch.zeros(members, 1, b) for b in widths[1:])

    def forward(self, environment: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Atomic energies [M, n] and the pre-activations."""
        x = environment.unsqueeze(0)
        steps = list(zip(self.weights, self.biases, strict=True))
        before = []
        for weight, bias in steps[:-1]:
            before.append(torch.matmul(x, weight) + bias)
            x = _celu(before[-1])
        weight, bias = steps[-1]
        return (torch.matmul(x, weight) + bias).squeeze(2), before

    def backward(self, seed: Tensor, before: list[Tensor]) -> Tensor:
        """Derivative by the environment vectors of each member, [M, n, G]; the seed is dE/d(atomic energy)."""
        weights = list(self.weights)
        bar: Tensor = (seed * weights[-1]).transpose(1, 2)
        for weight, p in zip(reversed(weights[:-1]), reversed(before), strict=True):
            bar = torch.matmul(bar * _celu_slope(p), weight.transpose(1, 2))
        return bar


class Ani(ExactConstants):
    """A committee of ANI networks. Self energies are not in its energies: they are added in float64 outside."""

    def __init__(self, config: AniConfig) -> None:
        super().__init__()
        self.config = config
        self.environment = Environment(config)
        self.networks = nn.ModuleList(
            ElementNetwork([config.environment, *hidden, 1], config.members) for hidden in config.hidden
        )
        self.register_constant("cutoff", config.cutoff_angstrom)
        self.register_constant("hartree", HARTREE_EV)
        self.cutoff: Tensor
        self.hartree: Tensor

    def evaluate(self, batch: Batch) -> Evaluation:
        """Energies of all members; forces and virials of their mean by the adjoint."""
        vectors, trace = self.environment(batch)
        atomic, bars = self._atoms(vectors, batch.species)
        gradient = self.environment.backward(bars.mean(dim=0), trace)
        forces, virial = _on_atoms(gradient.unsqueeze(0), trace.pairs, batch)
        return Evaluation(sum_per_structure(atomic, batch), forces.squeeze(0), virial.squeeze(0), atomic)

    def evaluate_members(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Energies [M, B], atomic energies [M, N], forces [M, N, 3] and virials [M, B, 3, 3] of every member.

        The environment vectors are the members' common ground; only the way back through them is each member's own.
        """
        vectors, trace = self.environment(batch)
        atomic, bars = self._atoms(vectors, batch.species)
        forces, virial = _on_atoms(self.environment.backward(bars, trace), trace.pairs, batch)
        return sum_per_structure(atomic, batch), atomic, forces, virial

    def energy(self, batch: Batch) -> Tensor:
        """Energies without self energies, eV [M, B], float64 sums."""
        vectors, _ = self.environment(batch)
        return sum_per_structure(self._atoms(vectors, batch.species)[0], batch)

    def _atoms(self, vectors: Tensor, species: Tensor) -> tuple[Tensor, Tensor]:
        """Atomic energies, eV [M, N], and their derivatives by the environment vectors, [M, N, G].

        An atom of no element of the network has neither.
        """
        known = species.unsqueeze(1) == self.environment.elements
        nobody = torch.nonzero(torch.logical_not(known.any(dim=1))).squeeze(1)
        nothing = (vectors[nobody] * 0.0).unsqueeze(0).expand(self.config.members, -1, -1)
        atomic, bars, rows = [nothing.sum(dim=2)], [nothing], [nobody]
        for e, network in enumerate(self.networks):
            mine = torch.nonzero(known[:, e]).squeeze(1)
            energy, before = network(vectors[mine])
            atomic.append(energy)
            bars.append(network.backward(torch.ones_like(energy).unsqueeze(1), before))  # type: ignore[operator]
            rows.append(mine)
        place = torch.argsort(torch.cat(rows))
        return torch.cat(atomic, dim=1)[:, place] * self.hartree, torch.cat(bars, dim=1)[:, place] * self.hartree


def _on_atoms(gradient: Tensor, pairs: Pairs, batch: Batch) -> tuple[Tensor, Tensor]:
    """Forces [M, N, 3] and virials [M, B, 3, 3] from the derivative by each displacement, [M, N, K, 3]."""
    forces = gradient.sum(dim=2) - gradient.flatten(1, 2)[:, batch.reverse].sum(dim=2)
    moment = torch.matmul(pairs.displacement.transpose(1, 2), gradient).permute(0, 2, 3, 1)
    virial = sum_per_structure(moment.flatten(0, 2), batch).reshape(*moment.shape[:3], -1).permute(0, 3, 1, 2)
    return forces, virial.to(forces.dtype)


def _nearest_slots(distance: Tensor, cutoff: Tensor) -> Tensor:
    """The slots of each atom from near to far, as many as the most crowded atom has within the cutoff, at least one."""
    most = (distance < cutoff).sum(dim=1).max().clamp(min=1)
    columns = torch.nonzero(torch.arange(distance.shape[1], device=distance.device) < most).squeeze(1)
    return torch.argsort(distance, dim=1)[:, columns]


def _kinds_of_pairs(elements: int) -> Tensor:
    """One-hot, which unordered pair (0,0), (0,1) .. (1,1) .. an ordered pair of elements is: [S * S, P]."""
    kinds = [(a, b) for a in range(elements) for b in range(a, elements)]
    ordered = [(min(a, b), max(a, b)) for a in range(elements) for b in range(elements)]
    return torch.tensor([[float(pair == kind) for kind in kinds] for pair in ordered])


def _power(x: Tensor, exponent: int) -> Tensor:
    """x^n by squaring: exact for a base of 0, and a few products instead of a logarithm."""
    result: Tensor | None = None
    square = x
    while exponent:
        if exponent & 1:
            result = square if result is None else result * square
        exponent >>= 1
        if exponent:
            square = square * square
    return torch.ones_like(x) if result is None else result


def _celu(x: Tensor) -> Tensor:
    return torch.relu(x) + CELU_ALPHA * (_celu_slope(x) - 1.0)


def _celu_slope(x: Tensor) -> Tensor:
    """exp(min(x, 0) / alpha): 1 on the right."""
    return torch.exp(torch.clamp(x, max=0.0) / CELU_ALPHA)
