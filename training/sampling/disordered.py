"""Disordered periodic cells: atoms inserted at random with a least distance, at a density drawn from a range."""

from typing import Final

import numpy as np
from ase.data import atomic_masses
from numpy.typing import NDArray

from contract.structures import Structure, checked_structure
from contract.units import G_PER_CM3 as G_PER_CM3

MOST_PACKED: Final = 0.30
_TRIES: Final = 20_000


def disordered_cell(numbers: NDArray[np.int64], density: float, apart: float, rng: np.random.Generator) -> Structure:
    """A cubic cell of these atoms at `density` (g/cm^3), no two closer than `apart` angstrom, images included.

    Random sequential insertion stalls when the spheres of diameter `apart` fill more than 30 % of the volume.

    Raises:
        ValueError: they would.
    """
    volume = atomic_masses[numbers].sum() * G_PER_CM3 / density
    packed = np.pi / 6.0 * len(numbers) * apart**3 / volume
    if packed > MOST_PACKED:
        raise ValueError(
            f"spheres of {apart:g} angstrom would fill {packed:.0%} of the cell at {density:g} g/cm^3; insertion "
            f"stalls above {MOST_PACKED:.0%}: lower the distance or the density"
        )
    length = volume ** (1.0 / 3.0)
    placed = np.empty((0, 3))
    for _ in range(_TRIES * len(numbers)):
        candidate = rng.random(3) * length
        away = placed - candidate
        away -= length * np.round(away / length)
        if (np.einsum("ij,ij->i", away, away) >= apart**2).all():
            placed = np.vstack([placed, candidate])
            if len(placed) == len(numbers):
                return checked_structure(numbers, placed, length * np.eye(3), True)
    raise ValueError(f"{len(numbers)} atoms did not fit into a cell of {length:.2f} angstrom; lower the distance")
