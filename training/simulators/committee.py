"""A trained committee as a reference: what labels cells for its student, and whose properties are looked at."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from contract.graphs import build_graph
from contract.structures import Structure
from training.batches import to_batch
from training.candidate import reference_energies
from training.networks.hipnn import Evaluation, HipNN
from training.simulators.labels import Labels, Progress

_BATCH: Final = 32
_VOIGT: Final = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])


class CommitteeReference:
    """Labels structures with the mean of the members.

    Args:
        network: trained, float32.
        references: eV per element, added in float64.
        method: what the card of a student calls the level of theory.
    """

    def __init__(self, network: HipNN, references: dict[str, float], method: str) -> None:
        self.method = method
        self._network, self._references = network.eval(), references

    def label(self, structures: Sequence[Structure], progress: Progress = lambda n: None) -> Labels:
        """Mean energies, forces and stresses, and the members' spread of the energy where there are several."""
        answers = list(self._answers(structures, progress))
        energy = np.concatenate([a.energy.numpy() for a in answers], axis=1)
        mean = energy.mean(axis=0) + reference_energies(structures, self._references)
        forces = np.concatenate([a.forces.numpy() for a in answers]).astype(np.float64)
        virial = np.concatenate([a.virial.numpy() for a in answers]).astype(np.float64)
        std = energy.std(axis=0, ddof=1) if len(energy) > 1 else None
        return Labels(mean, forces, np.isfinite(mean), std, _stresses(structures, virial))

    def atomic_energies(self, structures: Sequence[Structure]) -> list[NDArray[np.float32]]:
        """Mean atomic energies of each structure, eV [n_i], atomic references not included."""
        atomic = np.concatenate([a.atomic_energy.mean(dim=0).numpy() for a in self._answers(structures)])
        return np.split(atomic, np.cumsum([len(s) for s in structures])[:-1])

    @torch.no_grad()
    def _answers(self, structures: Sequence[Structure], progress: Progress = lambda n: None) -> list[Evaluation]:
        answers, cutoff = [], self._network.config.cutoff_angstrom
        for start in range(0, len(structures), _BATCH):
            part = structures[start : start + _BATCH]
            answers.append(self._network.evaluate(to_batch([build_graph(s, cutoff) for s in part])))
            progress(len(part))
        return answers


def _stresses(structures: Sequence[Structure], virial: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Stress of each structure, eV/angstrom^3 [n, 6], xx yy zz yz xz xy, NaN without a volume; None for molecules."""
    periodic = [structure.fully_periodic for structure in structures]
    if not any(periodic):
        return None
    volume = np.array([s.volume if whole else np.nan for s, whole in zip(structures, periodic, strict=True)])
    return np.asarray(virial[:, _VOIGT[0], _VOIGT[1]] / volume[:, None])
