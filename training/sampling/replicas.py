"""Many short trajectories in one batch, each with its own temperature and density over time, until something happens.

Smith et al., Nat. Commun. 12, 1257 (2021): the potential in training explores from disordered cells; its committee says
when a frame is new. Dynamics runs on the mean force; checks look at the members.

    T(t) = T_s + (t / t_max) (T_e - T_s) + A sin^2(pi t / tau), and density likewise
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from contract.errors import UnderstudyError
from contract.graphs import Graph, build_graph
from contract.structures import Structure, checked_structure
from training.sampling.langevin import Walker

End = Literal["energy", "force", "close", "survived", "not finite"]
FORCE_PEAK: Final = 3.0


@dataclass(frozen=True, slots=True)
class Course:
    """A quantity over time: start, end, amplitude and period (fs) of its swing."""

    start: float
    end: float
    amplitude: float
    period_fs: float

    def at(self, time_fs: float, length_fs: float) -> float:
        """Its value."""
        swing = self.amplitude * np.sin(np.pi * time_fs / self.period_fs) ** 2
        return float(self.start + time_fs / length_fs * (self.end - self.start) + swing)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a trajectory begins and how it is driven: in kelvin, and a density relative to its start."""

    structure: Structure
    temperature: Course
    density: Course


@dataclass(frozen=True, slots=True)
class Limits:
    """When a trajectory ends.

    Attributes:
        energy_std: eV a root of the atoms, of the committee's energy.
        force_std: eV/angstrom, mean over components; a component may reach three times as much.
        closest: angstrom; nearer atoms end the trajectory without a label.
    """

    energy_std: float
    force_std: float
    closest: float


@dataclass(frozen=True, slots=True)
class Dynamics:
    """How trajectories are integrated."""

    step_fs: float = 2.0
    check_every: int = 10
    length_fs: float = 5000.0
    friction_per_ps: float = 1.96


@dataclass(frozen=True, slots=True)
class Ended:
    """The frame at which a trajectory ended, when, and why; stds as in Limits, NaN if not taken."""

    structure: Structure
    reason: End
    time_fs: float
    energy_std: float
    force_std: float


class Frame(NamedTuple):
    """A structure as it is now, with its neighbours: networks look at these, reference calculators at the former."""

    structure: Structure
    graph: Graph


class Driver(Protocol):
    """What drives trajectories."""

    @property
    def cutoff(self) -> float:
        """Angstrom, of the neighbours in each frame."""

    def forces(self, frames: Sequence[Frame]) -> NDArray[np.float64]:
        """Mean force, eV/angstrom [A, 3], structures concatenated."""


class Committee(Driver, Protocol):
    """What drives the trajectories and what judges them."""

    def spread(self, frames: Sequence[Frame]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Sample std (ddof = 1) of each structure's energy, eV [n], and of each force component, [A, 3]."""


class _Replica(Walker):
    """One trajectory on its way."""

    def __init__(self, start: Start, how: Dynamics, rng: np.random.Generator, cutoff: float) -> None:
        structure = start.structure
        kelvin = start.temperature.start
        super().__init__(structure.positions, structure.numbers, kelvin, how.step_fs, how.friction_per_ps, rng)
        self.start, self.how, self.cutoff, self.kelvin = start, how, cutoff, kelvin
        self.cell = None if structure.cell is None else structure.cell.copy()
        self.frame = Frame(structure, build_graph(structure, cutoff))

    def structure(self) -> Structure:
        """The frame as it is now."""
        return checked_structure(self.start.structure.numbers, self.positions, self.cell, self.start.structure.pbc)

    def drive(self, time_fs: float) -> None:
        """Set the thermostat, and scale the cell to the density of this moment."""
        length_fs = self.how.length_fs
        self.kelvin = max(0.0, self.start.temperature.at(time_fs, length_fs))
        if self.cell is None or self.start.structure.cell is None:
            return
        wanted = self.start.density.at(time_fs, length_fs) / self.start.density.at(0.0, length_fs)
        volume = abs(np.linalg.det(self.start.structure.cell)) / wanted
        scale = (volume / abs(np.linalg.det(self.cell))) ** (1.0 / 3.0)
        self.cell *= scale
        self.positions *= scale


def explore(starts: Sequence[Start], committee: Committee, limits: Limits, how: Dynamics, seed: int) -> list[Ended]:
    """Run trajectories side by side until each has ended; the same seed gives the same frames.

    Args:
        starts: one a trajectory.
        committee: mean forces, and spreads at each check.
        limits: when to stop one.
        how: steps and length.
        seed: of velocities and noise; each trajectory has its own stream.
    """
    replicas = [_Replica(s, how, np.random.default_rng([seed, i]), committee.cutoff) for i, s in enumerate(starts)]
    running, ended = dict(enumerate(replicas)), dict[int, Ended]()
    _set_forces(running, committee)
    for step in range(round(how.length_fs / how.step_fs)):
        time_fs = step * how.step_fs
        if step % how.check_every == 0:
            _move(running, ended, _ends(running, committee, limits, time_fs))
            for replica in running.values():
                replica.drive(time_fs)
        for replica in running.values():
            replica.kick_and_drift(replica.kelvin)
        _move(running, ended, _broken(running, time_fs))
        if not running:
            break
        _set_forces(running, committee)
        for replica in running.values():
            replica.kick()
    for i, replica in running.items():
        ended[i] = Ended(replica.structure(), "survived", how.length_fs, np.nan, np.nan)
    return [ended[i] for i in range(len(starts))]


def _move(running: dict[int, _Replica], ended: dict[int, Ended], found: dict[int, Ended]) -> None:
    ended.update(found)
    for i in found:
        del running[i]


def _broken(running: dict[int, _Replica], time_fs: float) -> dict[int, Ended]:
    """Trajectories that have no frame any more: positions not finite, or two atoms in one place."""
    found = {}
    for i, replica in running.items():
        reason: End | None = None
        if not np.isfinite(replica.positions).all() or not np.isfinite(replica.velocities).all():
            reason = "not finite"
        else:
            try:
                structure = replica.structure()
                replica.frame = Frame(structure, build_graph(structure, replica.cutoff))
            except UnderstudyError:
                reason = "close"
        if reason is not None:
            found[i] = Ended(replica.start.structure, reason, time_fs, np.nan, np.nan)
    return found


def _set_forces(running: dict[int, _Replica], committee: Committee) -> None:
    frames = [replica.frame for replica in running.values()]
    for replica, force in zip(running.values(), _parts(committee.forces(frames), frames), strict=True):
        replica.force = force


def _ends(running: dict[int, _Replica], committee: Committee, limits: Limits, time_fs: float) -> dict[int, Ended]:
    """Which trajectories end now, and why."""
    frames = [replica.frame for replica in running.values()]
    if not frames:
        return {}
    energy_std, component_std = committee.spread(frames)
    found = {}
    parts = _parts(component_std, frames)
    for (i, replica), frame, s_e, part in zip(running.items(), frames, energy_std, parts, strict=True):
        s_e = float(s_e) / np.sqrt(len(frame.structure))
        reason = _reason(float(frame.graph.nearest_distance.min()), s_e, part, limits)
        if reason is not None:
            found[i] = Ended(replica.structure(), reason, time_fs, s_e, float(part.mean()))
    return found


def _parts(values: NDArray[np.float64], frames: Sequence[Frame]) -> list[NDArray[np.float64]]:
    """What belongs to the atoms of each frame."""
    return np.split(values, np.cumsum([len(frame.structure) for frame in frames])[:-1])


def _reason(closest: float, energy_std: float, force_std: NDArray[np.float64], limits: Limits) -> End | None:
    if closest < limits.closest:
        return "close"
    if energy_std > limits.energy_std:
        return "energy"
    if force_std.mean() > limits.force_std or force_std.max() > FORCE_PEAK * limits.force_std:
        return "force"
    return None
