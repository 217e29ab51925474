"""HIP-NN and HIP-NN-TS, a committee in one module, with its forces by a hand-written adjoint.

Lubbers, Smith, Barros, J. Chem. Phys. 148, 241715 (2018); tensor sensitivities (l = 1, 2): Chigaev et al., J. Chem.
Phys. 158, 184108 (2023). Members share distances and sensitivities and differ in every other weight.

Shapes: M members, N atoms, K neighbour slots, C = 1, 4, 9 components for l = 0, 1, 2, n sensitivities, f features. The
bar of a name is the derivative of the summed energy with respect to it. Because the energy is a sum over atoms and
structures share no pairs, one backward pass gives every structure's gradient.
"""

import math
from typing import Literal, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from training.networks.constants import ExactConstants
from training.networks.repulsion import Repulsion, RepulsionConfig
from training.networks.sensitivity import (
    Constants,
    Geometry,
    Sensitivity,
    SensitivityTrace,
    geometry,
    unit_vector_gradient,
)

READOUT_DECAY = 1e-2


class HipNNConfig(BaseModel):
    """Architecture of a HIP-NN committee. Lengths in angstrom."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    elements: list[int] = Field(min_length=1, description="atomic numbers in one-hot order")
    order: Literal[0, 1, 2] = Field(1, description="l: highest tensor rank of the sensitivities")
    features: int = Field(32, ge=1)
    sensitivities: int = Field(20, ge=1)
    soft_min_angstrom: float = Field(0.85, gt=0)
    soft_max_angstrom: float = Field(5.0, gt=0)
    cutoff_angstrom: float = Field(5.5, gt=0)
    interaction_layers: int = Field(2, ge=1)
    atom_layers: int = Field(3, ge=0)
    members: int = Field(1, ge=1)
    cusp_regulariser: float = Field(1e-6, gt=0, description="epsilon inside the root of the tensor norms")
    prior: RepulsionConfig | None = Field(None, description="a fixed repulsion that is part of the energy")


class Batch(NamedTuple):
    """Tensors of the `potential` signature (contract/signatures.py)."""

    species: Tensor
    positions: Tensor
    neighbours: Tensor
    shifts: Tensor
    reverse: Tensor
    structure: Tensor
    cells: Tensor


class Evaluation(NamedTuple):
    """Energies eV [M, B], float64; forces eV/angstrom [N, 3] and virials eV [B, 3, 3] of the mean; atomic energies."""

    energy: Tensor
    forces: Tensor
    virial: Tensor
    atomic_energy: Tensor


class _Trace(NamedTuple):
    """What the way back through a block needs."""

    sensitivity: SensitivityTrace
    gathered: list[Tensor]
    components: list[Tensor]
    norms: list[Tensor]
    activations: list[Tensor]


class Interaction(ExactConstants):
    """Wrapped interaction layer: features of the neighbours, weighted by sensitivities, to features of the atom."""

    def __init__(self, config: HipNNConfig, f_in: int, *, first: bool) -> None:
        super().__init__()
        members, f = config.members, config.features
        self.order, self.f_in, self.first = config.order, f_in, first
        self.sensitivity = Sensitivity(config)
        self.weight = nn.Parameter(torch.empty(members, config.sensitivities * f_in, f))
        self.self_weight = nn.Parameter(torch.empty(members, f_in, f))
        self.bias = nn.Parameter(torch.empty(members, 1, f))
        self.vector_scale = nn.Parameter(torch.randn(members, 1, f)) if config.order >= 1 else None
        self.tensor_scale = nn.Parameter(torch.randn(members, 1, f)) if config.order >= 2 else None
        self.out_weight = nn.Parameter(torch.empty(members, f, f))
        self.out_bias = nn.Parameter(torch.empty(members, 1, f))
        self.skip_weight = nn.Parameter(torch.empty(members, f_in, f)) if f_in != f else None
        self.register_constant("epsilon", config.cusp_regulariser)
        self.epsilon: Tensor
        self._initialise(config)

    def _initialise(self, config: HipNNConfig) -> None:
        f_in, f, n = self.f_in, config.features, config.sensitivities
        nn.init.normal_(self.weight, std=math.sqrt(2.0 / (f_in * (f + n))))
        nn.init.normal_(self.self_weight, std=math.sqrt(2.0 / (f_in + f)))
        _linear_default(self.bias, f_in)
        _linear_default(self.out_weight, f)
        _linear_default(self.out_bias, f)
        if self.skip_weight is not None:
            _linear_default(self.skip_weight, f_in)

    def forward(self, z: Tensor, near: Geometry, neighbours: Tensor) -> tuple[Tensor, _Trace]:
        """Features z ([1, N, f_in] one-hot in the first block, else [M, N, f_in]) to [M, N, f]."""
        sensitivity = self.sensitivity(near)
        gathered = [features[neighbours] for features in _members(z)]
        parts = self._components(sensitivity.tensor, gathered, near.harmonics.shape[2])
        p = parts[0].squeeze(2) + torch.matmul(z, self.self_weight) + self.bias
        norms = []
        if self.vector_scale is not None:
            norms.append(torch.sqrt((parts[1] * parts[1]).sum(dim=2) + self.epsilon))
            p = p + self.vector_scale * norms[0]
        if self.tensor_scale is not None:
            xx, yy = parts[2][:, :, 0], parts[2][:, :, 3]
            squares = (parts[2] * parts[2]).sum(dim=2) + xx * yy
            norms.append(torch.sqrt(squares + squares + self.epsilon))
            p = p + self.tensor_scale * norms[1]
        skip = z if self.skip_weight is None else torch.matmul(z, self.skip_weight)
        out = torch.matmul(softplus(p), self.out_weight) + self.out_bias + skip
        return out, _Trace(sensitivity, gathered, parts, norms, [p])

    def backward(self, z_bar: Tensor, trace: _Trace, reverse: Tensor) -> tuple[Tensor, Tensor | None]:
        """Derivatives by the sensitivities [N, K, C n] and, unless this block is the first, by the input features."""
        p_bar = torch.matmul(z_bar, self.out_weight.transpose(1, 2)) * torch.sigmoid(trace.activations[0])
        rows_bar = torch.matmul(self._component_gradient(p_bar, trace).flatten(1, 2), self.weight.transpose(1, 2))
        if self.first and len(rows_bar) > 1:  # all members see the same one-hot neighbours
            rows_bar = rows_bar.sum(dim=0, keepdim=True)
        channels = trace.sensitivity.tensor.shape[2]
        environment_bar = [rows.reshape(-1, channels, self.f_in) for rows in _members(rows_bar)]
        s_bar = torch.bmm(trace.gathered[0], environment_bar[0].transpose(1, 2))
        for seen, bar in zip(trace.gathered[1:], environment_bar[1:], strict=True):
            s_bar = s_bar + torch.bmm(seen, bar.transpose(1, 2))
        if self.first:
            return s_bar, None
        pushed = [torch.bmm(trace.sensitivity.tensor, bar) for bar in environment_bar]
        received = torch.stack([back.flatten(0, 1)[reverse].sum(dim=1) for back in pushed])
        skip = z_bar if self.skip_weight is None else torch.matmul(z_bar, self.skip_weight.transpose(1, 2))
        return s_bar, received + torch.matmul(p_bar, self.self_weight.transpose(1, 2)) + skip

    def _components(self, sensitivity: Tensor, gathered: list[Tensor], components: int) -> list[Tensor]:
        """A_c of each rank, [M, N, 1 | 3 | 5, f]; member by member: together they do not fit the cache."""
        across = sensitivity.transpose(1, 2)
        rows = [torch.bmm(across, near).reshape(sensitivity.shape[0] * components, -1) for near in gathered]
        if len(rows) == 1:
            a = torch.matmul(rows[0], self.weight)
        else:
            a = torch.stack([torch.mm(row, weight) for row, weight in zip(rows, self.weight.unbind(0), strict=True)])
        return list(torch.split(torch.unflatten(a, 1, (-1, components)), [1, 3, 5][: self.order + 1], dim=2))

    def _component_gradient(self, p_bar: Tensor, trace: _Trace) -> Tensor:
        bars = [p_bar.unsqueeze(2)]
        if self.vector_scale is not None:
            bars.append(trace.components[1] * (self.vector_scale * p_bar / trace.norms[0]).unsqueeze(2))
        if self.tensor_scale is not None:
            h = (self.tensor_scale * p_bar / trace.norms[1]).unsqueeze(2)
            twice = h * (trace.components[2] + trace.components[2])
            xx, xy_xz, yy, yz = torch.split(twice, [1, 2, 1, 1], dim=2)
            bars += [xx + yy / 2, xy_xz, yy + xx / 2, yz]
        return torch.cat(bars, dim=2) if len(bars) > 1 else bars[0]


class AtomLayer(nn.Module):
    """Wrapped linear layer: z + R softplus(B z + c) + r, [M, N, f]."""

    def __init__(self, members: int, f: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(members, f, f))
        self.bias = nn.Parameter(torch.empty(members, 1, f))
        self.out_weight = nn.Parameter(torch.empty(members, f, f))
        self.out_bias = nn.Parameter(torch.empty(members, 1, f))
        nn.init.normal_(self.weight, std=math.sqrt(1.0 / f))
        for parameter in (self.bias, self.out_weight, self.out_bias):
            _linear_default(parameter, f)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The layer's output and its pre-activation p."""
        p = torch.matmul(z, self.weight) + self.bias
        return z + torch.matmul(softplus(p), self.out_weight) + self.out_bias, p

    def backward(self, z_bar: Tensor, p: Tensor) -> Tensor:
        """Derivative by the input, given that by the output."""
        p_bar = torch.matmul(z_bar, self.out_weight.transpose(1, 2)) * torch.sigmoid(p)
        return z_bar + torch.matmul(p_bar, self.weight.transpose(1, 2))


class Block(nn.Module):
    """An interaction layer, its atom layers and a linear readout of one order of the hierarchy."""

    def __init__(self, config: HipNNConfig, f_in: int, *, first: bool) -> None:
        super().__init__()
        self.interaction = Interaction(config, f_in, first=first)
        self.atom_layers = nn.ModuleList(AtomLayer(config.members, config.features) for _ in range(config.atom_layers))
        self.readout = nn.Parameter(torch.empty(config.members, config.features, 1))
        self.readout_bias = nn.Parameter(torch.empty(config.members, 1))
        _linear_default(self.readout, config.features)
        _linear_default(self.readout_bias, config.features)

    def forward(self, z: Tensor, near: Geometry, neighbours: Tensor) -> tuple[Tensor, Tensor, _Trace]:
        """Features [M, N, f], this order's atomic energies [M, N] in eV, and the trace for the way back."""
        z, trace = self.interaction(z, near, neighbours)
        for layer in self.atom_layers:
            z, p = layer(z)
            trace.activations.append(p)
        energy = (z * self.readout.transpose(1, 2)).sum(dim=2)  # a matrix-vector product would round by batch size
        return z, energy + self.readout_bias, trace

    def backward(self, z_bar: Tensor, trace: _Trace, reverse: Tensor) -> tuple[Tensor, Tensor | None]:
        """See Interaction.backward."""
        for layer, p in zip(reversed(self.atom_layers), reversed(trace.activations[1:]), strict=True):
            z_bar = layer.backward(z_bar, p)  # type: ignore[operator]
        return self.interaction.backward(z_bar, trace, reverse)


class HipNN(ExactConstants):
    """A committee of HIP-NN networks. Atomic references are not in its energies: they are added in float64 outside."""

    def __init__(self, config: HipNNConfig) -> None:
        super().__init__()
        self.config = config
        widths = [len(config.elements)] + [config.features] * (config.interaction_layers - 1)
        self.blocks = nn.ModuleList(Block(config, w, first=k == 0) for k, w in enumerate(widths))
        self._scale_readouts()
        self.repulsion = None if config.prior is None else Repulsion(config.prior)
        self.register_buffer("elements", torch.tensor(config.elements), persistent=False)
        self.register_constant("cutoff", config.cutoff_angstrom)
        self.register_constant("kappa", math.pi / (2.0 * config.cutoff_angstrom))
        self.register_constant("third", 1.0 / 3.0)
        self.elements: Tensor
        self.cutoff: Tensor
        self.kappa: Tensor
        self.third: Tensor

    @torch.no_grad()
    def _scale_readouts(self) -> None:
        """Start near zero, higher orders nearer: d_1 = d, d_2 = d^2, d_3 = d^4 ... with d = 0.01."""
        for k, block in enumerate(self.blocks):
            for parameter in (block.readout, block.readout_bias):
                parameter.mul_(READOUT_DECAY ** (2**k))  # type: ignore[operator]

    def hierarchy(self, batch: Batch) -> Tensor:
        """Atomic energies of each order of the hierarchy, eV [orders, M, N]; a prior is in none of them."""
        near = self._geometry(batch)
        return torch.stack([energy for energy, _ in self._forward(batch, near)])

    def atomic_energy(self, batch: Batch) -> Tensor:
        """Atomic energies without references, eV [M, N]."""
        near = self._geometry(batch)
        atomic = torch.stack([energy for energy, _ in self._forward(batch, near)]).sum(dim=0)
        return atomic if self.repulsion is None else atomic + self.repulsion(near)[0].sum(dim=1)

    def energy(self, batch: Batch) -> Tensor:
        """Energies without references, eV [M, B], float64 sums."""
        return sum_per_structure(self.atomic_energy(batch), batch)

    def evaluate(self, batch: Batch) -> Evaluation:
        """Energies of all members; forces and virials of their mean by the adjoint, itself differentiable."""
        near = self._geometry(batch)
        passed = self._forward(batch, near)
        atomic = torch.stack([energy for energy, _ in passed]).sum(dim=0)
        repelled = None if self.repulsion is None else self.repulsion(near)
        if repelled is not None:
            atomic = atomic + repelled[0].sum(dim=1)
        slope = None if repelled is None else repelled[1]
        gradient = self._pair_gradient([trace for _, trace in passed], near, batch.reverse, slope)
        forces = gradient.sum(dim=1) - gradient.flatten(0, 1)[batch.reverse].sum(dim=1)
        moment = torch.matmul(near.displacement.transpose(1, 2), gradient).flatten(1)
        virial = sum_per_structure(moment.transpose(0, 1), batch).transpose(0, 1).reshape(-1, 3, 3)
        return Evaluation(sum_per_structure(atomic, batch), forces, virial.to(forces.dtype), atomic)

    def _geometry(self, batch: Batch) -> Geometry:
        constants = Constants(self.cutoff, self.kappa, self.third)
        return geometry(batch.positions, batch.neighbours, batch.shifts, constants, self.config.order)

    def _forward(self, batch: Batch, near: Geometry) -> list[tuple[Tensor, _Trace]]:
        z = (batch.species.unsqueeze(1) == self.elements).to(batch.positions.dtype).unsqueeze(0)
        passed = []
        for block in self.blocks:
            z, energy, trace = block(z, near, batch.neighbours)
            passed.append((energy, trace))
        return passed

    def _pair_gradient(
        self, traces: list[_Trace], near: Geometry, reverse: Tensor, prior_slope: Tensor | None
    ) -> Tensor:
        """Derivative of the summed mean energy with respect to each displacement, eV/angstrom [N, K, 3]."""
        z_bar: Tensor | None = None
        radial, harmonic = prior_slope, None
        for block, trace in zip(reversed(self.blocks), reversed(traces), strict=True):
            seed = block.readout.transpose(1, 2) / self.config.members  # type: ignore[operator]
            z_bar = seed.expand(-1, reverse.shape[0], -1) if z_bar is None else z_bar + seed
            s_bar, z_bar = block.backward(z_bar, trace, reverse)  # type: ignore[operator]
            r, y = trace.sensitivity.gradient(s_bar, near)
            radial = r if radial is None else radial + r
            harmonic = y if harmonic is None or y is None else harmonic + y
        if radial is None:
            raise ValueError("a network needs at least one block")
        return unit_vector_gradient(radial, harmonic, near)


def softplus(x: Tensor) -> Tensor:
    """ln(1 + exp x); in float64 by a form that ONNX Runtime has a kernel for."""
    if x.dtype == torch.float32:
        return nn.functional.softplus(x)
    return torch.relu(x) + torch.log(1.0 + torch.exp(-torch.abs(x)))


def sum_per_structure(values: Tensor, batch: Batch) -> Tensor:
    """Sum [X, N] over the atoms of each structure in float64: [X, B]. Never index_add: its ONNX form races on CPU."""
    index = batch.structure.unsqueeze(0).expand(values.shape[0], -1)
    totals = torch.zeros(values.shape[0], batch.cells.shape[0], dtype=torch.float64, device=values.device)
    return totals.scatter_add(1, index, values.to(torch.float64))


def _members(stacked: Tensor) -> list[Tensor]:
    """[M, ...] as a list over members; a single one is a view, not a copy, in an exported graph too."""
    return [stacked.squeeze(0)] if stacked.shape[0] == 1 else list(stacked.unbind(0))


def _linear_default(parameter: Tensor, fan_in: int) -> None:
    bound = 1.0 / math.sqrt(fan_in)
    nn.init.uniform_(parameter, -bound, bound)
