"""A version under examination: its card, its files, the network that was exported, and what it is examined on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.elements import NUMBERS
from contract.graphs import build_graph, collate
from contract.structures import Structure
from training.candidate import HeldOut
from training.gate.engines import Arrays, Engine, member_engine, network_engine, onnx_engine, torchscript_engine
from training.gate.samples import chains, crystal, lone_atoms, small_cells, spread
from training.networks.potential import Potential

EVERYDAY: Final = "model.onnx"
MEMBERS: Final = "model_members.onnx"
TORCHSCRIPT: Final = "model.pt"
MOST_LABELS: Final = 2000
_SAMPLED: Final = 6
_BATCH_ATOMS: Final = 2000


@dataclass(frozen=True, eq=False)
class Submission:
    """What the checks see.

    Attributes:
        card: the card it would be served with.
        folder: the version's folder.
        network: the network that was exported, in float64.
        engines: what runs each graph file.
        test: labelled frames that the network was not fitted to.
    """

    card: ModelCard
    folder: Path
    network: Potential
    engines: Mapping[str, Engine]
    test: HeldOut

    @classmethod
    def of(cls, card: ModelCard, folder: Path, network: Potential, test: HeldOut) -> "Submission":
        """Open the files of a version; they must have passed `inspect_files`."""
        engines = {path.name: onnx_engine(path) for path in sorted(folder.glob("*.onnx"))}
        engines[TORCHSCRIPT] = torchscript_engine(folder / TORCHSCRIPT)
        return cls(card, folder, network.double().eval(), engines, test)

    @property
    def everyday(self) -> Engine:
        """The graph that answers unless member forces are asked for."""
        return self.engines[EVERYDAY]

    @cached_property
    def exact(self) -> Engine:
        """The network in float64."""
        return network_engine(self.network)

    @cached_property
    def exact_members(self) -> Engine:
        """The network in float64, with the forces of every member."""
        return member_engine(self.network)

    @property
    def cutoff(self) -> float:
        """As the card says, angstrom: neighbour lists are built with it."""
        return self.card.domain.cutoff_angstrom

    @cached_property
    def elements(self) -> list[int]:
        """Atomic numbers of the elements on the card."""
        return [NUMBERS[symbol] for symbol in self.card.domain.elements]

    @cached_property
    def molecules(self) -> list[Structure]:
        """Some of the test frames, and random chains of several sizes."""
        return [*spread(self.test.structures, _SAMPLED), *chains(self.elements)]

    @cached_property
    def shapes(self) -> dict[str, list[Structure]]:
        """Batches that no example of the export had: alone, without neighbours, tiny cells, large, mixed."""
        lone, cells = lone_atoms(self.elements), small_cells(self.elements)
        return {
            "one atom": lone[:1],
            "atoms without neighbours": [*lone, *lone],
            "one structure": self.molecules[:1],
            "structures of several sizes": self.molecules,
            "cells smaller than the cutoff": cells,
            "a crystal": [crystal(self.elements, 3)],
            "all together": [*self.molecules, *lone, *cells],
        }

    @cached_property
    def labelled(self) -> HeldOut:
        """At most MOST_LABELS test frames, evenly spaced."""
        return self.test.some(MOST_LABELS)

    @property
    def labelled_energy(self) -> NDArray[np.float64]:
        """Served energies of these frames without references, eV [M, n]."""
        return np.concatenate([answer["energy"] for answer in self._answers], axis=1)

    @property
    def labelled_forces(self) -> NDArray[np.float32]:
        """Served forces of these frames, eV/angstrom [A, 3]."""
        return np.concatenate([answer["forces"] for answer in self._answers])

    @cached_property
    def _answers(self) -> list[Arrays]:
        """In batches of about _BATCH_ATOMS atoms."""
        frames = self.labelled.structures
        size = max(1, _BATCH_ATOMS // max((len(frame) for frame in frames), default=1))
        return [self.everyday(self.inputs(frames[i : i + size])) for i in range(0, len(frames), size)]

    def inputs(self, structures: Sequence[Structure], slots_per_atom: int | None = None, skin: float = 0.0) -> Arrays:
        """Tensors of a batch.

        Args:
            structures: at least one.
            slots_per_atom: K; default the bucket of the largest degree.
            skin: angstrom beyond the cutoff that the neighbour lists reach, for atoms that are moved afterwards.
        """
        return collate([build_graph(s, self.cutoff + skin) for s in structures], slots_per_atom)


def doubled(inputs: Arrays) -> Arrays:
    """The same batch with float64 tensors: exact for a network in float64."""
    return {name: value.astype(np.float64) if value.dtype == np.float32 else value for name, value in inputs.items()}


def tiled(inputs: Arrays, copies: int) -> Arrays:
    """A batch repeated; no copy sees another, and each copy of it is one structure."""
    n, slots = inputs["neighbours"].shape
    repeated = {name: np.concatenate([value] * copies) for name, value in inputs.items()}
    copy = np.repeat(np.arange(copies), n)
    repeated["neighbours"] = repeated["neighbours"] + (n * copy)[:, None]
    repeated["reverse"] = repeated["reverse"] + (n * slots * copy)[:, None]
    return repeated | {"structure": copy}
