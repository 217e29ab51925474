"""A trained network as an ASE calculator in this process: for judging it before it is exported and served."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes
from numpy.typing import NDArray

from contract.graphs import Graph, build_graph
from contract.structures import Structure, checked_structure
from training.batches import to_batch
from training.candidate import reference_energies
from training.networks.exportable import member
from training.networks.hipnn import HipNN

_VOIGT = ([0, 1, 2, 1, 0, 0], [0, 1, 2, 2, 2, 1])


class NetworkCommittee:
    """Mean forces and spread of a committee on neighbour graphs (training/sampling/replicas.py)."""

    def __init__(self, network: HipNN) -> None:
        self._network = network.eval()
        self._members = [member(network, m).eval() for m in range(network.config.members)]

    @property
    def cutoff(self) -> float:
        """Angstrom."""
        return self._network.config.cutoff_angstrom

    @torch.no_grad()
    def forces(self, graphs: Sequence[Graph]) -> NDArray[np.float64]:
        """Mean force, eV/angstrom [A, 3], structures concatenated."""
        return self._network.evaluate(to_batch(list(graphs))).forces.numpy().astype(np.float64)

    @torch.no_grad()
    def spread(self, graphs: Sequence[Graph]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sample std (ddof = 1) of energies, eV [n], and of force components, eV/angstrom [A, 3]."""
        batch = to_batch(list(graphs))
        answers = [network.evaluate(batch) for network in self._members]
        energy = np.concatenate([a.energy.numpy() for a in answers])
        forces = np.stack([a.forces.numpy() for a in answers]).astype(np.float64)
        return energy.std(axis=0, ddof=1), forces.std(axis=0, ddof=1)


class NetworkCalculator(Calculator):
    """Energy (eV), forces (eV/angstrom) and stress (eV/angstrom^3, tensile positive, Voigt) of the committee mean."""

    implemented_properties: list[str] = [  # noqa: RUF012 (ASE declares it so)
        "energy",
        "free_energy",
        "forces",
        "stress",
    ]

    def __init__(self, network: HipNN, references: dict[str, float]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._network, self._references = network.eval(), references

    @torch.no_grad()
    def calculate(
        self,
        atoms: Any = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """See ASE."""
        super().calculate(atoms, properties, system_changes)  # type: ignore[no-untyped-call]
        here: Any = self.atoms
        structure = _structure(here)
        answer = self._network.evaluate(to_batch([build_graph(structure, self._network.config.cutoff_angstrom)]))
        energy = float(answer.energy.mean()) + float(reference_energies([structure], self._references)[0])
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": answer.forces.numpy().astype(np.float64),
        }
        if here.pbc.all():
            stress = answer.virial[0].numpy().astype(np.float64) / abs(here.get_volume())
            self.results["stress"] = ((stress + stress.T) / 2.0)[_VOIGT]


def _structure(atoms: Any) -> Structure:
    cell = atoms.cell.array if atoms.pbc.any() else None
    return checked_structure(atoms.numbers, atoms.positions, cell, atoms.pbc)
