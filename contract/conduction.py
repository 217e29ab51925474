"""Creeping flow through an image as conduction: an estimate of velocity and permeability that knows every way through.

In a straight tube of elliptic section, or a slit, of any direction, the velocity is u = kappa dP/ds with

    kappa = 1/6 / (mean over directions of 1 / (a b))

where a and b are the distances to the wall forth and back along a direction: with Q(r) < 1 inside the section, u is
(1 - Q) / (2 tr Q), a b along the unit vector e is (1 - Q) / (e Q e), and the mean of e Q e over directions that are
spread evenly is a third of the trace: here the three axes and the six diagonals of their planes. With this kappa, the
pressure of the whole pore space follows from conservation of volume, div(kappa grad P) = 0: one linear system,
solved by conjugate gradients. What it lacks is how bends, junctions and rough walls shape a flow.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from contract.errors import UnderstudyError
from contract.voxels import Image

Floats = NDArray[np.float32]
Flag = NDArray[np.bool_]

TOLERANCE: Final = 1e-3
"""Relative fall of the permeability over _PATIENCE iterations at which it counts as solved."""
_PATIENCE: Final = 20
_ITERATIONS_PER_VOXEL: Final = 20
_FAR: Final = 256
"""Steps; beyond it there is no wall."""
_DIRECTIONS: Final = np.array(
    [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1), (0, 1, 1), (0, 1, -1)]
)


class Stopped(UnderstudyError):
    """The estimate was told to stop before it was solved."""


@dataclass(frozen=True, slots=True, eq=False)
class Conduction:
    """The estimate for a core in a sleeve, the flow along the last axis.

    Attributes:
        velocity: float32, shaped as the image: the component along the axis times viscosity over driving force,
            voxel^2; 0 outside the conducting pores.
        pressure: float64 [n] of the pores in C order, voxels: from 0 at the low end to the length at the high end, the
            flow towards higher values.
        permeability: mean of the velocity over all voxels, voxel^2.
        iterations: taken.
        solved: the permeability is within the tolerance; else it is too large.
    """

    velocity: Floats
    pressure: NDArray[np.float64]
    permeability: float
    iterations: int
    solved: bool


def conduct(pore: Image, tolerance: float = TOLERANCE, stop: Flag | None = None) -> Conduction:
    """Solve for the pressure in pores that all join both ends of the last axis; sides are walls. No pores, no flow.

    Takes about 80 bytes a pore while it runs.

    Args:
        pore: bool [X, Y, Z].
        tolerance: see TOLERANCE.
        stop: bool [1]; once another thread has set it, the iterations end.

    Raises:
        Stopped
    """
    stop = np.zeros(1, bool) if stop is None else stop
    kappa, slices, length = conductivity(pore), np.nonzero(pore)[2], pore.shape[2]
    neighbours = _neighbours(pore)
    between = np.where(neighbours >= 0, 2.0 / (1.0 / kappa + 1.0 / kappa[neighbours]), np.float32(0.0))
    low, high = (np.where(slices == end, 2.0 * kappa, np.float32(0.0)) for end in (0, length - 1))
    pressure, most = slices.astype(np.float64) + 0.5, _ITERATIONS_PER_VOXEL * max(pore.shape)
    iterations, solved = _descend(pressure, length * high, low + high, between, neighbours, tolerance, most, stop)
    if stop[0]:
        raise Stopped(f"stopped after {iterations} iterations")
    onwards = between[4] * (pressure[neighbours[4]] - pressure) + high * (length - pressure)
    hither = between[5] * (pressure - pressure[neighbours[5]]) + low * pressure
    velocity = np.zeros(pore.shape, np.float32)
    velocity[pore] = 0.5 * (onwards + hither)
    return Conduction(velocity, pressure, float(velocity.mean(dtype=np.float64)), iterations, solved)


def conductivity(pore: Image) -> Floats:
    """Kappa of the pores in C order, voxel^2 [n], with half-way walls. Both ends of the last axis are mirrors."""
    kappa = np.empty(np.count_nonzero(pore), np.float32)
    _look_around(pore, _DIRECTIONS, kappa)
    return kappa


def _neighbours(pore: Image) -> NDArray[np.int32]:
    """Numbers of the pores beside each pore, [6, n]: x+, x-, y+, y-, z+, z-; -1 for a wall or an end."""
    numbers = np.full([n + 2 for n in pore.shape], -1, np.int32)
    numbers[1:-1, 1:-1, 1:-1][pore] = np.arange(np.count_nonzero(pore))
    inside = (slice(1, -1),) * 3
    rolled = (np.roll(numbers, -step, axis)[inside][pore] for axis in range(3) for step in (1, -1))
    return np.stack(list(rolled))


@njit(cache=True, nogil=True)
def _look_around(pore: Image, directions: NDArray[np.int64], kappa: Floats) -> None:  # pragma: no cover (compiled)
    """From each pore along each direction, forth and back, to the wall."""
    nx, ny, nz = pore.shape
    n = 0
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not pore[x, y, z]:
                    continue
                inverse = 0.0
                for d in range(len(directions)):
                    cx, cy, cz = directions[d]
                    forth, back = _to_wall(pore, x, y, z, cx, cy, cz), _to_wall(pore, x, y, z, -cx, -cy, -cz)
                    inverse += 1.0 / (forth * back * (cx * cx + cy * cy + cz * cz))
                kappa[n] = len(directions) / (6.0 * inverse)
                n += 1


@njit(cache=True, nogil=True, inline="always")
def _to_wall(pore: Image, x: int, y: int, z: int, cx: int, cy: int, cz: int) -> float:  # pragma: no cover (compiled)
    """Steps from a pore to the wall; at an end the way is mirrored."""
    nx, ny, nz = pore.shape
    for steps in range(_FAR):
        x, y, z = x + cx, y + cy, z + cz
        if z < 0 or z == nz:
            cz = -cz
            z += cz
        if x < 0 or x == nx or y < 0 or y == ny or not pore[x, y, z]:
            return steps + 0.5
    return float(_FAR) ** 2


@njit(cache=True, nogil=True, fastmath=True)
def _descend(  # pragma: no cover (compiled)
    x: NDArray[np.float64],
    right: Floats,
    ends: Floats,
    between: Floats,
    neighbours: NDArray[np.int32],
    tolerance: float,
    most: int,
    stop: Flag,
) -> tuple[int, bool]:
    """Conjugate gradients, scaled by the diagonal, in place: iterations, and whether the dissipation has settled.

    Each iteration lowers the dissipation, which is the permeability times the volume, by a known amount.
    """
    n = len(x)
    diagonal, residual = np.empty(n, np.float32), np.empty(n, np.float32)
    direction, image = np.empty(n, np.float32), np.empty(n, np.float32)
    falls = np.zeros(most + _PATIENCE)
    dissipation, norm, lately = 0.0, 0.0, 0.0
    for i in range(n):
        diagonal[i] = ends[i]
        flow = right[i] - ends[i] * x[i]
        for m in range(6):
            diagonal[i] += between[m, i]
            flow += between[m, i] * (x[neighbours[m, i]] - x[i])
            dissipation += 0.5 * between[m, i] * (x[neighbours[m, i]] - x[i]) ** 2
        if right[i] > 0.0:
            dissipation += right[i] * (right[i] / ends[i] - x[i]) ** 2 / (right[i] / ends[i])
        elif ends[i] > 0.0:
            dissipation += ends[i] * x[i] ** 2
        residual[i] = flow
        direction[i] = flow / diagonal[i]
        norm += flow * direction[i]
    for iteration in range(most):
        if stop[0]:
            return iteration, False
        curvature = 0.0
        for i in range(n):
            flow = diagonal[i] * direction[i]
            for m in range(6):
                flow -= between[m, i] * direction[neighbours[m, i]]
            image[i] = flow
            curvature += direction[i] * flow
        if curvature <= 0.0:
            return iteration, True
        step, before = norm / curvature, norm
        norm = 0.0
        for i in range(n):
            x[i] += step * direction[i]
            residual[i] -= step * image[i]
            norm += residual[i] * residual[i] / diagonal[i]
        falls[iteration + _PATIENCE] = step * before
        dissipation -= step * before
        lately += step * before - falls[iteration]
        if iteration >= _PATIENCE and lately < tolerance * dissipation:
            return iteration + 1, True
        for i in range(n):
            direction[i] = residual[i] / diagonal[i] + norm / before * direction[i]
    return most, False
