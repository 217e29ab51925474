"""Creeping flow through an image as conduction: an estimate of velocity and permeability that knows every way through.

In a straight tube of elliptic section, or a slit, of any direction, the velocity is u = kappa dP/ds with

    kappa = 1/6 / (mean over directions of 1 / (a b))

where a and b are the distances to the wall forth and back along a direction: with Q(r) < 1 inside the section, u is
(1 - Q) / (2 tr Q), a b along the unit vector e is (1 - Q) / (e Q e), and the mean of e Q e over directions that are
spread evenly is a third of the trace: here the three axes and the six diagonals of their planes. With this kappa, the
pressure of the whole pore space follows from conservation of volume, div(kappa grad P) = 0: one linear system,
solved by conjugate gradients. What it lacks is how bends, junctions and rough walls shape a flow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from contract.errors import UnderstudyError
from contract.voxels import Image

Floats = NDArray[np.float32]
Flag = NDArray[np.bool_]
Room = Callable[[tuple[int, ...]], Floats]
"""Where a large array is kept: in memory, or in a file."""

TOLERANCE: Final = 1e-3
"""Relative fall of the permeability over _PATIENCE iterations at which it counts as solved."""
_PATIENCE: Final = 20
_ITERATIONS_PER_VOXEL: Final = 20
_FAR: Final = 256
"""Steps; beyond it there is no wall."""
_TWO: Final = np.float32(2.0)
_NEXT, _LOW, _HIGH = 1, 2, 4
"""Of a pore: the next pore is behind it along z, it is at the low end, and at the high end."""
_DIRECTIONS: Final = np.array(
    [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1), (0, 1, 1), (0, 1, -1)]
)


def in_memory(shape: tuple[int, ...]) -> Floats:
    """Room for an array, float32, with anything in it."""
    return np.empty(shape, np.float32)


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
        solved: the permeability is within the tolerance; else it is too large.
    """

    velocity: Floats
    pressure: NDArray[np.float64]
    permeability: float
    solved: bool


def conduct(pore: Image, tolerance: float = TOLERANCE, stop: Flag | None = None, room: Room = in_memory) -> Conduction:
    """Solve for the pressure in pores that all join both ends of the last axis; sides are walls. No pores, no flow.

    Takes 37 bytes a pore while it runs.

    Args:
        pore: bool [X, Y, Z].
        tolerance: see TOLERANCE.
        stop: bool [1]; once another thread has set it, the iterations end.
        room: for all that is as large as the image.

    Raises:
        Stopped
    """
    stop = np.zeros(1, bool) if stop is None else stop
    count, length = int(np.count_nonzero(pore)), pore.shape[2]
    if not count:
        return Conduction(np.zeros(pore.shape, np.float32), np.zeros(0), 0.0, True)
    resistance, beyond = room((count,)), room((2, count)).view(np.int32)
    faces, pressure = room((-(-count // 4),)).view(np.uint8)[:count], room((2 * count,)).view(np.float64)
    _look_around(pore, _DIRECTIONS, resistance)
    _link(pore, beyond, faces, pressure)
    most = _ITERATIONS_PER_VOXEL * max(pore.shape)
    vectors = [room((count,)) for _ in range(4)]
    iterations, solved = _descend(pressure, length, resistance, beyond, faces, tolerance, most, stop, *vectors)
    if stop[0]:
        raise Stopped(f"stopped after {iterations} iterations")
    velocity = room(pore.shape)
    total = _flow(pore, pressure, resistance, faces, velocity)
    return Conduction(velocity, pressure, total / pore.size, solved)


def conductivity(pore: Image) -> Floats:
    """Kappa of the pores in C order, voxel^2 [n], with half-way walls. Both ends of the last axis are mirrors."""
    resistance = np.empty(np.count_nonzero(pore), np.float32)
    _look_around(pore, _DIRECTIONS, resistance)
    return 1.0 / resistance


@njit(cache=True, nogil=True)
def _link(
    pore: Image, beyond: NDArray[np.int32], faces: NDArray[np.uint8], pressure: NDArray[np.float64]
) -> None:  # pragma: no cover (compiled)
    """Numbers of the pores behind each pore along x and y, or its own; what is along z; a pressure that rises evenly.

    A pore behind another along z has the next number.
    """
    nx, ny, nz = pore.shape
    before, here = np.full((ny, nz), -1, np.int32), np.full((ny, nz), -1, np.int32)
    n = 0
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                here[y, z] = -1
                if not pore[x, y, z]:
                    continue
                here[y, z], beyond[0, n], beyond[1, n] = n, n, n
                faces[n] = (_LOW if z == 0 else 0) | (_HIGH if z == nz - 1 else 0)
                pressure[n] = z + 0.5
                if z and here[y, z - 1] >= 0:
                    faces[n - 1] |= _NEXT
                if y and here[y - 1, z] >= 0:
                    beyond[1, here[y - 1, z]] = n
                if before[y, z] >= 0:
                    beyond[0, before[y, z]] = n
                n += 1
        before, here = here, before


@njit(cache=True, nogil=True)
def _look_around(pore: Image, directions: NDArray[np.int64], resistance: Floats) -> None:  # pragma: no cover (compiled)
    """1 / kappa, from each pore along each direction, forth and back, to the wall."""
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
                resistance[n] = 6.0 * inverse / len(directions)
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
    length: int,
    resistance: Floats,
    beyond: NDArray[np.int32],
    faces: NDArray[np.uint8],
    tolerance: float,
    most: int,
    stop: Flag,
    diagonal: Floats,
    residual: Floats,
    direction: Floats,
    image: Floats,
) -> tuple[int, bool]:
    """Conjugate gradients, scaled by the diagonal, in place: iterations, and whether the dissipation has settled.

    Each iteration lowers the dissipation, which is the permeability times the volume, by a known amount.
    """
    n = len(x)
    falls = np.zeros(most + _PATIENCE)
    dissipation, norm, lately = 0.0, 0.0, 0.0
    diagonal[:], residual[:], image[:] = 0.0, 0.0, 0.0
    for i in range(n):
        for m in range(3):
            j = _behind(i, m, beyond, faces)
            if j != i:
                g, fall = 2.0 / (resistance[i] + resistance[j]), x[j] - x[i]
                diagonal[i] += g
                diagonal[j] += g
                residual[i] += g * fall
                residual[j] -= g * fall
                dissipation += g * fall * fall
        for end, pressure in ((_LOW, 0.0), (_HIGH, float(length))):
            if faces[i] & end:
                fall = pressure - x[i]
                diagonal[i] += 2.0 / resistance[i]
                residual[i] += 2.0 / resistance[i] * fall
                dissipation += 2.0 / resistance[i] * fall * fall
        direction[i] = residual[i] / diagonal[i]
        norm += residual[i] * direction[i]
    for iteration in range(most):
        if stop[0]:
            return iteration, False
        curvature, onwards = 0.0, np.float32(0.0)
        for i in range(n):
            own, flow, j = direction[i], image[i] - onwards, i + (faces[i] & _NEXT)
            fall = own - direction[j]
            onwards = _TWO / (resistance[i] + resistance[j]) * fall
            flow += onwards
            curvature += onwards * fall
            for m in range(2):
                j = beyond[m, i]
                fall = own - direction[j]
                along = _TWO / (resistance[i] + resistance[j]) * fall
                flow += along
                image[j] -= along
                curvature += along * fall
            if faces[i] > _NEXT:
                along = _TWO * np.float32(faces[i] // _LOW % 2 + faces[i] // _HIGH) / resistance[i] * own
                flow += along
                curvature += along * own
            image[i] = flow
        if curvature <= 0.0:
            return iteration, True
        step, before = norm / curvature, norm
        norm = 0.0
        for i in range(n):
            x[i] += step * direction[i]
            residual[i] -= step * image[i]
            image[i] = 0.0
            norm += residual[i] * residual[i] / diagonal[i]
        falls[iteration + _PATIENCE] = step * before
        dissipation -= step * before
        lately += step * before - falls[iteration]
        if iteration >= _PATIENCE and lately < tolerance * dissipation:
            return iteration + 1, True
        for i in range(n):
            direction[i] = residual[i] / diagonal[i] + norm / before * direction[i]
    return most, False


@njit(cache=True, nogil=True, inline="always")
def _behind(
    i: int, axis: int, beyond: NDArray[np.int32], faces: NDArray[np.uint8]
) -> int:  # pragma: no cover (compiled)
    """The number of the next pore along an axis; its own, to which nothing flows, where there is none."""
    return int(beyond[axis, i] if axis < 2 else i + (faces[i] & _NEXT))


@njit(cache=True, nogil=True)
def _flow(
    pore: Image, pressure: NDArray[np.float64], resistance: Floats, faces: NDArray[np.uint8], velocity: Floats
) -> float:  # pragma: no cover (compiled)
    """The velocity along the last axis in the image: the mean of what comes and goes; its sum."""
    nx, ny, nz = pore.shape
    n, total = 0, 0.0
    for x in range(nx):
        for y in range(ny):
            hither = 0.0
            for z in range(nz):
                if not pore[x, y, z]:
                    velocity[x, y, z] = 0.0
                    continue
                if faces[n] & _LOW:
                    hither = 2.0 / resistance[n] * pressure[n]
                onwards = 0.0
                if faces[n] & _NEXT:
                    onwards = 2.0 / (resistance[n] + resistance[n + 1]) * (pressure[n + 1] - pressure[n])
                elif faces[n] & _HIGH:
                    onwards = 2.0 / resistance[n] * (nz - pressure[n])
                velocity[x, y, z] = 0.5 * (hither + onwards)
                total += 0.5 * (hither + onwards)
                hither = onwards
                n += 1
    return total
