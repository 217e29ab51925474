"""Any ASE calculator as a reference: LAMMPS, tblite, Quantum ESPRESSO and whatever else has one."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import CalculatorError
from numpy.typing import NDArray

from contract.structures import Structure
from training.simulators.labels import Labels, Progress

_FAILURES = (CalculatorError, ArithmeticError, RuntimeError)


class AseReference:
    """Labels structures one after another.

    Args:
        make: makes a calculator; each thread has its own, kept from one structure to the next.
        method: method, version and settings in one line.
    """

    def __init__(self, make: Callable[[], Any], method: str) -> None:
        self.method = method
        self._make = make
        self._of_thread = threading.local()

    def label(self, structures: Sequence[Structure], progress: Progress = lambda n: None) -> Labels:
        """Energies, forces, and stresses of periodic structures. What fails is NaN and not converged."""
        energy = np.full(len(structures), np.nan)
        stress = np.full((len(structures), 6), np.nan)
        forces = [np.full((len(structure), 3), np.nan) for structure in structures]
        for i, structure in enumerate(structures):
            try:
                energy[i], forces[i], stress[i] = self._one(structure)
            except _FAILURES:
                self._of_thread.__dict__.clear()  # a calculator that failed may be left in any state
            progress(1)
        fine = np.isfinite(energy) & np.array([bool(np.isfinite(f).all()) for f in forces])
        return Labels(energy, np.concatenate(forces), fine, stress=stress)

    def _one(self, structure: Structure) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        periodic = structure.cell is not None and bool(structure.pbc.all())
        atoms: Any = Atoms(structure.numbers, structure.positions, cell=structure.cell, pbc=structure.pbc)
        atoms.calc = self._of_thread.__dict__.get("calculator") or self._make()
        self._of_thread.calculator = atoms.calc
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        return energy, forces, atoms.get_stress() if periodic else np.full(6, np.nan)
