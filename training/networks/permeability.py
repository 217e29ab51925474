"""A committee of MS-Nets that answers in voxel^2: features, scale and mask are inside, so that one graph is served.

The networks say how much faster or slower the flow is than an estimate by conduction (contract/conduction.py). With s
its mean over the image's pores and c its mean factor in training,

    velocity = c * estimate * (1 + network(distance / its mean in training, log(1 + estimate / s))) * exp(trend)

Creeping flow is linear and scales with the square of the lengths, as the estimate does; it is made from the image, so
no label can leak. The networks' normalisations forget how many voxels a pore is wide, which matters where these are
few: the trend, linear in the logarithms of two means over the image, is fitted to the trained networks. Untrained,
networks and trend say nothing.
"""

from collections.abc import Sequence
from typing import Final, cast

import torch
from torch import Tensor, nn

from training.networks.msnet import MSNet, MSNetConfig

_TINY: Final = 1e-12
FEATURES: Final = 2
TRENDS: Final = 3


class PermeabilityCommittee(nn.Module):
    """Members and what stands around each of them.

    Args:
        members: of one architecture.
        mean_distance: voxels, over the pores of the training images.
        factor: of the estimate, the mean over the training images.
    """

    mean_distance: Tensor
    factor: Tensor
    trend: Tensor

    def __init__(self, members: Sequence[MSNet], mean_distance: float, factor: float) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("mean_distance", torch.tensor(mean_distance))
        self.register_buffer("factor", torch.tensor(factor))
        self.register_buffer("trend", torch.zeros(len(members), TRENDS))

    @classmethod
    def of(cls, config: MSNetConfig, members: int, mean_distance: float, factor: float) -> "PermeabilityCommittee":
        """Members with random weights that say nothing yet."""
        networks = [MSNet(config, FEATURES) for _ in range(members)]
        for part in (part for network in networks for part in network.scale_networks):
            nn.init.zeros_(part.last.weight)
            nn.init.zeros_(cast(Tensor, part.last.bias))
        return cls(networks, mean_distance, factor)

    @property
    def networks(self) -> list[MSNet]:
        """The members."""
        return cast(list[MSNet], list(self.members))

    @property
    def config(self) -> MSNetConfig:
        """Of each member."""
        return self.networks[0].config

    def forward(self, distance: Tensor, pore: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
        """Tensors of contract.signatures.FIELD.

        Args:
            distance: voxels [B, X, Y, Z], flow along the last axis.
            pore: 1 in the pores that conduct, likewise.
            estimate: velocity by conduction, voxel^2, likewise.

        Returns:
            velocity: voxel^2 [B, X, Y, Z], mean of the members.
            member_flow: voxel^5 [M, B], float64, each member's velocity summed over the voxels.
        """
        seen = features(distance * pore / self.mean_distance, estimate / mean_over_pores(estimate, pore))
        gains = [m.recursion(seen, pore.unsqueeze(1)).finest.squeeze(1) for m in self.networks]
        rates = (self.factor * trends(distance, pore, estimate).matmul(self.trend.T).exp()).T[:, :, None, None, None]
        velocities = [rate * estimate * (1.0 + gain) for rate, gain in zip(rates, gains, strict=True)]
        flow = torch.stack([velocity.double().sum(dim=(1, 2, 3)) for velocity in velocities])
        return torch.stack(velocities).mean(dim=0), flow


def features(distance: Tensor, estimate: Tensor) -> Tensor:
    """What the networks see, [B, 2, X, Y, Z], of the distance and the estimate [B, X, Y, Z] without their units."""
    return torch.stack([distance, torch.log1p(estimate.clamp(min=0.0))], dim=1)


def trends(distance: Tensor, pore: Tensor, estimate: Tensor) -> Tensor:
    """What the trend is linear in, [B, 3]: 1, log w, log(s / w), w the mean of (distance - 1/2)^2 over the pores."""
    width, speed = mean_over_pores(pore * (distance - 0.5) ** 2, pore), mean_over_pores(estimate, pore)
    return trends_of(width.flatten(), speed.flatten())


def trends_of(width: Tensor, speed: Tensor) -> Tensor:
    """The same from both means [B], voxel^2."""
    return torch.stack([torch.ones_like(width), width.log(), (speed / width).log()], dim=1)


def mean_over_pores(field: Tensor, pore: Tensor) -> Tensor:
    """[B, X, Y, Z] to [B, 1, 1, 1]; at least a tiny number."""
    axes = (1, 2, 3)
    return (field.sum(dim=axes, keepdim=True) / pore.sum(dim=axes, keepdim=True).clamp(min=1.0)).clamp(min=_TINY)
