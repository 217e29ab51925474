"""Flow through images that are too large for one engine call: prepared in parts, run in tiles through the lanes.

Each tile is an item of its own in its lane, so that others are answered between tiles. What is as large as the image
lies on disk (service/spool.py); in memory are its bits, and the tiles that are under way.
"""

import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from contract.conduction import Flag, Room, conduct
from contract.flow import Geometry
from contract.packed import PackedImage, blocks_of, conducting_along, wall_distance_in
from contract.tiles import COARSE, FINEST, Block, Tile, TiledFlow
from contract.voxels import flow_last
from service.families.field import FlowPrediction
from service.lanes import Terms
from service.models import FieldModel
from service.models.fields import TensorSample
from service.spool import Scratch
from service.stopping import stopping

T = TypeVar("T")
Progress = Callable[[int, int], None]


@dataclass(slots=True)
class Steps:
    """How far a request has come.

    Attributes:
        total: parts to prepare, and engine calls.
        tell: is told of each.
    """

    total: int
    tell: Progress | None
    done: int = 0

    def step(self) -> None:
        """One more is done."""
        self.done += 1
        if self.tell is not None:
            self.tell(self.done, self.total)


@dataclass(frozen=True, slots=True)
class TiledQuestion:
    """An image that is asked in tiles.

    Attributes:
        length: of a tile, even.
        ahead: tiles that are under way at once.
    """

    model: FieldModel
    image: PackedImage
    axes: Sequence[int]
    keep_field: bool
    terms: Terms
    length: int
    ahead: int
    encoders: Executor
    scratch: Scratch
    tell: Progress | None = None

    async def answers(self) -> list[FlowPrediction]:
        """The answer along each axis.

        Raises:
            ServiceError: of any of its calls.
        """
        deadline = asyncio.get_running_loop().time() + self.terms.timeout_s
        conducting = await self._apart(conducting_along, self.image, self.axes)
        steps = Steps(sum(self._steps(axis) for axis in self.axes if conducting[axis].count), self.tell)
        found = []
        for axis in self.axes:
            with self.scratch.part() as part:
                found.append(await self._along(axis, conducting[axis], part.room, steps, deadline))
        return found

    async def _along(
        self, axis: int, conducting: PackedImage, room: Room, steps: Steps, deadline: float
    ) -> FlowPrediction:
        family = self.model.family
        if not conducting.count:
            return family.without_flow(self._geometry(axis, conducting, 0.0), self.keep_field)
        distance = room(self._padded(axis))
        squares = 0.0
        for block in blocks_of(self.image.shape, self.length):
            squares += await self._apart(self._prepare, axis, conducting, block, distance)
            steps.step()
        estimate = room(distance.shape)
        with stopping(deadline, self.terms.timeout_s) as stop, self.scratch.part() as part:
            solved = await self._apart(self._estimate, axis, conducting, estimate, stop, part.room)
        steps.step()
        field = self.scratch.room(distance.shape) if self.keep_field else None
        flow = TiledFlow(distance, estimate, self.length, field, room)
        geometry = self._geometry(axis, conducting, math.sqrt(squares / conducting.count), solved)
        await self._run(flow, steps, deadline)
        velocity = None if field is None else _as_image(field, geometry)
        flux = flow.flux[: geometry.shape[axis]]
        return family.predicted(geometry, flow.member_flow, flux, flow.fastest_outside, velocity, tiles=len(flow.tiles))

    async def _run(self, flow: TiledFlow, steps: Steps, deadline: float) -> None:
        """Both graphs, through their lanes."""
        flow.take_coarse(await self._call(COARSE, await self._apart(flow.coarse_tensors), deadline))
        steps.step()
        taking = asyncio.Lock()
        for _ in range(flow.passes):
            left = iter(flow.tiles)
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(self.ahead):
                        group.create_task(self._work(flow, left, taking, steps, deadline))
            except ExceptionGroup as failed:
                raise failed.exceptions[0] from None
            flow.settle()

    async def _work(
        self, flow: TiledFlow, left: Iterator[Tile], taking: asyncio.Lock, steps: Steps, deadline: float
    ) -> None:
        """One tile after another, as long as there are some."""
        for tile in left:
            outputs = await self._call(FINEST, await self._apart(flow.tensors, tile), deadline)
            async with taking:
                await self._apart(flow.take, tile, outputs)
            self.scratch.let_go()
            steps.step()

    async def _call(self, file: str, tensors: dict[str, NDArray[Any]], deadline: float) -> dict[str, NDArray[Any]]:
        terms = replace(self.terms, work=None).with_left(deadline - asyncio.get_running_loop().time())
        sample = TensorSample(tensors, tensors["distance"].size)
        (outputs,) = await self.model.lanes[file].submit([sample], terms)
        return dict(outputs)

    def _prepare(self, axis: int, conducting: PackedImage, block: Block, distance: NDArray[np.float32]) -> float:
        """Distances in a part, the flow last, and the sum of (distance - 1/2)^2 over its pores."""
        where = conducting.block(block)
        part = wall_distance_in(self.image, axis, block, where)
        x, y, z = _flow_last(block, axis)
        distance[x, y, z] = np.moveaxis(part, axis, -1)
        self.scratch.let_go()
        return float(((part[where].astype(np.float64) - 0.5) ** 2).sum())

    def _estimate(
        self, axis: int, conducting: PackedImage, estimate: NDArray[np.float32], stop: Flag, room: Room
    ) -> bool:
        """Velocity by conduction, the flow last; whether it was solved. The one thing that no tile can do by itself."""
        found = conduct(flow_last(conducting.unpacked(), axis), stop=stop, room=room)
        x, y, z = found.velocity.shape
        for i in range(x):
            estimate[i, :y, :z] = found.velocity[i]
        self.scratch.let_go()
        return found.solved

    def _steps(self, axis: int) -> int:
        blocks, tiles = (
            math.prod(-(-n // self.length) for n in shape) for shape in (self.image.shape, self._padded(axis))
        )
        return blocks + 2 + self.model.passes * tiles

    def _padded(self, axis: int) -> tuple[int, ...]:
        divisor = self.model.card.divisor
        return tuple(n + -n % divisor for n in _flow_last(self.image.shape, axis))

    def _geometry(self, axis: int, conducting: PackedImage, length_scale: float, solved: bool = True) -> Geometry:
        return Geometry(
            axis=axis,
            shape=self.image.shape,
            padded=self._padded(axis),
            porosity=self.image.porosity,
            connected_porosity=conducting.porosity,
            surface=conducting.surface,
            length_scale=length_scale,
            solved=solved,
        )

    async def _apart(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self.encoders, work, *arguments)


def _flow_last(sides: Sequence[T], axis: int) -> list[T]:
    return [side for a, side in enumerate(sides) if a != axis] + [sides[axis]]


def _as_image(velocity: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """Without padding, its axes those of the image."""
    turned = np.moveaxis(velocity, -1, geometry.axis)
    x, y, z = geometry.shape
    return turned[:x, :y, :z]
