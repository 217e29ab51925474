"""What every reference calculator gives, whatever is behind it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from contract.structures import Structure

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """Labels of n structures with A atoms in all.

    Attributes:
        energy: float64 [n], eV, NaN where the calculation did not converge.
        forces: float64 [A, 3], eV/angstrom, -dE/dr, structures concatenated.
        converged: bool [n].
        energy_std: float64 [n], eV, sample standard deviation (ddof = 1) of a reference that is a committee; else None.
        stress: float64 [n, 6], eV/angstrom^3, tensile positive, xx yy zz yz xz xy; None where it is not given.
    """

    energy: NDArray[np.float64]
    forces: NDArray[np.float64]
    converged: NDArray[np.bool_]
    energy_std: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None


class Reference(Protocol):
    """A reference calculator."""

    @property
    def method(self) -> str:
        """Method, version and settings in one line: what the card calls the level of theory."""

    def label(self, structures: Sequence[Structure], progress: Progress = lambda n: None) -> Labels:
        """Label structures; `progress` is told of each lot that is done."""
