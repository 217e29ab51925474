"""Frames of driven trajectories at random moments: what tests a model, and what active learning is compared with."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.structures import Structure
from training.sampling.errors import NoSurvivor
from training.sampling.replicas import Driver, Dynamics, Frame, Limits, Start, explore
from training.simulators.labels import Reference

_ANY_SPREAD: Final = 1.0
_EMPTY_WAVES: Final = 20


class ReferenceDriver:
    """A reference calculator drives the trajectories.

    Args:
        reference: labels structures.
        cutoff: angstrom, within which neighbours are looked for.
    """

    def __init__(self, reference: Reference, cutoff: float) -> None:
        self._reference, self.cutoff = reference, cutoff

    def forces(self, frames: Sequence[Frame]) -> NDArray[np.float64]:
        """EV/angstrom [A, 3]; NaN, which ends a trajectory, where the reference did not converge."""
        return self._reference.label([frame.structure for frame in frames]).forces


class AtRandomMoments:
    """Trajectories that end by chance: their spread is nothing until, with equal probability at each check, infinite.

    Args:
        driver: of the trajectories.
        chance: that a check ends one.
        rng: of the moments.
    """

    def __init__(self, driver: Driver, chance: float, rng: np.random.Generator) -> None:
        self._driver, self._chance, self._rng = driver, chance, rng

    @property
    def cutoff(self) -> float:
        """Angstrom."""
        return self._driver.cutoff

    def forces(self, frames: Sequence[Frame]) -> NDArray[np.float64]:
        """Of the driver, eV/angstrom [A, 3]."""
        return self._driver.forces(frames)

    def spread(self, frames: Sequence[Frame]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Nothing or infinity for each frame, [n] and [A, 3]."""
        energy = np.where(self._rng.random(len(frames)) < self._chance, np.inf, 0.0)
        atoms = np.repeat(energy, [len(frame.structure) for frame in frames])
        return energy, np.repeat(atoms[:, None], 3, axis=1)


def frames_by_chance(
    driver: Driver, starts: Sequence[Start], how: Dynamics, mean_fs: float, closest: float, seed: int
) -> list[Structure]:
    """One frame of each trajectory, at a random moment that comes after `mean_fs` in the mean, or at its end.

    Args:
        driver: of the trajectories.
        starts: one a trajectory.
        how: steps and length.
        mean_fs: exponential law of the moment, in steps of the checks.
        closest: angstrom; trajectories in which atoms come nearer are left out.
        seed: of velocities, noise and moments.
    """
    chance = how.check_every * how.step_fs / mean_fs
    judge = AtRandomMoments(driver, chance, np.random.default_rng([seed, 1]))
    ended = explore(starts, judge, Limits(_ANY_SPREAD, _ANY_SPREAD, closest), how, seed)
    return [end.structure for end in ended if end.reason in ("energy", "survived")]


def frames_of_waves(count: int, wave: Callable[[int, int], Sequence[Structure]]) -> list[Structure]:
    """`count` frames, from as many waves of trajectories as it takes.

    Args:
        count: frames wanted.
        wave: called with the number of the wave, from 0, and how many frames are missing; not all may come.

    Raises:
        NoSurvivor: twenty waves running brought none.
    """
    found, number, empty = list[Structure](), 0, 0
    while len(found) < count:
        brought = wave(number, count - len(found))
        found += brought
        number, empty = number + 1, 0 if brought else empty + 1
        if empty == _EMPTY_WAVES:
            raise NoSurvivor(
                f"{len(found)} of {count} frames: in all trajectories of {empty} waves running atoms came too close. "
                "Lower exploration.closest_angstrom, kelvin or step_fs, or let the driver learn for longer."
            )
    return found
