"""Any ASE calculator as a reference: LAMMPS, tblite, GPAW and whatever else has one."""

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
        anew: make one for every structure, where a calculator keeps symmetries or densities of the one before.
        failures: what else the calculator raises when it does not converge.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        method: str,
        *,
        anew: bool = False,
        failures: tuple[type[Exception], ...] = (),
    ) -> None:
        self.method = method
        self._make, self._anew, self._failures = make, anew, _FAILURES + failures
        self._of_thread = threading.local()

    def label(self, structures: Sequence[Structure], progress: Progress = lambda n: None) -> Labels:
        """Energies, forces, and stresses of periodic structures. What fails is NaN and not converged."""
        energy = np.full(len(structures), np.nan)
        stress = np.full((len(structures), 6), np.nan)
        forces = [np.full((len(structure), 3), np.nan) for structure in structures]
        for i, structure in enumerate(structures):
            try:
                energy[i], forces[i], stress[i] = self._one(structure)
            except self._failures:
                self._of_thread.__dict__.clear()  # a calculator that failed may be left in any state
            progress(1)
        fine = np.isfinite(energy) & np.array([bool(np.isfinite(f).all()) for f in forces])
        return Labels(energy, np.concatenate(forces), fine, stress=stress)

    def _one(self, structure: Structure) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        periodic = structure.cell is not None and bool(structure.pbc.all())
        atoms: Any = Atoms(structure.numbers, structure.positions, cell=structure.cell, pbc=structure.pbc)
        atoms.calc = self._calculator()
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        energy = atoms.calc.results.get("free_energy", energy)  # the one whose derivative the forces are
        return energy, forces, atoms.get_stress() if periodic else np.full(6, np.nan)

    def _calculator(self) -> Any:
        if self._anew:
            return self._make()
        if not hasattr(self._of_thread, "calculator"):
            self._of_thread.calculator = self._make()
        return self._of_thread.calculator
