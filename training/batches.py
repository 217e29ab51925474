"""Labelled structures ready for training: neighbour graphs built once, batches collated on the way."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from contract.elements import SYMBOLS
from contract.graphs import Graph, build_graph, collate
from training.data.dataset import Dataset
from training.networks.hipnn import Batch
from training.objectives.losses import Labels

_MATRIX = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]])


@dataclass(frozen=True, slots=True)
class LabelledGraphs:
    """Graphs with their targets, atomic references subtracted in float64.

    Attributes:
        graphs: one per frame.
        energy: float64 [n], eV, references subtracted.
        forces: per frame float32 [n_i, 3], eV/angstrom, or None.
        weight: float32 [n, M], how much a frame counts for each member, or None for one everywhere.
        atomic_energy: per frame float32 [n_i], eV, a teacher's mean, or None.
        virial: float32 [n, 3, 3], dE/dstrain, eV, or None.
    """

    graphs: list[Graph]
    energy: NDArray[np.float64]
    forces: list[NDArray[np.float32]] | None = None
    weight: NDArray[np.float32] | None = None
    atomic_energy: list[NDArray[np.float32]] | None = None
    virial: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.graphs)

    def batches(
        self, size: int, generator: np.random.Generator | None = None, device: str = "cpu"
    ) -> Iterator[tuple[Batch, Labels]]:
        """All frames in batches of `size`: shuffled by the generator, or in order without one."""
        yield from self.shares(size, generator, device)

    def shares(
        self,
        size: int,
        generator: np.random.Generator | None = None,
        device: str = "cpu",
        place: int = 0,
        processes: int = 1,
    ) -> Iterator[tuple[Batch, Labels]]:
        """Of each such batch, the part of one of several processes; frames that do not suffice for all are left out."""
        order = np.arange(len(self)) if generator is None else generator.permutation(len(self))
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            if len(chosen) >= processes:
                yield self.take(chosen[place::processes], device)

    def take(self, chosen: NDArray[np.integer[Any]], device: str = "cpu") -> tuple[Batch, Labels]:
        """The frames at these indices as one batch."""
        batch = to_batch([self.graphs[i] for i in chosen], device)
        energy = torch.from_numpy(self.energy[chosen]).to(device)
        forces, atomic = (_taken(each, chosen, device) for each in (self.forces, self.atomic_energy))
        weight = None if self.weight is None else torch.from_numpy(self.weight[chosen].T).to(device)
        virial = None if self.virial is None else torch.from_numpy(self.virial[chosen]).to(device)
        return batch, Labels(energy, forces, weight, atomic, virial)


def _taken(
    frames: list[NDArray[np.float32]] | None, chosen: NDArray[np.integer[Any]], device: str
) -> torch.Tensor | None:
    """What belongs to the atoms of the chosen frames, concatenated."""
    return None if frames is None else torch.from_numpy(np.concatenate([frames[i] for i in chosen])).to(device)


def labelled_graphs(
    dataset: Dataset, cutoff: float, references: dict[str, float], weight: NDArray[np.float32] | None = None
) -> LabelledGraphs:
    """Build the graphs of a data set.

    Args:
        dataset: energies in eV, forces in eV/angstrom if it has them.
        cutoff: angstrom.
        references: eV per element, subtracted from the energies in float64.
        weight: [n, M] or None.
    """
    graphs = [build_graph(structure, cutoff, index=i) for i, structure in enumerate(dataset)]
    energy = dataset.energy - reference_energies(dataset, references)
    forces = None
    if dataset.forces is not None:
        labels = dataset.forces.astype(np.float32)
        forces = [labels[dataset.atoms_of(i)] for i in range(len(dataset))]
    return LabelledGraphs(graphs, energy, forces, weight, virial=virials(dataset))


def virials(dataset: Dataset) -> NDArray[np.float32] | None:
    """dE/dstrain of each frame, eV [n, 3, 3]; None unless every frame has a stress."""
    if dataset.stress is None or dataset.cells is None or np.isnan(dataset.stress).any():
        return None
    return virial_of(dataset.stress, dataset.cells)


def virial_of(stress: NDArray[np.float64], cells: NDArray[np.float64]) -> NDArray[np.float32]:
    """dE/dstrain, eV [n, 3, 3], of stresses (eV/angstrom^3 [n, 6], xx yy zz yz xz xy) in cells (angstrom [n, 3, 3])."""
    volume = np.abs(np.linalg.det(cells))
    return np.asarray(volume[:, None, None] * stress[:, _MATRIX], np.float32)


def reference_energies(dataset: Dataset, references: dict[str, float]) -> NDArray[np.float64]:
    """Sum of atomic references of each frame, eV [n]."""
    elements, counts = dataset.element_counts()
    return np.asarray(counts @ np.array([references[SYMBOLS[z]] for z in elements]), dtype=np.float64)


def fit_references(dataset: Dataset) -> dict[str, float]:
    """Atomic references by least squares of the energies on the composition, eV; minimum norm if not unique."""
    elements, counts = dataset.element_counts()
    solution, *_ = np.linalg.lstsq(counts.astype(np.float64), dataset.energy, rcond=1e-10)
    return {SYMBOLS[z]: float(e) for z, e in zip(elements, solution, strict=True)}


def to_batch(graphs: list[Graph], device: str = "cpu") -> Batch:
    """Collate graphs into torch tensors; K is the largest degree, not its bucket: training needs no fixed shapes."""
    width = max(graph.degree for graph in graphs)
    return Batch(*(torch.from_numpy(array).to(device) for array in collate(graphs, width).values()))
