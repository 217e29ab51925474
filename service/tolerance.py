"""How far two answers to one question may be apart: the tolerance of the isolation contract, and of replays."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

FORCE_TOLERANCE: Final = 1e-5
"""eV/angstrom, of a force component in float32; larger forces may differ in proportion."""
RELATIVE_TOLERANCE: Final = 1e-4
ENERGY_TOLERANCE: Final = 1e-6
"""eV per atom."""


def energies_agree(one: float, other: float, atoms: int) -> bool:
    """Whether two energies (eV) of one structure agree."""
    return abs(one - other) <= ENERGY_TOLERANCE * atoms + 1e-9 * abs(one)


def forces_agree(one: NDArray[np.floating], other: NDArray[np.floating]) -> bool:
    """Whether two sets of forces (eV/angstrom) agree."""
    return bool(np.allclose(one, other, rtol=RELATIVE_TOLERANCE, atol=FORCE_TOLERANCE))
