"""A trained committee as what drives and judges exploration: the mean force, and how far the members are apart."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from training.batches import to_batch
from training.networks.exportable import MemberForces
from training.networks.hipnn import HipNN
from training.sampling.replicas import Frame


class NetworkCommittee:
    """A network with several members (training/sampling/replicas.py)."""

    def __init__(self, network: HipNN) -> None:
        self._mean, self._each = network.eval(), MemberForces(network).eval()

    @property
    def cutoff(self) -> float:
        """Angstrom."""
        return self._mean.config.cutoff_angstrom

    @torch.no_grad()
    def forces(self, frames: Sequence[Frame]) -> NDArray[np.float64]:
        """Mean force, eV/angstrom [A, 3], structures concatenated."""
        return self._mean.evaluate(to_batch([frame.graph for frame in frames])).forces.numpy().astype(np.float64)

    @torch.no_grad()
    def spread(self, frames: Sequence[Frame]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sample std (ddof = 1) of energies, eV [n], and of force components, eV/angstrom [A, 3]."""
        energy, _, _, _, forces, *_ = self._each(*to_batch([frame.graph for frame in frames]))
        std = [values.numpy().astype(np.float64).std(axis=0, ddof=1) for values in (energy, forces)]
        return std[0], std[1]
