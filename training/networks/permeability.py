"""A committee of MS-Nets that answers in voxel^2: features, scale and mask are inside, so that one graph is served.

Creeping flow is linear and scales with the square of the lengths. The networks see distances over their mean in
training and answer velocities over s, the image's own mean of (distance - 1/2)^2 over its pores: computed from the
image, so no label can leak.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from training.networks.msnet import MSNet, MSNetConfig


class PermeabilityCommittee(nn.Module):
    """Members and what stands around each of them.

    Args:
        members: of one architecture.
        mean_distance: voxels, over the pores of the training images.
    """

    mean_distance: Tensor

    def __init__(self, members: Sequence[MSNet], mean_distance: float) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.register_buffer("mean_distance", torch.tensor(mean_distance))

    @classmethod
    def of(cls, config: MSNetConfig, members: int, mean_distance: float) -> "PermeabilityCommittee":
        """Members with random weights."""
        return cls([MSNet(config) for _ in range(members)], mean_distance)

    @property
    def networks(self) -> list[MSNet]:
        """The members."""
        return cast(list[MSNet], list(self.members))

    @property
    def config(self) -> MSNetConfig:
        """Of each member."""
        return self.networks[0].config

    def forward(self, distance: Tensor, pore: Tensor) -> tuple[Tensor, Tensor]:
        """Tensors of contract.signatures.FIELD.

        Args:
            distance: voxels [B, X, Y, Z], flow along the last axis.
            pore: 1 in the pores that conduct, likewise.

        Returns:
            velocity: voxel^2 [B, X, Y, Z], mean of the members.
            member_flow: voxel^5 [M, B], float64, each member's velocity summed over the voxels.
        """
        scale = scale_squared(distance, pore)
        features, open_ = (distance * pore / self.mean_distance).unsqueeze(1), pore.unsqueeze(1)
        velocities = [m.recursion(features, open_).finest.squeeze(1) * scale for m in self.networks]
        flow = torch.stack([velocity.double().sum(dim=(1, 2, 3)) for velocity in velocities])
        return torch.stack(velocities).mean(dim=0), flow


def scale_squared(distance: Tensor, pore: Tensor) -> Tensor:
    """s, voxel^2 [B, 1, 1, 1]: mean over the pores of (distance - 1/2)^2; half-way walls."""
    axes = (1, 2, 3)
    total = (pore * (distance - 0.5) ** 2).sum(dim=axes, keepdim=True)
    return total / pore.sum(dim=axes, keepdim=True).clamp(min=1.0)
