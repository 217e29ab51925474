"""A repulsive pair energy added to a network that never saw two particles close to each other.

    U(r) = (s p / a) exp[a (t - r)],   a = ln(1 / p) / d,   so that   -U'(t) = p s,   -U'(t - d) = s
    E    = 1/2 sum over directed pairs of U(r_ij): one U for each pair of particles

Shinkle et al., J. Chem. Theory Comput. 20, 10524 (2024) add such a prior to a coarse-grained force field. The exponent
is formed before the exponential is taken. Where it exceeds STEEPEST the force stays as it is and U goes on as a
straight line: however near two particles are, float32 does not overflow.
"""

import math
from typing import Final

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from training.networks.constants import ExactConstants
from training.networks.sensitivity import Geometry

STEEPEST: Final = 10.0


class RepulsionConfig(BaseModel):
    """The prior's shape.

    `onset_angstrom` is t, the distance below which the data hold no pair; `force_ev_angstrom` is s, a usual size of a
    force component.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    onset_angstrom: float = Field(gt=0)
    force_ev_angstrom: float = Field(gt=0)
    depth_angstrom: float = Field(0.15, gt=0, description="d: so far inside of the onset the force has grown to s")
    ratio: float = Field(0.05, gt=0, lt=1, description="p: the force at the onset over s")

    @property
    def steepness(self) -> float:
        """Of the exponential: a, 1/angstrom."""
        return math.log(1.0 / self.ratio) / self.depth_angstrom


class Repulsion(ExactConstants):
    """U of neighbour slots and its slope."""

    def __init__(self, config: RepulsionConfig) -> None:
        super().__init__()
        self.register_constant("onset", config.onset_angstrom)
        self.register_constant("steepness", config.steepness)
        self.register_constant("force", config.force_ev_angstrom * config.ratio)
        self.register_constant("pair_share", 0.5)
        self.onset: Tensor
        self.steepness: Tensor
        self.force: Tensor
        self.pair_share: Tensor

    def forward(self, near: Geometry) -> tuple[Tensor, Tensor]:
        """Half of U of each slot, eV [N, K], as each pair has two slots; and its derivative by r, eV/angstrom.

        Exactly zero from the cutoff on.
        """
        r = (near.displacement * near.unit).sum(dim=2)
        exponent = self.steepness * (self.onset - r)
        beyond = torch.relu(exponent - STEEPEST)
        inside = (near.cutoff.squeeze(2) > 0).to(r.dtype)
        slope = self.pair_share * self.force * inside * torch.exp(exponent - beyond)
        return slope / self.steepness * (1.0 + beyond), -slope
