"""A reference, or a committee as one, as an ASE calculator: the same properties are computed of both."""

from typing import Any, ClassVar

from ase.calculators.calculator import Calculator, all_changes

from contract.structures import checked_structure
from training.simulators.labels import Reference

_Base: Any = Calculator


class ReferenceCalculator(_Base):  # type: ignore[misc]
    """Energy (eV), forces (eV/angstrom) and, of periodic structures, stress (eV/angstrom^3, tensile positive)."""

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "forces", "stress"]

    def __init__(self, reference: Reference) -> None:
        super().__init__()
        self._reference = reference

    def calculate(self, atoms: Any = None, properties: Any = None, system_changes: Any = all_changes) -> None:
        """Fill `results` for these atoms."""
        super().calculate(atoms, properties, system_changes)
        cell = self.atoms.cell.complete().array if self.atoms.pbc.any() else None
        structure = checked_structure(self.atoms.numbers, self.atoms.positions, cell, self.atoms.pbc)
        labels = self._reference.label([structure])
        energy = float(labels.energy[0])
        self.results = {"energy": energy, "free_energy": energy, "forces": labels.forces}
        if labels.stress is not None:
            self.results["stress"] = labels.stress[0]
