"""The repulsive prior of a data set: where it begins and how strong it is (training/networks/repulsion.py)."""

from typing import Final

import numpy as np

from training.coarse.distributions import radial_distribution
from training.coarse.errors import Unresolved
from training.coarse.frames import BeadFrames
from training.networks.repulsion import RepulsionConfig

FIRST_SEEN: Final = 0.01
_BIN_ANGSTROM: Final = 0.02


def fit_repulsion(train: BeadFrames, reach: float) -> RepulsionConfig:
    """The onset is the first r with g(r) > 0.01, the smallest over the states; s the mean size of a force component.

    Args:
        train: training frames, of one state or several.
        reach: angstrom up to which pairs are looked at.

    Raises:
        Unresolved: no pair is nearer than that.
    """
    onsets = []
    for s in np.unique(train.state):
        frames = [train.structures[i] for i in np.flatnonzero(train.state == s)]
        found = radial_distribution(frames, reach, round(reach / _BIN_ANGSTROM))
        seen = np.flatnonzero(found.g > FIRST_SEEN)
        if not seen.size:
            raise Unresolved(f"no pair of beads is nearer than {reach:g} angstrom at {train.states[s].name}.")
        onsets.append(found.r[seen[0]])
    size = np.abs(np.concatenate(train.forces)).mean()
    return RepulsionConfig(onset_angstrom=round(float(min(onsets)), 4), force_ev_angstrom=round(float(size), 5))
