"""Voxel images of porous media: distances to the wall, which pores conduct, and what a rock looks like to a network.

An image is boolean with True = pore; axes are x, y, z in the order of the array. Flow along one axis is that of a core
in a sleeve: both ends of this axis are open, as if the image went on as its mirror image, and the four sides are solid.
A periodic image goes on as itself at every face.
"""

from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

Image = NDArray[np.bool_]
S = TypeVar("S", bound=np.generic)

AXES: Final = ("x", "y", "z")
FAR: Final = 1e12
"""Squared distance where there is no solid at all."""


@dataclass(frozen=True, slots=True)
class Pores:
    """The pore space of an image as flow along one axis sees it.

    Attributes:
        conducting: bool, shaped as the image: pores of a face-connected cluster that joins both ends.
        porosity: pores over all voxels.
        connected_porosity: conducting pores over all voxels.
    """

    conducting: Image
    porosity: float
    connected_porosity: float

    @property
    def percolates(self) -> bool:
        """Whether anything can flow."""
        return self.connected_porosity > 0.0


def pores_of(image: Image, axis: int, periodic: bool = False) -> Pores:
    """Which pores carry flow along an axis; a periodic cluster does if it closes on itself after any turns along it."""
    labels, joins = _clusters(np.ascontiguousarray(np.moveaxis(image, axis, -1)), periodic)
    conducting = np.ascontiguousarray(np.moveaxis(joins[labels], -1, axis))
    return Pores(conducting, float(image.mean()), float(conducting.mean()))


def wall_distance(image: Image, axis: int | None = None, periodic: bool = False) -> NDArray[np.float32]:
    """Euclidean distance from each pore's centre to the nearest solid centre, in voxels; 0 in the solid.

    Exact, by lower envelopes of parabolas (Felzenszwalb & Huttenlocher, Theory of Computing 8, 415 (2012)).

    Args:
        image: bool [nx, ny, nz], True = pore.
        axis: of the flow, whose ends are open; None where no face is a wall.
        periodic: the image repeats at every face; then `axis` does not matter.
    """
    squared = np.where(image, FAR, 0.0)
    for along in range(image.ndim):
        walls = not periodic and axis is not None and along != axis
        lines = np.ascontiguousarray(np.moveaxis(squared, along, -1))
        _nearest_along(lines.reshape(-1, lines.shape[-1]), walls, periodic)
        squared = np.moveaxis(lines, -1, along)
    return np.ascontiguousarray(np.sqrt(squared), dtype=np.float32)


def length_scale_squared(distance: NDArray[np.float32], conducting: Image) -> float:
    """Mean over the conducting pores of (distance - 1/2)^2, voxel^2: what velocities scale with; half-way walls."""
    return float(np.mean((distance[conducting].astype(np.float64) - 0.5) ** 2))


def specific_surface(image: Image) -> float:
    """Faces between pore and solid over all voxels, 1/voxel."""
    faces = sum(np.count_nonzero(np.diff(image, axis=axis)) for axis in range(image.ndim))
    return faces / image.size


def padded(image: NDArray[S], divisor: int) -> NDArray[S]:
    """An image, or a field on it, with solid at its high ends, so that lengths are multiples of the divisor."""
    widths = [(0, -length % divisor) for length in image.shape]
    return np.pad(image, widths)


def flow_last(field: NDArray[S], axis: int) -> NDArray[S]:
    """The same field with the axis of the flow last, which is how networks see it."""
    return np.ascontiguousarray(np.moveaxis(field, axis, -1))


def throat_voxels(distance: NDArray[np.float32], conducting: Image, axis: int) -> float:
    """Width of the narrowest place on the widest way through, in voxels.

    The largest d such that pores at least d/2 from the wall still join both ends: 2 * distance - 1 there.
    """
    values = np.unique(distance[conducting])
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if pores_of(conducting & (distance >= values[middle]), axis).percolates:
            low = middle
        else:
            high = middle - 1
    return float(2.0 * values[low] - 1.0)


@njit(cache=True, nogil=True)
def _nearest_along(lines: NDArray[np.float64], walls: bool, periodic: bool) -> None:  # pragma: no cover (compiled)
    """Lower envelope of the parabolas (x - q)^2 + f(q) on each line, in place."""
    count, n = lines.shape
    size = 3 * n if periodic else n + 2
    heights, at = np.empty(size), np.empty(size, np.int64)
    bounds = np.empty(size + 1)
    for line in range(count):
        f = lines[line]
        if periodic:
            for i in range(size):
                heights[i] = f[i % n]
        else:
            heights[0] = heights[n + 1] = 0.0 if walls else 1e12
            heights[1 : n + 1] = f
        top = 0
        at[0], bounds[0], bounds[1] = 0, -1e30, 1e30
        for q in range(1, size):
            while True:
                v = at[top]
                meet = ((heights[q] + q * q) - (heights[v] + v * v)) / (2.0 * (q - v))
                if meet > bounds[top]:
                    break
                top -= 1
            top += 1
            at[top], bounds[top], bounds[top + 1] = q, meet, 1e30
        k, first = 0, n if periodic else 1
        for i in range(n):
            x = first + i
            while bounds[k + 1] < x:
                k += 1
            f[i] = min(1e12, (x - at[k]) ** 2 + heights[at[k]])


def _clusters(image: Image, periodic: bool) -> tuple[NDArray[np.int64], Image]:
    """A cluster number for each voxel, and for each number whether its pores join the ends along the last axis."""
    labels, joins = _united(image, periodic)
    return labels.reshape(image.shape), joins


@njit(cache=True, nogil=True)
def _united(image: Image, periodic: bool) -> tuple[NDArray[np.int64], Image]:  # pragma: no cover (compiled)
    """Union-find over faces. Each voxel also knows its displacement along z to its parent, in turns of the period."""
    nx, ny, nz = image.shape
    parent, turns = np.arange(image.size), np.zeros(image.size, np.int32)
    joins = np.zeros(image.size, np.bool_)
    strides = (ny * nz, nz, 1)
    for x in range(nx):
        for y in range(ny):
            for z in range(nz):
                if not image[x, y, z]:
                    continue
                here, at, lengths = (x * ny + y) * nz + z, (x, y, z), (nx, ny, nz)
                for axis in range(3):
                    wraps = at[axis] == lengths[axis] - 1
                    if wraps and not periodic:
                        continue
                    there = here + strides[axis] * (1 - lengths[axis] if wraps else 1)
                    if not image[there // (ny * nz), there // nz % ny, there % nz]:
                        continue
                    step = 1 if wraps and axis == 2 else 0
                    a, from_here = _root(parent, turns, here)
                    b, from_there = _root(parent, turns, there)
                    if a != b:
                        parent[b] = a
                        turns[b] = from_here + step - from_there
                        joins[a] = joins[a] or joins[b]
                    elif from_there != from_here + step:
                        joins[a] = True
    low, high = np.zeros(image.size, np.bool_), np.zeros(image.size, np.bool_)
    for i in range(image.size):
        root, _ = _root(parent, turns, i)
        low[root] |= i % nz == 0
        high[root] |= i % nz == nz - 1
    labels = np.empty(image.size, np.int64)
    for i in range(image.size):
        labels[i], _ = _root(parent, turns, i)
        if not periodic:
            joins[labels[i]] = image[i // (ny * nz), i // nz % ny, i % nz] and low[labels[i]] and high[labels[i]]
    return labels, joins


@njit(cache=True, nogil=True)
def _root(parent: NDArray[np.int64], turns: NDArray[np.int32], i: int) -> tuple[int, int]:  # pragma: no cover
    """The representative of i's cluster and i's displacement from it; halves the way for the next one."""
    total = 0
    while parent[i] != i:
        above = parent[i]
        turns[i] += turns[above]
        parent[i] = parent[above]
        total += turns[i]
        i = parent[i]
    return i, total
