"""Images with one bit a voxel, for those that are too large to lie unpacked in memory: looked at a part at a time.

What contract/voxels.py says of an image, in parts and with the same results: conducting pores, distances to the wall.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from contract.tiles import Block, Tile, tiles_of
from contract.voxels import Image, wall_distance

_SLAB: Final = 8
"""Slices that are unpacked at a time: so many hold whole bytes, whatever their size."""
_HALO: Final = 16
_GREY: Final = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class PackedImage:
    """An image [nx, ny, nz] of booleans, True = pore.

    Attributes:
        bits: uint8 [nx, ny, ceil(nz / 8)], the most significant bit first; those behind the last voxel are 0.
        shape: in voxels.
    """

    bits: NDArray[np.uint8]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, image: Image) -> Self:
        """An image, packed."""
        nx, ny, nz = image.shape
        return cls(np.packbits(image, axis=-1), (nx, ny, nz))

    @classmethod
    def of_flat_bits(cls, data: NDArray[np.uint8], shape: tuple[int, int, int]) -> Self:
        """From one bit a voxel in C order without gaps between rows, as numpy.packbits writes a whole array."""
        nx, ny, nz = shape
        if nz % 8 == 0:
            return cls(data.reshape(nx, ny, nz // 8), shape)
        bits = np.empty((nx, ny, -(-nz // 8)), np.uint8)
        for x in range(0, nx, _SLAB):  # eight slices begin and end with a byte
            part = data[x * ny * nz // 8 : -(-min(x + _SLAB, nx) * ny * nz // 8)]
            slab = np.unpackbits(part, count=min(_SLAB, nx - x) * ny * nz).reshape(-1, ny, nz)
            bits[x : x + _SLAB] = np.packbits(slab, axis=-1)
        return cls(bits, shape)

    @property
    def size(self) -> int:
        """Voxels."""
        nx, ny, nz = self.shape
        return nx * ny * nz

    @cached_property
    def count(self) -> int:
        """Pores."""
        return int(sum(_GREY[self.bits[x]].sum() for x in range(self.shape[0])))

    @property
    def porosity(self) -> float:
        """Pores over all voxels."""
        return self.count / self.size

    def block(self, block: Block) -> Image:
        """A part, unpacked."""
        x, y, z = block
        first, last, _ = z.indices(self.shape[2])
        whole = np.unpackbits(self.bits[x, y, first // 8 : -(-last // 8)], axis=-1)
        return whole[..., first % 8 : first % 8 + last - first].view(np.bool_)

    def unpacked(self) -> Image:
        """The whole image."""
        return np.unpackbits(self.bits, axis=-1, count=self.shape[2]).view(np.bool_)

    def reversed_axes(self) -> "PackedImage":
        """The same with its first axis last and its last axis first."""
        nx, ny, nz = self.shape
        bits = np.empty((nz, ny, -(-nx // 8)), np.uint8)
        for x in range(0, nx, _SLAB):
            bits[:, :, x // 8] = np.packbits(self.slab(x).transpose(2, 1, 0), axis=-1)[..., 0]
        return PackedImage(bits, (nz, ny, nx))

    def slab(self, x: int) -> Image:
        """Up to eight slices across the first axis, from x on."""
        return self.block((slice(x, min(x + _SLAB, self.shape[0])), slice(None), slice(None)))

    def flat_bits(self) -> Iterator[bytes]:
        """One bit a voxel in C order, in pieces."""
        for x in range(0, self.shape[0], _SLAB):
            yield np.packbits(self.slab(x)).tobytes()

    @cached_property
    def surface(self) -> float:
        """Faces between pore and solid over all voxels, 1/voxel."""
        faces, before = 0, self.slab(0)[:0]
        for x in range(0, self.shape[0], _SLAB):
            slab = self.slab(x)
            joined = np.concatenate([before, slab])
            faces += int(np.count_nonzero(joined[1:] != joined[:-1]))
            faces += sum(int(np.count_nonzero(np.diff(slab, axis=axis))) for axis in (1, 2))
            before = slab[-1:]
        return faces / self.size


def conducting_along(image: PackedImage, axes: Sequence[int]) -> dict[int, PackedImage]:
    """Pores of face-connected clusters that join both ends of each of these axes."""
    found = {axis: np.zeros_like(image.bits) for axis in axes}
    for x, touched in enumerate(_touched(image)):
        for axis, bits in found.items():
            both = np.uint8(3 << (2 * axis))
            bits[x] = np.packbits(touched & both == both, axis=-1)
    return {axis: PackedImage(bits, image.shape) for axis, bits in found.items()}


def isolated_porosity(image: PackedImage) -> float:
    """Pores that no way through faces of voxels joins to any side of the image, over all voxels."""
    reached = sum(int(np.count_nonzero(touched)) for touched in _touched(image))
    return (image.count - reached) / image.size


def _touched(image: PackedImage) -> Iterator[NDArray[np.uint8]]:
    """For each slice, which faces of the image the cluster of each pore touches, a bit each; 0 in the solid.

    Clusters are numbered slice by slice (Hoshen & Kopelman, Phys. Rev. B 14, 3438 (1976)), twice: the second time it is
    known which of them are one, and which faces they touch.
    """
    parent, faces = _numbered(image)
    roots = _roots(parent)
    np.bitwise_or.at(faces, roots, faces)
    above, count = np.zeros(image.shape[1:], np.int32), 0
    for x in range(image.shape[0]):
        count = _renumber(image.block((slice(x, x + 1), slice(None), slice(None)))[0], above, roots, count)
        yield faces[above]


def wall_distance_in(image: PackedImage, axis: int, block: Block, where: Image) -> NDArray[np.float32]:
    """Distance to the wall as of the whole image, in a part of it; 0 but where it is asked for.

    Args:
        image: whole.
        axis: of the flow, whose ends are open.
        block: the part.
        where: bool, shaped as the part.
    """
    halo = _HALO
    if not where.any():
        return np.zeros(where.shape, np.float32)
    while True:
        tile = _around(block, image.shape, halo)
        walls = [(int(o.start == 0 and a != axis), int(o.stop == n and a != axis)) for a, o, n in _sides(tile, image)]
        cut = tuple(slice(c.start + low, c.stop + low) for c, (low, _) in zip(tile.cut, walls, strict=True))
        distance = wall_distance(np.pad(image.block(tile.outer), walls))[cut]
        distance[~where] = 0.0
        if all(o.start == 0 and o.stop == n for _, o, n in _sides(tile, image)) or distance.max() <= halo + 1:
            return distance
        halo *= 2


def _sides(tile: Tile, image: PackedImage) -> list[tuple[int, slice, int]]:
    return list(zip(range(3), tile.outer, image.shape, strict=True))


def _around(block: Block, shape: tuple[int, ...], halo: int) -> Tile:
    x, y, z = (slice(max(0, s.start - halo), min(n, s.stop + halo)) for s, n in zip(block, shape, strict=True))
    return Tile(block, (x, y, z))


def blocks_of(shape: tuple[int, ...], length: int) -> Iterator[Block]:
    """Parts with sides of at most `length` that cover an image once."""
    return (tile.inner for tile in tiles_of(shape, length, 0))


def _numbered(image: PackedImage) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """For each number: another of the same cluster, or itself; and the faces that were touched, a bit each."""
    nx, ny, nz = image.shape
    parent, faces = np.zeros(1, np.int32), np.zeros(1, np.uint8)
    above, count = np.zeros((ny, nz), np.int32), 0
    for x in range(nx):
        room = count + ny * nz // 2 + 2
        if len(parent) < room:
            size = max(room, len(parent) * 3 // 2)
            parent, faces = np.resize(parent, size), np.resize(faces, size)
        ends = np.uint8((x == 0) | (x == nx - 1) << 1)
        count = _number(image.block((slice(x, x + 1), slice(None), slice(None)))[0], above, parent, faces, count, ends)
    return parent[: count + 1].copy(), faces[: count + 1].copy()


@njit(cache=True, nogil=True)
def _number(
    pore: Image,
    above: NDArray[np.int32],
    parent: NDArray[np.int32],
    faces: NDArray[np.uint8],
    count: int,
    ends: np.uint8,
) -> int:  # pragma: no cover (compiled)
    """Number one slice; `above` holds the numbers of the slice before, 0 in the solid, and then those of this one."""
    ny, nz = pore.shape
    for y in range(ny):
        for z in range(nz):
            if not pore[y, z]:
                above[y, z] = 0
                continue
            label = np.int64(0)
            over, left = np.int64(above[y - 1, z] if y else 0), np.int64(above[y, z - 1] if z else 0)
            for other in (np.int64(above[y, z]), over, left):
                if other == 0:
                    continue
                root = other
                while parent[root] != root:
                    parent[root] = parent[parent[root]]
                    root = np.int64(parent[root])
                if label == 0 or root == label:
                    label = root
                else:
                    low, high = min(root, label), max(root, label)
                    parent[high] = low
                    label = low
            if label == 0:
                count += 1
                label = np.int64(count)
                parent[label], faces[label] = label, 0
            above[y, z] = label
            touched = ends
            if y == 0:
                touched |= 4
            if y == ny - 1:
                touched |= 8
            if z == 0:
                touched |= 16
            if z == nz - 1:
                touched |= 32
            faces[label] |= touched
    return count


@njit(cache=True, nogil=True)
def _renumber(
    pore: Image, above: NDArray[np.int32], roots: NDArray[np.int32], count: int
) -> int:  # pragma: no cover (compiled)
    """The same slice once more, with the number of each whole cluster."""
    ny, nz = pore.shape
    for y in range(ny):
        for z in range(nz):
            if not pore[y, z]:
                above[y, z] = 0
                continue
            label = above[y, z]
            if label == 0 and y:
                label = above[y - 1, z]
            if label == 0 and z:
                label = above[y, z - 1]
            if label == 0:
                count += 1
                label = roots[count]
            above[y, z] = label
    return count


@njit(cache=True, nogil=True)
def _roots(parent: NDArray[np.int32]) -> NDArray[np.int32]:  # pragma: no cover (compiled)
    """The least number of each one's cluster: parents are less than their children."""
    roots = np.empty_like(parent)
    for i in range(len(parent)):
        roots[i] = i if parent[i] == i else roots[parent[i]]
    return roots
