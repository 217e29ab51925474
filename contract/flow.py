"""An image to the tensors of a `field` graph, and the graph's answer back to the image.

A graph sees the flow along its last axis, conducting pores alone, and lengths that are multiples of its divisor: solid
is added at the high ends and cut off again. Beside the distance to the wall, which tells what is near, it is given an
estimate of the flow by conduction, which tells how everything is connected.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.conduction import Flag, conduct
from contract.voxels import (
    Image,
    Pores,
    flow_last,
    length_scale_squared,
    padded,
    pores_of,
    specific_surface,
    wall_distance,
)

Tensors = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Geometry:
    """What an image is to flow along one axis, in numbers.

    Attributes:
        axis: 0, 1 or 2.
        shape: of the image.
        padded: lengths that a graph is given, the flow last.
        porosity, connected_porosity: pores, and those that conduct, over all voxels.
        surface: faces between conducting pores and all else over all voxels, 1/voxel.
        length_scale: voxels, root of the mean over the conducting pores of (distance - 1/2)^2; 0 where none conduct.
        solved: whether the equation of the estimate was, within its tolerance.
    """

    axis: int
    shape: tuple[int, ...]
    padded: tuple[int, ...]
    porosity: float
    connected_porosity: float
    surface: float
    length_scale: float
    solved: bool = True

    @property
    def percolates(self) -> bool:
        """Whether anything can flow."""
        return self.connected_porosity > 0.0


@dataclass(frozen=True, slots=True, eq=False)
class FlowInputs:
    """What a graph is asked about flow along one axis of an image.

    Attributes:
        axis: 0, 1 or 2.
        pores: which pores conduct along it; where none do there is nothing to ask.
        distance: float32 [X, Y, Z], voxels to the wall in the conducting pores, flow last, padded; and
        pore: float32, likewise, 1 in them.
        estimate: float32, likewise, velocity by conduction (contract/conduction.py), voxel^2.
        solved: whether the equation of the estimate was, within its tolerance.
        length_scale: voxels, root of the mean over them of (distance - 1/2)^2; 0 where none conduct.
    """

    axis: int
    pores: Pores
    distance: NDArray[np.float32]
    pore: NDArray[np.float32]
    estimate: NDArray[np.float32]
    solved: bool
    length_scale: float

    @property
    def geometry(self) -> Geometry:
        """The image in numbers."""
        return Geometry(
            axis=self.axis,
            shape=self.pores.conducting.shape,
            padded=self.pore.shape,
            porosity=self.pores.porosity,
            connected_porosity=self.pores.connected_porosity,
            surface=specific_surface(self.pores.conducting),
            length_scale=self.length_scale,
            solved=self.solved,
        )

    @property
    def voxels(self) -> int:
        """Voxels that the graph is given."""
        return self.pore.size

    @property
    def estimated_permeability(self) -> float:
        """By conduction, voxel^2."""
        return float(self.estimate.sum(dtype=np.float64) / self.pores.conducting.size)

    def tensors(self) -> Tensors:
        """A batch of one, see contract/signatures.py."""
        return {"distance": self.distance[None], "pore": self.pore[None], "estimate": self.estimate[None]}

    def permeabilities(self, member_flow: NDArray[np.float64]) -> NDArray[np.float64]:
        """Each member's permeability, voxel^2 [M], from what the graph calls `member_flow` [M, 1]."""
        return np.asarray(member_flow[:, 0] / self.pores.conducting.size)

    def field(self, velocity: NDArray[np.float32]) -> NDArray[np.float32]:
        """The velocity [1, X, Y, Z], voxel^2, shaped and turned as the image is."""
        shape = flow_last(self.pores.conducting, self.axis).shape
        cut = velocity[0, : shape[0], : shape[1], : shape[2]]
        return np.ascontiguousarray(np.moveaxis(cut, -1, self.axis))


def flow_inputs(image: Image, axis: int, divisor: int, stop: Flag | None = None) -> FlowInputs:
    """What to ask about flow along an axis of an image; a core in a sleeve (contract/voxels.py).

    Raises:
        Stopped: `stop` was set meanwhile (contract/conduction.py).
    """
    pores = pores_of(image, axis)
    distance = np.where(pores.conducting, wall_distance(image, axis), np.float32(0.0))
    scale = np.sqrt(length_scale_squared(distance, pores.conducting)) if pores.percolates else 0.0
    pore = flow_last(pores.conducting, axis)
    estimate = conduct(pore, stop=stop)
    return FlowInputs(
        axis=axis,
        pores=pores,
        distance=padded(flow_last(distance, axis), divisor),
        pore=padded(pore.astype(np.float32), divisor),
        estimate=padded(estimate.velocity, divisor),
        solved=estimate.solved,
        length_scale=float(scale),
    )
