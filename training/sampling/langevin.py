"""Langevin dynamics for exploring shapes: BAOAB (Leimkuhler and Matthews, Appl. Math. Res. eXpress 2013, 34)."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from ase.data import atomic_masses
from numpy.typing import NDArray

BOLTZMANN_EV: Final = 8.6173303e-05
FS_IN_ASE: Final = 1.0 / 10.180505710774743  # one fs in angstrom sqrt(u / eV)
Forces = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Walker:
    """Atoms on their way at constant temperature.

    Args:
        start: angstrom [n, 3].
        numbers: atomic numbers [n].
        kelvin: of the velocities at the start.
        step_fs: time step.
        friction_per_ps: of the bath.
        rng: of velocities and noise.
        masses: u [n]; default those of the elements.

    Attributes:
        positions: angstrom [n, 3].
        force: eV/angstrom [n, 3], to be set at the start and between `kick_and_drift` and `kick`.
    """

    def __init__(
        self,
        start: NDArray[np.float64],
        numbers: NDArray[np.int64],
        kelvin: float,
        step_fs: float,
        friction_per_ps: float,
        rng: np.random.Generator,
        masses: NDArray[np.float64] | None = None,
    ) -> None:
        self.positions = start.copy()
        self.force = np.zeros_like(start)
        self._rng = rng
        self._mass = (atomic_masses[numbers] if masses is None else masses)[:, None]
        self._dt = step_fs * FS_IN_ASE
        self._keep = np.exp(-friction_per_ps * 1e-3 * step_fs)
        self.velocities = self._thermal(kelvin)

    def kick_and_drift(self, kelvin: float) -> None:
        """B A O A, in a bath of this temperature."""
        self.kick()
        self.positions += 0.5 * self._dt * self.velocities
        self.velocities = self._keep * self.velocities + np.sqrt(1.0 - self._keep**2) * self._thermal(kelvin)
        self.positions += 0.5 * self._dt * self.velocities

    def kick(self) -> None:
        """B, by the force of this place."""
        self.velocities += 0.5 * self._dt * self.force / self._mass

    def _thermal(self, kelvin: float) -> NDArray[np.float64]:
        """Velocities of a temperature."""
        return np.sqrt(BOLTZMANN_EV * kelvin / self._mass) * self._rng.normal(size=self.positions.shape)


def langevin(
    start: NDArray[np.float64],
    numbers: NDArray[np.int64],
    forces: Forces,
    kelvin: float,
    frames: int,
    steps_between: int,
    seed: int,
    *,
    step_fs: float = 0.5,
    friction_per_ps: float = 10.0,
) -> Iterator[NDArray[np.float64]]:
    """Frames of a trajectory of one structure.

    Args:
        start: angstrom [n, 3].
        numbers: atomic numbers [n].
        forces: eV/angstrom [n, 3] of positions.
        kelvin: of the bath and of the velocities at the start.
        frames: how many.
        steps_between: steps from one frame to the next.
        seed: of velocities and noise.
        step_fs: time step.
        friction_per_ps: of the bath.

    Yields:
        Positions, angstrom [n, 3], about their centre; it ends early when they are no longer finite.
    """
    walker = Walker(start, numbers, kelvin, step_fs, friction_per_ps, np.random.default_rng(seed))
    walker.force = forces(walker.positions)
    for _ in range(frames):
        for _ in range(steps_between):
            walker.kick_and_drift(kelvin)
            walker.force = forces(walker.positions)
            walker.kick()
        if not np.isfinite(walker.positions).all():
            return
        yield walker.positions - walker.positions.mean(axis=0)
