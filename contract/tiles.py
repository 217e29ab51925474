"""Flow through an image that is too large for one engine call: coarse scales in one call, the finest scale in tiles.

What every scale but the finest sees is at most an eighth of the image: it is run whole (FIELD_COARSE). The finest scale
looks only as far as its convolutions reach, so that a tile with a halo of that width is enough, but for the means and
variances of its normalisations, which are those of the whole image. They are made layer by layer: in each pass over the
tiles one more layer has its sums, and a last pass gives the velocity (FIELD_FINEST). The result is that of the uncut
graph up to rounding; there are no seams.
"""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.conduction import Room

COARSE: Final = "model_coarse.onnx"
FINEST: Final = "model_finest.onnx"
HALO: Final = 6
"""Voxels: five convolutions of three, and even, as the coarser scale has half the voxels."""
Block = tuple[slice, slice, slice]
Tensors = dict[str, NDArray[Any]]
Graph = Callable[[Tensors], Mapping[str, NDArray[Any]]]


class Tile(NamedTuple):
    """A part of an image.

    Attributes:
        inner: what it stands for.
        outer: that and its halo, cut at the image's faces, where the network sees zeros as in the whole image.
    """

    inner: Block
    outer: Block

    @property
    def cut(self) -> Block:
        """The inner part within the outer."""
        return _block(slice(i.start - o.start, i.stop - o.start) for i, o in zip(self.inner, self.outer, strict=True))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the outer part."""
        return tuple(side.stop - side.start for side in self.outer)


def tiles_of(shape: tuple[int, ...], length: int, halo: int = HALO) -> list[Tile]:
    """Tiles with sides of at most `length`, which is even, that cover an image once."""
    sides = [[slice(a, min(a + length, n)) for a in range(0, n, length)] for n in shape]
    return [
        Tile(
            inner,
            _block(slice(max(0, s.start - halo), min(n, s.stop + halo)) for s, n in zip(inner, shape, strict=True)),
        )
        for inner in (_block(sides) for sides in product(*sides))
    ]


class TiledFlow:
    """One image on its way through both graphs: by `run`, or by the same steps where they go through queues.

    Args:
        distance: float32 [X, Y, Z], voxels to the wall in the conducting pores, 0 elsewhere; padded, flow along Z.
        estimate: float32 [X, Y, Z], velocity by conduction, likewise.
        length: of a tile.
        velocity: float32 [X, Y, Z], where the velocity is written if it is wanted.
        room: for what is as large as the image, or half as long.

    Attributes:
        velocity: [X, Y, Z], mean of the members; None unless wanted;
        flux: float64 [Z], the sum of the velocity over each slice, and
        member_flow: float64 [M, 1], each member's sum over the voxels, and
        fastest_outside: the largest velocity outside conducting pores; all complete after the last pass.
    """

    def __init__(
        self,
        distance: NDArray[np.float32],
        estimate: NDArray[np.float32],
        length: int,
        velocity: NDArray[np.float32] | None,
        room: Room,
    ) -> None:
        self.tiles = tiles_of(distance.shape, length)
        self.flux = np.zeros(distance.shape[2])
        self.member_flow = np.zeros((0, 1))
        self.fastest_outside = 0.0
        self.velocity = velocity
        self._distance, self._estimate, self._room = distance, estimate, room
        self._coarse = np.zeros((0, 0, 0, 0), np.float32)
        self._moments, self._sums = np.zeros((0, 0, 0, 2), np.float32), np.zeros((0, 0, 0, 2))
        self._settled = 0
        self._means = np.ones(2, np.float32)

    @property
    def passes(self) -> int:
        """Over the tiles: one for each layer that is normalised, and the last."""
        return self._moments.shape[1] + 1

    def coarse_tensors(self) -> Tensors:
        """Inputs of FIELD_COARSE, after the means over the pores have been found."""
        sums = np.sum([self._sums_in(tile.inner) for tile in self.tiles], axis=0)
        self._means = (sums[:2] / max(sums[2], 1.0)).astype(np.float32)
        half = tuple(n // 2 for n in self._distance.shape)
        distance, pore, relative = self._room(half), self._room(half), self._room(half)
        for tile in self.tiles:
            part, at = self._distance[tile.inner], _halved(tile.inner)
            distance[at], pore[at], relative[at] = map(_pooled, (part, part > 0.0, self._relative(tile.inner)))
        return {"distance": distance[None], "pore": pore[None], "relative": relative[None]}

    def take_coarse(self, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Outputs of FIELD_COARSE."""
        self._coarse = self._room(outputs["coarse"].shape)
        self._coarse[...] = outputs["coarse"]
        self._moments = outputs["moments"].copy()
        self._sums = np.zeros(self._moments.shape)
        self.member_flow = np.zeros((len(self._moments), 1))

    def tensors(self, tile: Tile) -> Tensors:
        """Inputs of FIELD_FINEST on a tile."""
        counted = np.zeros((1, *tile.shape), np.float32)
        counted[0][tile.cut] = 1.0
        return {
            "distance": np.ascontiguousarray(self._distance[tile.outer])[None],
            "relative": self._relative(tile.outer)[None],
            "counted": counted,
            "means": self._means,
            "coarse": np.ascontiguousarray(self._coarse[(slice(None), *_halved(tile.outer))]),
            "moments": self._moments,
        }

    def take(self, tile: Tile, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Outputs of FIELD_FINEST on a tile, in any order of the tiles."""
        if self._settled < self._moments.shape[1]:
            self._sums += outputs["sums"]
            return
        velocity = outputs["ratio"][(slice(None), *tile.cut)] * self._estimate[tile.inner]
        self.member_flow[:, 0] += velocity.sum(axis=(1, 2, 3), dtype=np.float64)
        mean = velocity.mean(axis=0)
        self.flux[tile.inner[2]] += mean.sum(axis=(0, 1), dtype=np.float64)
        outside = mean[self._distance[tile.inner] == 0.0]
        self.fastest_outside = max(self.fastest_outside, float(np.abs(outside).max(initial=0.0)))
        if self.velocity is not None:
            self.velocity[tile.inner] = mean

    def run(self, coarse: Graph, finest: Graph) -> None:
        """All of it, with both graphs at hand."""
        self.take_coarse(coarse(self.coarse_tensors()))
        for _ in range(self.passes):
            for tile in self.tiles:
                self.take(tile, finest(self.tensors(tile)))
            self.settle()

    def settle(self) -> None:
        """A pass is over: one more layer has its mean and variance."""
        if self._settled < self._moments.shape[1]:
            mean, square = (self._sums[:, self._settled, :, i] / self._distance.size for i in (0, 1))
            self._moments = self._moments.copy()
            self._moments[:, self._settled] = np.stack([mean, np.maximum(0.0, square - mean**2)], axis=-1)
            self._sums = np.zeros(self._moments.shape)
            self._settled += 1

    def _sums_in(self, block: Block) -> NDArray[np.float64]:
        """Over the pores of a part: (distance - 1/2)^2, estimate, 1."""
        distance = self._distance[block]
        pores = distance > 0.0
        square = ((distance[pores].astype(np.float64) - 0.5) ** 2).sum()
        return np.array([square, self._estimate[block].sum(dtype=np.float64), np.count_nonzero(pores)])

    def _relative(self, block: Block) -> NDArray[np.float32]:
        """What the networks see of the estimate in a part."""
        return np.asarray(np.log1p(np.maximum(self._estimate[block], 0.0) / self._means[1]), np.float32)


def _block(sides: Any) -> Block:
    x, y, z = sides
    return x, y, z


def _halved(block: Block) -> Block:
    return _block(slice(side.start // 2, side.stop // 2) for side in block)


def _pooled(field: NDArray[Any]) -> NDArray[np.float32]:
    """Mean over blocks of 2x2x2."""
    corners = [field[x::2, y::2, z::2] for x, y, z in product((0, 1), repeat=3)]
    return np.asarray(0.125 * sum(corner.astype(np.float32) for corner in corners), np.float32)
