"""Geometry of neighbour slots and the radial-times-angular sensitivities of HIP-NN-TS, with their derivatives.

    s_n(r) = exp(-x^2 / 2) phi(r),  x = sigma_n (1/r - 1/mu_n),  phi = cos^2(pi r / 2 R_c);   S_(c,n) = Y_c(u) s_n(r)

A padded slot lies at 2 R_c: every factor below is finite there, and phi = phi' = 0 makes its part exactly zero.
"""

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from training.networks.hipnn import HipNNConfig


class Geometry(NamedTuple):
    """Neighbour slots.

    Displacements d [N, K, 3] and inverse distances [N, K, 1] in angstrom, unit vectors [N, K, 3], harmonics Y
    [N, K, C], cutoff function and its derivative [N, K, 1].
    """

    displacement: Tensor
    inverse: Tensor
    unit: Tensor
    harmonics: Tensor
    cutoff: Tensor
    cutoff_slope: Tensor


class SensitivityTrace(NamedTuple):
    """S [N, K, C n] and what its derivative needs: s and ds/dr, [N, K, n]."""

    tensor: Tensor
    radial: Tensor
    slope: Tensor

    def gradient(self, s_bar: Tensor, near: Geometry) -> tuple[Tensor, Tensor | None]:
        """Pull dE/dS back to the distance [N, K] and, for l >= 1, to the harmonics beyond the first, [N, K, C - 1].

        ds/dr is folded in before the reduction: one product and one long sum, which the ONNX runtime likes best.
        """
        slope = _outer(near.harmonics, self.slope)
        radial = (s_bar * slope).sum(dim=2)
        if near.harmonics.shape[2] == 1:
            return radial, None
        apart = torch.unflatten(s_bar, 2, (near.harmonics.shape[2], self.radial.shape[2]))
        return radial, (apart * self.radial.unsqueeze(2)).sum(dim=3)[:, :, 1:]


LEAST_EXPONENT = -50.0
"""exp(-50) is 2e-22: far below rounding, yet a normal number. Underflow made exp itself and the products slow."""


class Sensitivity(nn.Module):
    """Radial functions with trainable centres mu and widths sigma (a length), one set per interaction layer."""

    def __init__(self, config: "HipNNConfig") -> None:
        super().__init__()
        n, soft_min, soft_max = config.sensitivities, config.soft_min_angstrom, config.soft_max_angstrom
        self.mu = nn.Parameter(1.0 / torch.linspace(1.0 / soft_max, 1.0 / soft_min, n))
        self.sigma = nn.Parameter(torch.full((n,), 2.0 * n * soft_min))

    def forward(self, near: Geometry) -> SensitivityTrace:
        """S and what its derivative needs."""
        x = self.sigma * (near.inverse - 1.0 / self.mu)
        bell = torch.exp(torch.clamp(-(x * x) / 2, min=LEAST_EXPONENT))
        radial = bell * near.cutoff
        slope = bell * near.cutoff_slope + radial * x * self.sigma * (near.inverse * near.inverse)
        return SensitivityTrace(_outer(near.harmonics, radial), radial, slope)


class Constants(NamedTuple):
    """Tensors, so that an exported float64 graph holds them in float64: R_c, kappa = pi / (2 R_c), and 1/3."""

    cutoff: Tensor
    kappa: Tensor
    third: Tensor


def geometry(positions: Tensor, neighbours: Tensor, shifts: Tensor, constants: Constants, order: int) -> Geometry:
    """Distances, unit vectors, cutoff function and harmonics of every slot.

    Args:
        positions: angstrom [N, 3].
        neighbours: [N, K].
        shifts: angstrom [N, K, 3].
        constants: of the network, in its dtype.
        order: 0, 1 or 2.
    """
    d = positions[neighbours] - positions.unsqueeze(1) + shifts
    square = (d * d).sum(dim=2, keepdim=True)
    inverse = torch.rsqrt(square)
    r = square * inverse
    unit = d * inverse
    angle = r * constants.kappa
    inside = (r <= constants.cutoff).to(d.dtype)
    cosine, sine = torch.cos(angle) * inside, torch.sin(angle)
    slope = cosine * sine * (-2.0 * constants.kappa)
    return Geometry(d, inverse, unit, _harmonics(unit, constants.third, order), cosine * cosine, slope)


def unit_vector_gradient(radial: Tensor, harmonic: Tensor | None, near: Geometry) -> Tensor:
    """dE/dd [N, K, 3] from dE/dr [N, K] and dE/dY [N, K, C - 1]: g = rho u + (u_bar - u (u . u_bar)) / r."""
    along = radial.unsqueeze(2) * near.unit
    if harmonic is None:
        return along
    across = harmonic[:, :, 0:3]
    if harmonic.shape[2] > 3:
        across = across + _second_order(harmonic[:, :, 3:8], near.unit)
    return along + near.inverse * (across - near.unit * (near.unit * across).sum(dim=2, keepdim=True))


def _harmonics(unit: Tensor, third: Tensor, order: int) -> Tensor:
    """1; x, y, z; xx - 1/3, xy, xz, yy - 1/3, yz."""
    parts = [torch.ones_like(unit[:, :, 0:1])]
    if order >= 1:
        parts.append(unit)
    if order >= 2:
        x, y, z = unit[:, :, 0:1], unit[:, :, 1:2], unit[:, :, 2:3]
        parts += [x * x - third, x * y, x * z, y * y - third, y * z]
    return torch.cat(parts, dim=2)


def _second_order(bar: Tensor, unit: Tensor) -> Tensor:
    """Derivative of the five second-order harmonics; their -1/3 terms are parallel to u and projected out."""
    x, y, z = unit[:, :, 0], unit[:, :, 1], unit[:, :, 2]
    xx, xy, xz, yy, yz = bar.unbind(dim=2)
    return torch.stack([(xx + xx) * x + xy * y + xz * z, xy * x + (yy + yy) * y + yz * z, xz * x + yz * y], dim=2)


def _outer(harmonics: Tensor, radial: Tensor) -> Tensor:
    """[N, K, C] and [N, K, n] to [N, K, C n]; for C = 1 the radial part itself."""
    if harmonics.shape[2] == 1:
        return radial
    return (harmonics.unsqueeze(3) * radial.unsqueeze(2)).flatten(2)
