"""A published ANI committee as a reference: energies and forces of the mean of its networks, and their spread."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch

from contract.elements import SYMBOLS
from contract.graphs import Graph, build_graph, collate
from contract.structures import Structure
from training.candidate import reference_energies
from training.importers.neurochem import read_neurochem
from training.networks.hipnn import Batch
from training.simulators.labels import Labels, Progress

SLOTS_A_BATCH: Final = 6000


class AniReference:
    """Labels molecules of the committee's elements.

    Args:
        path: folder or .tar.gz in NeuroChem's format (training/importers/neurochem.py).
        device: of torch.
    """

    def __init__(self, path: Path, device: str = "cpu") -> None:
        published = read_neurochem(path)
        self._network = published.network.to(device)
        self._references = published.references
        self._device = device
        config = published.network.config
        self.elements = frozenset(config.elements)
        symbols = ", ".join(SYMBOLS[z] for z in config.elements)
        self.method = (
            f"{path.name.removesuffix('.tar.gz')}: mean of {config.members} published ANI networks ({symbols})"
        )

    @torch.no_grad()
    def label(self, structures: Sequence[Structure], progress: Progress = lambda n: None) -> Labels:
        """Energies with self energies, and forces. Structures of like size share a batch."""
        cutoff = self._network.config.cutoff_angstrom
        graphs = [build_graph(structure, cutoff, index=i) for i, structure in enumerate(structures)]
        energy = np.zeros((self._network.config.members, len(graphs)))
        forces: list[np.ndarray] = [np.zeros((0, 3))] * len(graphs)
        for lot in _lots(graphs):
            tensors = (torch.from_numpy(v).to(self._device) for v in collate([graphs[i] for i in lot]).values())
            answer = self._network.evaluate(Batch(*tensors))
            energy[:, lot] = answer.energy.cpu().numpy()
            ends = np.cumsum([graphs[i].n_atoms for i in lot])[:-1]
            for i, part in zip(lot, np.split(answer.forces.cpu().numpy().astype(np.float64), ends), strict=True):
                forces[i] = part
            progress(len(lot))
        mean = energy.mean(axis=0) + reference_energies(structures, self._references)
        return Labels(mean, np.concatenate(forces), np.isfinite(mean), energy.std(axis=0, ddof=1))


def _lots(graphs: Sequence[Graph]) -> list[list[int]]:
    """Indices in lots of about SLOTS_A_BATCH neighbour slots, sorted by degree so that padding is not wasted."""
    lots: list[list[int]] = []
    full = SLOTS_A_BATCH
    for i in sorted(range(len(graphs)), key=lambda i: (graphs[i].degree, graphs[i].n_atoms)):
        if full >= SLOTS_A_BATCH:
            lots.append([])
            full = 0
        lots[-1].append(i)
        full += graphs[i].cost
    return lots
