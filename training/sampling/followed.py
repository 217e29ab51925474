"""Dynamics of an earlier student: where it leads, and where its committee is unsure, is what the next one learns."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from contract.repository import ModelRepository, StoredModel
from contract.structures import Structure
from training.active.committee import NetworkCommittee
from training.checkpoint import published_network
from training.networks.hipnn import HipNN
from training.sampling.errors import NoCommittee
from training.sampling.replicas import Course, Dynamics, Ended, Limits, Start, explore

SIDE_BY_SIDE: Final = 64
_CLOSEST_ANGSTROM: Final = 0.6
_STEADY: Final = Course(1.0, 1.0, 0.0, 1.0)


class Followed(BaseModel):
    """Which student's dynamics is followed, and how far."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Path = Field(description="folder of a published potential with several members")
    starts: int = Field(1, ge=1, description="trajectories a molecule")
    dimers: float = Field(0.2, ge=0, le=1, description="share of the dimers that trajectories start from too")
    step_fs: float = Field(1.0, gt=0)
    length_fs: float = Field(100.0, gt=0)
    energy_std_ev: float = Field(0.03, gt=0, description="a root of the number of atoms; above it a trajectory ends")
    forces_std_ev_angstrom: float = Field(0.3, gt=0, description="mean over components; above it a trajectory ends")


def follow(
    starts: Sequence[Structure],
    how: Followed,
    kelvin: tuple[float, float],
    seed: int,
    progress: Callable[[int], None] = lambda n: None,
) -> list[Ended]:
    """The last frame of a trajectory from each start, at temperatures that change from one random one to another.

    Args:
        starts: molecules; those of like size are best next to each other.
        how: whose dynamics, and when it ends.
        kelvin: least and highest temperature.
        seed: of temperatures, velocities and noise.
        progress: told of each lot that has ended.

    Raises:
        NoCommittee: the model is no committee of networks that are trained here.
        RepositoryError: there is no such model.
    """
    committee = _committee(how.model)
    limits = Limits(how.energy_std_ev, how.forces_std_ev_angstrom, _CLOSEST_ANGSTROM)
    dynamics = Dynamics(step_fs=how.step_fs, length_fs=how.length_fs)
    rng, ended = np.random.default_rng([seed, 1]), list[Ended]()
    for first in range(0, len(starts), SIDE_BY_SIDE):
        lot = [
            Start(structure, Course(rng.uniform(*kelvin), rng.uniform(*kelvin), 0.0, 1.0), _STEADY)
            for structure in starts[first : first + SIDE_BY_SIDE]
        ]
        ended += explore(lot, committee, limits, dynamics, int(rng.integers(2**31)))
        progress(len(lot))
    return ended


def published(folder: Path) -> StoredModel:
    """The promoted version of the model in a folder of a repository."""
    return ModelRepository(folder.parent).load(folder.name)


def _committee(folder: Path) -> NetworkCommittee:
    network = published_network(published(folder))
    if not isinstance(network, HipNN) or network.config.members == 1:
        raise NoCommittee(f"{folder} is no committee of HIP-NN networks, whose dynamics could be followed and judged")
    return NetworkCommittee(network)
