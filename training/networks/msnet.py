"""MS-Net: the velocity of slow flow through porous media from coupled networks at several scales, in 2-D and 3-D.

Santos et al., Transport in Porous Media 140, 241 (2021), arXiv:2102.07625. Scale 0 is the coarsest. With x^(s)
the input and p^(s) the pore fraction averaged down to scale s,

    m^(s) = p^(s) / Up2(p^(s-1)), 0 where no pore is below
    y^(0) = N_0(x^(0));   u = m^(s) Up2(y^(s-1));   y^(s) = N_s([x^(s), u]) + u

so that each network only adds what its scale can see to what the coarser ones have found, and the mask spreads a coarse
value over the pore part of its children without changing its mean. The answer is y of the finest scale in the pores and
zero in the solid.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

CONVOLUTIONS = 5


class MSNetConfig(BaseModel):
    """Architecture of one network."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    scales: int = Field(4, ge=1)
    filters: int = Field(2, ge=1, description="width at the finest scale; four times as many a scale coarser")
    dimensions: Literal[2, 3] = 3

    def width(self, scale: int) -> int:
        """Filters at a scale, 0 the coarsest."""
        return self.filters * int(4 ** (self.scales - 1 - scale))

    @property
    def divisor(self) -> int:
        """Every length of an image must be a multiple of it."""
        return int(2 ** (self.scales - 1))

    @property
    def reach(self) -> int:
        """Voxels of the finest scale across which one output value is decided, instance statistics apart."""
        return (2 * CONVOLUTIONS + 1) * self.divisor


class Answers(NamedTuple):
    """y of every scale, coarsest first, [B, 1, ...]; the last is zero in the solid."""

    scales: list[Tensor]

    @property
    def finest(self) -> Tensor:
        """The prediction."""
        return self.scales[-1]


class ScaleNetwork(nn.Module):
    """One scale: five convolutions of width F without pooling, and a linear one to a single channel."""

    def __init__(self, channels: int, width: int, dimensions: int) -> None:
        super().__init__()
        convolution = nn.Conv3d if dimensions == 3 else nn.Conv2d
        normalisation = nn.InstanceNorm3d if dimensions == 3 else nn.InstanceNorm2d
        layers: list[nn.Module] = []
        for k in range(CONVOLUTIONS):
            layers.append(convolution(channels if k == 0 else width, width, 3, padding=1))
            if k < CONVOLUTIONS - 1:
                layers.append(normalisation(width))
            layers.append(nn.CELU())
        self.body = nn.Sequential(*layers, convolution(width, 1, 1))

    @property
    def last(self) -> nn.Conv3d | nn.Conv2d:
        """The linear convolution to a single channel."""
        return cast(nn.Conv3d | nn.Conv2d, self.body[-1])

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels, ...] to [B, 1, ...]."""
        out: Tensor = self.body(x)
        return out


class MSNet(nn.Module):
    """Coupled networks, one a scale.

    Args:
        config: their architecture.
        features: channels of the input.
    """

    def __init__(self, config: MSNetConfig, features: int = 1) -> None:
        super().__init__()
        self.config = config
        self.networks = nn.ModuleList(
            ScaleNetwork(features + (s > 0), config.width(s), config.dimensions) for s in range(config.scales)
        )

    @property
    def finest(self) -> ScaleNetwork:
        """The network of the finest scale."""
        return cast(ScaleNetwork, self.networks[-1])

    @property
    def scale_networks(self) -> list[ScaleNetwork]:
        """Coarsest first."""
        return cast(list[ScaleNetwork], list(self.networks))

    def forward(self, features: Tensor, pore: Tensor) -> Answers:
        """The velocity's component along the last axis, in the unit of the targets.

        Args:
            features: of the finest scale, [B, C, ...], such as the distance to the wall; 0 in the solid.
            pore: 1 in the pores and 0 in the solid, [B, 1, ...].

        Raises:
            ValueError: a length that is not a multiple of config.divisor.
        """
        if any(length % self.config.divisor for length in features.shape[2:]):
            raise ValueError(
                f"an image of {list(features.shape[2:])} voxels: every length must be a multiple of "
                f"{self.config.divisor} for {self.config.scales} scales; pad it with solid"
            )
        return self.recursion(features, pore)

    def recursion(self, features: Tensor, pore: Tensor) -> Answers:
        """The same without looking at the lengths, for the exporter."""
        *coarser, finest = recursed(self.scale_networks, features, pore)
        return Answers([*coarser, finest * pore])


def recursed(networks: Sequence[ScaleNetwork], features: Tensor, pore: Tensor) -> list[Tensor]:
    """The answers y of some scales, coarsest first, from features and pore fractions at the finest of them."""
    x, p = pyramid(features, len(networks)), pyramid(pore, len(networks))
    answers: list[Tensor] = [networks[0](x[0])]
    for s in range(1, len(networks)):
        above = mask(p[s], p[s - 1]) * upsampled(answers[-1])
        answers.append(networks[s](torch.cat([x[s], above], dim=1)) + above)
    return answers


def pyramid(field: Tensor, scales: int) -> list[Tensor]:
    """A field averaged over blocks of 2 a side, again and again; coarsest first."""
    pool = nn.functional.avg_pool3d if field.dim() == 5 else nn.functional.avg_pool2d
    levels = [field]
    for _ in range(scales - 1):
        levels.append(pool(levels[-1], 2))
    return levels[::-1]


def upsampled(field: Tensor) -> Tensor:
    """Every value twice along each axis."""
    return nn.functional.interpolate(field, scale_factor=2.0, mode="nearest")


def mask(fine: Tensor, coarse: Tensor) -> Tensor:
    """m: pore fractions of a scale relative to those of their parents; 0 where a parent has no pore."""
    below = upsampled(coarse)
    return torch.where(below > 0.0, fine / torch.where(below > 0.0, below, torch.ones_like(below)), 0.0)


def loss(answers: Answers, target: Tensor, variance: Tensor) -> Tensor:
    """Sum over scales of the mean square error, relative to a variance; mean over the batch.

    Args:
        answers: of the network.
        target: of the finest scale, [B, 1, ...]; the coarser ones are its averages.
        variance: [B]; the paper's is that of the finest target.
    """
    axes = tuple(range(1, target.dim()))
    levels = pyramid(target, len(answers.scales))
    errors = [((y - t) ** 2).mean(dim=axes) for y, t in zip(answers.scales, levels, strict=True)]
    return (torch.stack(errors).sum(dim=0) / variance).mean()
