"""Langevin dynamics of one structure, for exploring shapes: BAOAB (Leimkuhler and Matthews, AMRX 2013, 34)."""

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from ase.data import atomic_masses
from numpy.typing import NDArray

BOLTZMANN_EV: Final = 8.6173303e-05
FS_IN_ASE: Final = 1.0 / 10.180505710774743  # one fs in angstrom sqrt(u / eV)
Forces = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def langevin(
    start: NDArray[np.float64],
    numbers: NDArray[np.int64],
    forces: Forces,
    temperature: float,
    frames: int,
    steps_between: int,
    seed: int,
    *,
    step_fs: float = 0.5,
    friction_per_ps: float = 10.0,
) -> Iterator[NDArray[np.float64]]:
    """Frames of a trajectory at constant temperature.

    Args:
        start: angstrom [n, 3].
        numbers: atomic numbers [n].
        forces: eV/angstrom [n, 3] of positions.
        temperature: kelvin, of the bath and of the velocities at the start.
        frames: how many.
        steps_between: steps from one frame to the next.
        seed: of velocities and noise.
        step_fs: time step.
        friction_per_ps: of the bath.

    Yields:
        Positions, angstrom [n, 3], about their centre; it ends early when they are no longer finite.
    """
    rng = np.random.default_rng(seed)
    mass = atomic_masses[numbers][:, None]
    dt = step_fs * FS_IN_ASE
    keep = np.exp(-friction_per_ps * 1e-3 * step_fs)
    thermal = np.sqrt(BOLTZMANN_EV * temperature / mass)
    x, v = start.copy(), thermal * rng.normal(size=start.shape)
    f = forces(x)
    for _ in range(frames):
        for _ in range(steps_between):
            v += 0.5 * dt * f / mass
            x += 0.5 * dt * v
            v = keep * v + np.sqrt(1.0 - keep**2) * thermal * rng.normal(size=v.shape)
            x += 0.5 * dt * v
            f = forces(x)
            v += 0.5 * dt * f / mass
        if not np.isfinite(x).all():
            return
        yield x - x.mean(axis=0)
