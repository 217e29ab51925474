"""Bead frames of several thermodynamic states: extended xyz on disk, parts by time block in memory."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase import Atoms
from ase.io import iread, write
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from contract.structures import Structure, checked_structure
from training.coarse.errors import BadFrames

Array = NDArray[np.float64]
Part = Literal["train", "valid", "test"]


class State(BaseModel):
    """A thermodynamic state of a liquid at given volume."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kelvin: float = Field(gt=0)
    density: float = Field(gt=0, description="g/cm^3")

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.kelvin:g} K, {self.density:g} g/cm3"

    @property
    def slug(self) -> str:
        """For files."""
        return f"{self.kelvin:g}K-{self.density:g}"


@dataclass(frozen=True, slots=True, eq=False)
class BeadFrame:
    """One frame: positions [n, 3] and cell [3, 3] in angstrom, mapped forces [n, 3] in eV/angstrom, state and block."""

    positions: Array
    forces: Array
    cell: Array
    state: State
    block: int


@dataclass(frozen=True, slots=True, eq=False)
class BeadFrames:
    """m frames of n_i beads.

    Attributes:
        structures: the frames.
        forces: eV/angstrom, [n_i, 3] each.
        states: the thermodynamic states that occur.
        state: int64 [m], index into `states`.
        block: int64 [m], runs of consecutive frames of a state.
    """

    structures: list[Structure]
    forces: list[Array]
    states: tuple[State, ...]
    state: NDArray[np.int64]
    block: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.structures)

    def at(self, indices: NDArray[Any]) -> "BeadFrames":
        """The frames at these indices; all states stay known."""
        chosen = np.arange(len(self))[indices]
        return BeadFrames(
            [self.structures[i] for i in chosen],
            [self.forces[i] for i in chosen],
            self.states,
            self.state[chosen],
            self.block[chosen],
        )

    def of_states(self, states: Sequence[State]) -> "BeadFrames":
        """The frames of these states, which are then all that there are, in this order.

        Raises:
            BadFrames: a state without frames, naming it and those that there are.
        """
        for state in states:
            if state not in self.states:
                known = "; ".join(s.name for s in self.states)
                raise BadFrames(f"there are no frames at {state.name}; those at hand are of {known}.")
        place = np.array([states.index(s) if s in states else -1 for s in self.states])
        chosen = self.at(place[self.state] >= 0)
        return replace(chosen, states=tuple(states), state=place[chosen.state])

    def every(self, step: int) -> "BeadFrames":
        """Every so many frames of each state."""
        kept = np.concatenate([np.flatnonzero(self.state == s)[::step] for s in range(len(self.states))])
        return self.at(kept)

    def variances(self) -> Array:
        """Mean square of the force components of each state, eV^2/angstrom^2; NaN for one without frames."""
        return np.array(
            [
                np.mean(np.concatenate([self.forces[i] for i in np.flatnonzero(self.state == s)]) ** 2)
                if (self.state == s).any()
                else np.nan
                for s in range(len(self.states))
            ]
        )


def split_by_block(frames: BeadFrames, valid: int, test: int) -> dict[Part, BeadFrames]:
    """Whole blocks of each state to each part: the last `test` to test, the `valid` before them to validate.

    Frames at the edge of two parts are as close in time as any two; the frame on the training side of each edge is
    left out.

    Raises:
        BadFrames: a state with too few blocks.
    """
    parts: dict[Part, list[int]] = {"train": [], "valid": [], "test": []}
    for s, state in enumerate(frames.states):
        rows = np.flatnonzero(frames.state == s)
        blocks = np.unique(frames.block[rows])
        if len(blocks) < valid + test + 1:
            raise BadFrames(
                f"{state.name} has {len(blocks)} blocks of time, fewer than {valid + test + 1} for three parts."
            )
        first_test, first_valid = blocks[-test], blocks[-(test + valid)]
        for row, following in zip(rows, [*rows[1:], rows[-1]], strict=True):
            here, there = (_part(frames.block[i], first_valid, first_test) for i in (row, following))
            if here == there:
                parts[here].append(int(row))
    return {name: frames.at(np.array(rows, np.int64)) for name, rows in parts.items()}


def _part(block: int, first_valid: int, first_test: int) -> Part:
    if block >= first_test:
        return "test"
    return "valid" if block >= first_valid else "train"


def write_frames(frames: Iterable[BeadFrame], bead: str, path: Path) -> None:
    """Extended xyz: `REF_forces` in eV/angstrom, `kelvin`, `density` in g/cm^3 and `block` of each frame."""
    path.unlink(missing_ok=True)
    for frame in frames:
        atoms = Atoms([bead] * len(frame.positions), frame.positions, cell=frame.cell, pbc=True)
        atoms.arrays["REF_forces"] = frame.forces
        atoms.info = {"kelvin": frame.state.kelvin, "density": frame.state.density, "block": frame.block}
        write(path, atoms, format="extxyz", append=True)


def read_frames(path: Path) -> BeadFrames:
    """Read what `write_frames` wrote.

    Raises:
        BadFrames: not such a file, naming the frame and what it lacks.
    """
    try:
        atoms = list(iread(path, index=":", format="extxyz"))
    except (ValueError, KeyError, IndexError, OSError) as error:
        raise BadFrames(f"{path} is not extended xyz: {error}") from None
    if not atoms:
        raise BadFrames(f"{path} has no frames.")
    for number, frame in enumerate(atoms):
        lacking = {"kelvin", "density", "block"} - frame.info.keys() | {"REF_forces"} - frame.arrays.keys()
        if lacking:
            raise BadFrames(
                f"{path}: frame {number} has no {', '.join(sorted(lacking))}. `understudy sample` writes them."
            )
    each = [State(kelvin=float(a.info["kelvin"]), density=float(a.info["density"])) for a in atoms]
    states = tuple(dict.fromkeys(each))
    return BeadFrames(
        [checked_structure(a.numbers, a.positions, a.cell.array, a.pbc, i) for i, a in enumerate(atoms)],
        [np.asarray(a.arrays["REF_forces"], np.float64) for a in atoms],
        states,
        np.array([states.index(s) for s in each]),
        np.array([int(a.info["block"]) for a in atoms]),
    )
