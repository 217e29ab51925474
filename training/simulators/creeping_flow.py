"""Creeping flow through the pores of a voxel image: lattice Boltzmann with two relaxation times, on pore nodes alone.

D3Q19 with the linear equilibrium, so that the answer is exactly proportional to the force, and half-way bounce-back at
the walls. The even moments relax with tau+, which sets the viscosity nu = (tau+ - 1/2) / 3; the odd ones with the tau-
that keeps (tau+ - 1/2)(tau- - 1/2) at 3/16. Then a plane wall lies exactly half way between the nodes and the
permeability does not depend on the viscosity (Ginzburg & d'Humieres, Phys. Rev. E 68, 066614 (2003)): tau+ is free, and
is chosen for speed. Single relaxation (BGK) lacks this and is not offered.

No compiler is needed, and the solid costs nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from contract.conduction import conduct
from contract.units import permeability_in_units
from contract.voxels import Image, length_scale_squared, pores_of, wall_distance

Ends = Literal["mirror", "periodic"]
Progress = Callable[[int, float], None]

MAGIC: Final = 3.0 / 16.0
SOLVER: Final = "lattice Boltzmann, D3Q19, two relaxation times, magic parameter 3/16, half-way bounce-back"
SOLVER_VERSION: Final = "2"
_HALF: Final = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, -1, 0), (1, 0, 1), (1, 0, -1), (0, 1, 1), (0, 1, -1))
VELOCITIES: Final = np.array([(0, 0, 0), *(c for v in _HALF for c in (v, tuple(-i for i in v)))], np.int64)
OPPOSITE: Final = np.array([0, *(i + 1 if i % 2 else i - 1 for i in range(1, 19))])
WEIGHTS: Final = np.array([1 / 3] + 6 * [1 / 18] + 12 * [1 / 36])
GUESS: Final = 0.09
"""Permeability over connected porosity and length scale to the fourth, 1/voxel^2; from overlapping spheres."""
SLOWER: Final = 0.8
"""A steady flow over its estimate by conduction; from random media."""
_PAIRS: Final = np.array(_HALF, np.float64)
_LANES: Final = 128


class Solver(BaseModel):
    """How a flow is solved, and when it counts as steady."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    relaxation: float | None = Field(None, gt=0.5, description="tau+; null chooses it for speed by the pores' width")
    tolerance: float = Field(1e-4, gt=0, description="estimated relative error of the permeability left to go")
    flux_tolerance: float = Field(
        1e-3, gt=0, description="standard deviation of the flux over the slices, over its mean"
    )
    every: int = Field(50, ge=2, description="steps between two looks at the permeability")
    max_steps: int = Field(40_000, ge=2)


@dataclass(frozen=True, slots=True, eq=False)
class Flow:
    """Steady flow along one axis.

    Attributes:
        velocity: float64, shaped as the image: the component along the axis times viscosity over driving force,
            voxel^2; 0 in the solid and in pores that do not conduct.
        permeability: its mean over all voxels, voxel^2.
        flux: float64 [n], its sum over each slice across the axis, voxel^4.
        axis, ends: what was driven, and how the image goes on at its faces.
        relaxation: tau+.
        steps: taken.
        change: estimated relative distance of the permeability from its steady value.
        converged: change and flux_std are within the tolerances; if not, this is no label.
    """

    velocity: NDArray[np.float64]
    permeability: float
    flux: NDArray[np.float64]
    axis: int
    ends: Ends
    relaxation: float
    steps: int
    change: float
    converged: bool

    @property
    def flux_std(self) -> float:
        """Standard deviation of the flux over the slices, over its mean; 0 for an exact steady state."""
        return float(self.flux.std() / self.flux.mean()) if self.permeability else 0.0

    def in_units(self, voxel_size_um: float) -> dict[str, float]:
        """The permeability as k_voxel2, k_m2 and k_mD, for voxels of this size in micrometres."""
        return permeability_in_units(self.permeability, voxel_size_um)


def solve_flow(
    image: Image, axis: int, ends: Ends = "mirror", solver: Solver | None = None, progress: Progress | None = None
) -> Flow:
    """Drive a fluid through an image by a uniform force along one axis until the flow is steady.

    Args:
        image: bool [nx, ny, nz], True = pore.
        axis: 0, 1 or 2.
        ends: `mirror`, a core in a sleeve: solid on the four sides, and beyond both ends the mirror image, which is the
            same as constant pressure over each end and flow normal to it; or `periodic` at every face.
        solver: its settings.
        progress: told of the steps and the relative change now and then.

    Returns:
        The flow; nothing is solved where no pore conducts: then the permeability is 0.
    """
    solver = solver or Solver()
    periodic = ends == "periodic"
    pores = pores_of(image, axis, periodic)
    if not pores.percolates:
        zeros = np.zeros(image.shape[axis])
        return Flow(np.zeros(image.shape), 0.0, zeros, axis, ends, solver.relaxation or 1.0, 0, 0.0, True)
    pore = np.ascontiguousarray(np.moveaxis(pores.conducting, axis, -1))
    nodes, start = _Nodes.of(pore, periodic), _at_rest(image, pore, axis) if periodic else _estimated(pore)
    speed, relaxation, steps, change, steady = _march(
        nodes, pore, start, solver, progress or (lambda steps, change: None)
    )
    velocity = np.zeros(pore.shape)
    velocity[pore] = speed
    flux = velocity.sum(axis=(0, 1))
    return Flow(
        np.ascontiguousarray(np.moveaxis(velocity, -1, axis)), float(velocity.mean()), flux, axis, ends, relaxation,
        steps, change, steady,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Start:
    """Where a flow sets out from.

    Attributes:
        velocity: float64 [n] of the pore nodes, along the axis, voxel^2.
        pressure: float64 [n], beyond what the driving force balances, over this force, voxels.
        relaxation: the tau+ for which it becomes steady soonest, as a rule.
    """

    velocity: NDArray[np.float64]
    pressure: NDArray[np.float64]
    relaxation: float


def _at_rest(image: Image, pore: Image, axis: int) -> _Start:
    """Of a periodic image, whose permeability is guessed from the width of its pores."""
    scale = length_scale_squared(wall_distance(image, axis, periodic=True), np.moveaxis(pore, -1, axis))
    zeros = np.zeros(np.count_nonzero(pore))
    return _Start(zeros, zeros, _fast_relaxation(GUESS * scale * scale, 2.0 * np.pi / pore.shape[2]))


def _estimated(pore: Image) -> _Start:
    """From conduction, which has the long waves of the pressure: those that are left are about half as long."""
    estimate = conduct(pore)
    connected = float(pore.mean())
    relaxation = _fast_relaxation(SLOWER * estimate.permeability / connected, 2.0 * np.pi / pore.shape[2])
    height = np.nonzero(pore)[2] + 0.5
    return _Start(SLOWER * estimate.velocity[pore].astype(np.float64), height - estimate.pressure, relaxation)


def _fast_relaxation(permeability: float, wave_number: float) -> float:
    """The tau+ for which a pressure wave decays soonest.

    A wave of wave number q decays by s^2 + (nu phi / k) s + (c q)^2 = 0 with c^2 = 1/3: too thick a fluid lets pressure
    creep through narrow pores, too thin a one lets it slosh. Between them lies nu = 2 c q k / phi.

    Args:
        permeability: over the porosity, voxel^2; a bad guess costs time, not accuracy.
        wave_number: of the longest wave, 1/voxel.
    """
    viscosity = 2.0 / np.sqrt(3.0) * wave_number * permeability
    return float(np.clip(0.5 + 3.0 * viscosity, 0.51, 1.0))


@dataclass(frozen=True, slots=True, eq=False)
class _Nodes:
    """Where each population of each pore node comes from.

    Attributes:
        source: int32 [19, n], index into the populations [19 * n + links].
        reflected: int64 [links], index of the population whose negative enters through an open end.
    """

    source: NDArray[np.int32]
    reflected: NDArray[np.int64]

    @classmethod
    def of(cls, pore: Image, periodic: bool) -> "_Nodes":
        """Pull from the neighbour; from the node itself, reversed, if that is solid; or through an open end.

        With the force reversed, the mirror image of a steady flow is a steady flow; so, by linearity, what comes
        through an end is the negative of what leaves it in the mirrored direction.
        """
        n = int(pore.sum())
        index = np.full(pore.shape, -1, np.int64)
        index[pore] = np.arange(n)
        index = index if periodic else np.pad(index, ((1, 1), (1, 1), (0, 0)), constant_values=-1)
        inside = (slice(None),) * 3 if periodic else (slice(1, -1), slice(1, -1), slice(None))
        own, source, reflected = np.arange(n), np.empty((19, n), np.int64), []
        at_end = (np.nonzero(pore)[2] == 0, np.nonzero(pore)[2] == pore.shape[2] - 1)
        links = 0
        for i, c in enumerate(VELOCITIES):
            beyond = np.roll(index, tuple(c), axis=(0, 1, 2))[inside][pore]
            source[i] = np.where(beyond >= 0, i * n + beyond, OPPOSITE[i] * n + own)
            if periodic or c[2] == 0:
                continue
            enters = at_end[0] if c[2] > 0 else at_end[1]
            level = np.roll(index, (*c[:2], 0), axis=(0, 1, 2))[inside][pore]
            through = np.flatnonzero(enters & (level >= 0))
            reflected.append(_mirrored(i) * n + level[through])
            source[i, enters] = OPPOSITE[i] * n + own[enters]
            source[i, through] = 19 * n + links + np.arange(len(through))
            links += len(through)
        return cls(source.astype(np.int32), np.concatenate([np.zeros(0, np.int64), *reflected]))


def _mirrored(direction: int) -> int:
    """The velocity with its last component reversed."""
    wanted = VELOCITIES[direction] * (1, 1, -1)
    return int(np.flatnonzero((wanted == VELOCITIES).all(axis=1))[0])


def _march(
    nodes: _Nodes, pore: Image, start: _Start, solver: Solver, progress: Progress
) -> tuple[NDArray[np.float64], float, int, float, bool]:
    """Step until steady: velocities of the pore nodes in voxel^2, tau+, steps, relative change left, whether steady."""
    n, slices, relaxation = nodes.source.shape[1], np.nonzero(pore)[2], solver.relaxation or start.relaxation
    viscosity, odd = (relaxation - 0.5) / 3.0, MAGIC / (relaxation - 0.5) + 0.5
    now = np.zeros(19 * n + len(nodes.reflected))
    momentum = start.velocity / viscosity - 0.5  # raw: half the force is yet to come
    for i, (weight, c) in enumerate(zip(WEIGHTS, VELOCITIES[:, 2], strict=True)):
        now[i * n : (i + 1) * n] = 3.0 * weight * (start.pressure + c * momentum)
    then, odd_step, even_step, means = now.copy(), np.empty(n), np.empty(n), [0.0, 0.0]
    steps, change, steady = 0, np.inf, False
    while not steady and steps < solver.max_steps:
        for _ in range(solver.every // 2):
            _step(now, then, nodes.source, nodes.reflected, 1.0 / relaxation, 1.0 / odd, odd_step, _PAIRS)
            _step(then, now, nodes.source, nodes.reflected, 1.0 / relaxation, 1.0 / odd, even_step, _PAIRS)
        speed = 0.5 * (odd_step + even_step)  # without what turns its sign at each step, in corners, for ever
        steps += solver.every // 2 * 2
        means.append(float(speed.mean()))
        change = _left_to_go(means)
        if change < solver.tolerance:
            flux = np.bincount(slices, speed, pore.shape[2])
            steady = bool(flux.std() < solver.flux_tolerance * flux.mean())
        progress(steps, change)
    return viscosity * speed, relaxation, steps, change, steady


def _left_to_go(means: list[float]) -> float:
    """The rest of the geometric series that the last two differences begin, over the mean; a rate is no error bound."""
    before, last = means[-2] - means[-3], means[-1] - means[-2]
    ratio = abs(last / before) if before else np.inf
    if ratio >= 1.0 or len(means) < 5:
        return np.inf
    return abs(last) * ratio / (1.0 - ratio) / abs(means[-1])


@njit(cache=True, nogil=True, fastmath=True)
def _step(  # pragma: no cover (compiled)
    old: NDArray[np.float64],
    new: NDArray[np.float64],
    source: NDArray[np.int32],
    reflected: NDArray[np.int64],
    even: float,
    odd: float,
    speed: NDArray[np.float64],
    pairs: NDArray[np.float64],
) -> None:
    """Pull, collide and force all nodes once, by groups that fit into the vector units; force 1 along z."""
    n, first = source.shape[1], 19 * source.shape[1]
    for link in range(len(reflected)):
        old[first + link] = -old[reflected[link]]
    pull = 1.0 - 0.5 * odd
    f, rho, momentum = np.empty((19, _LANES)), np.empty(_LANES), np.empty((3, _LANES))
    for start in range(0, n, _LANES):
        lanes = min(_LANES, n - start)
        for i in range(19):
            for k in range(lanes):
                f[i, k] = old[source[i, start + k]]
        for k in range(lanes):
            rho[k] = f[0, k]
            momentum[0, k], momentum[1, k], momentum[2, k] = 0.0, 0.0, 0.5
        for p in range(9):
            cx, cy, cz = pairs[p, 0], pairs[p, 1], pairs[p, 2]
            forth, back = f[2 * p + 1], f[2 * p + 2]
            for k in range(lanes):
                rho[k] += forth[k] + back[k]
                difference = forth[k] - back[k]
                momentum[0, k] += cx * difference
                momentum[1, k] += cy * difference
                momentum[2, k] += cz * difference
        for k in range(lanes):
            speed[start + k] = momentum[2, k]
            momentum[0, k], momentum[1, k] = 3.0 * odd * momentum[0, k], 3.0 * odd * momentum[1, k]
            momentum[2, k] = 3.0 * (odd * momentum[2, k] + pull)
            new[start + k] = f[0, k] - even * (f[0, k] - rho[k] / 3.0)
        for p in range(9):
            weight = 1.0 / 18.0 if p < 3 else 1.0 / 36.0
            cx, cy, cz = weight * pairs[p, 0], weight * pairs[p, 1], weight * pairs[p, 2]
            forth, back = f[2 * p + 1], f[2 * p + 2]
            to_forth, to_back = (2 * p + 1) * n + start, (2 * p + 2) * n + start
            for k in range(lanes):
                both = even * (weight * rho[k] - 0.5 * (forth[k] + back[k]))
                one = cx * momentum[0, k] + cy * momentum[1, k] + cz * momentum[2, k]
                one -= 0.5 * odd * (forth[k] - back[k])
                new[to_forth + k] = forth[k] + both + one
                new[to_back + k] = back[k] + both - one
