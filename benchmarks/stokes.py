"""Stokes flow through a periodic image on a staggered grid, solved directly: a third opinion beside lattice Boltzmann.

Velocities lie on the faces between two pore voxels, pressures in the voxels (Harlow & Welch, Phys. Fluids 8, 2182
(1965)). A velocity whose neighbour lies within the solid meets the wall half way to it; one whose neighbour is a face
of the wall has zero there. The grid's error is of another kind than that of lattice Boltzmann, and both vanish as
voxels are refined. For small images: the matrix is factorised.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.linalg import spsolve

from contract.voxels import Image

Entries = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
_PINNED: Final = -1e-9
"""On the diagonal of the pressure, which is free up to a constant."""


def staggered_permeability(image: Image) -> float:
    """Mean velocity along the last axis over all voxels, times viscosity over driving force, voxel^2."""
    faces = [image & np.roll(image, 1, axis) for axis in range(3)]
    pressure, count = _numbered(image, 0)
    velocities = []
    for open_ in faces:
        numbers, count = _numbered(open_, count)
        velocities.append(numbers)
    entries = [entry for axis in range(3) for entry in _momentum(image, axis, faces[axis], velocities[axis], pressure)]
    pinned = np.arange(np.count_nonzero(image))
    entries.append((pinned, pinned, np.full(pinned.shape, _PINNED)))
    rows, columns, values = (np.concatenate(parts) for parts in zip(*entries, strict=True))
    matrix = coo_array((values, (rows, columns)), shape=(count, count)).tocsc()
    driven = velocities[2][faces[2]]
    force = np.zeros(count)
    force[driven] = 1.0
    return float(spsolve(matrix, force)[driven].sum() / image.size)


def _numbered(where: Image, first: int) -> tuple[NDArray[np.int64], int]:
    """Unknowns from `first` on where they are, -1 elsewhere; and the next number."""
    numbers = np.full(where.shape, -1, np.int64)
    count = int(np.count_nonzero(where))
    numbers[where] = first + np.arange(count)
    return numbers, first + count


def _momentum(
    image: Image, axis: int, faces: Image, numbers: NDArray[np.int64], pressure: NDArray[np.int64]
) -> list[Entries]:
    """-laplacian(u) + gradient(p) of one component on its faces, and its part of the divergence."""
    own, diagonal = numbers[faces], np.zeros(np.count_nonzero(faces))
    entries: list[Entries] = []
    for across in range(3):
        for step in (1, -1):
            neighbour = np.roll(numbers, -step, across)[faces]
            flows = neighbour >= 0
            entries.append((own[flows], neighbour[flows], np.full(np.count_nonzero(flows), -1.0)))
            beside = np.roll(image, -step, across) | np.roll(np.roll(image, 1, axis), -step, across)
            half_way = (across != axis) & ~beside[faces]
            diagonal += np.where(half_way, 2.0, 1.0)
    entries.append((own, own, diagonal))
    for cell, sign in ((pressure[faces], 1.0), (np.roll(pressure, 1, axis)[faces], -1.0)):
        signs = np.full(own.shape, sign)
        entries += [(own, cell, signs), (cell, own, signs)]
    return entries
