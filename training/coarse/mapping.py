"""From atoms to beads: a bead lies at the centre of mass of its atoms and feels the sum of their forces.

    R_I = r_first + sum_k m_k d_k / M_I,   d_k = minimum image of r_k - r_first;   F_I = sum_k f_k

For disjoint groups and centre-of-mass beads this sum is the mapped force whose conditional mean is the force of the
many-body potential of mean force (Noid et al., J. Chem. Phys. 128, 244114 (2008)); forces of constraints within a group
cancel in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from training.coarse.errors import BadMapping

Array = NDArray[np.float64]
LARGEST_REACH: Final = 0.5
"""An atom may lie so many lattice vectors from the first of its group: beyond it the nearest image is ambiguous."""


@dataclass(frozen=True, slots=True, eq=False)
class Mapping:
    """Which atoms make up which bead. Build it with `of`.

    Attributes:
        groups: int64 [n, a], atoms of each bead, padded with -1.
        masses: float64 [N], u, of all atoms.
        weights: float64 [n, a], share of each atom in its bead's mass; zero for padding.
    """

    groups: NDArray[np.int64]
    masses: Array
    weights: Array

    @classmethod
    def of(cls, groups: Sequence[Sequence[int]], masses: Array) -> Self:
        """A mapping from lists of atoms.

        Args:
            groups: atoms of each bead; atoms in none are left out.
            masses: u [N].

        Raises:
            BadMapping: an empty group, an atom in two groups or none such, naming it.
        """
        _require_disjoint(groups, len(masses))
        widest = max(len(group) for group in groups)
        padded = np.full((len(groups), widest), -1, np.int64)
        for row, group in zip(padded, groups, strict=True):
            row[: len(group)] = group
        weights = np.where(padded >= 0, np.asarray(masses, np.float64)[padded], 0.0)
        return cls(padded, np.asarray(masses, np.float64), weights / weights.sum(axis=1, keepdims=True))

    @classmethod
    def of_equal_molecules(cls, molecules: int, masses: Array) -> Self:
        """One bead for each of `molecules` molecules whose atoms are consecutive; masses [N]."""
        return cls.of(np.arange(len(masses)).reshape(molecules, -1).tolist(), masses)

    @property
    def bead_masses(self) -> Array:
        """Mass of each bead, u [n]."""
        return np.asarray(np.where(self.groups >= 0, self.masses[self.groups], 0.0).sum(axis=1))

    def positions(self, atoms: Array, cell: Array) -> Array:
        """Bead positions, angstrom [n, 3], wrapped into the cell.

        Args:
            atoms: positions [N, 3], wrapped or not.
            cell: [3, 3], rows are lattice vectors, periodic in all directions.

        Raises:
            BadMapping: a group that reaches half of the cell, naming the bead.
        """
        members = atoms[self.groups]
        fractional = (members - members[:, :1]) @ np.linalg.inv(cell)
        fractional -= np.round(fractional)
        fractional[self.groups < 0] = 0.0
        _require_compact(fractional)
        centres = members[:, 0] + np.einsum("na,nax->nx", self.weights, fractional @ cell)
        places = centres @ np.linalg.inv(cell)
        return np.asarray((places - np.floor(places)) @ cell)

    def forces(self, atoms: Array) -> Array:
        """Bead forces [n, 3] in the unit of the atoms' [N, 3]."""
        return np.asarray(np.where((self.groups >= 0)[..., None], atoms[self.groups], 0.0).sum(axis=1))


def _require_disjoint(groups: Sequence[Sequence[int]], atoms: int) -> None:
    empty = [i for i, group in enumerate(groups) if not len(group)]
    if empty or not len(groups):
        raise BadMapping(f"bead {empty[0]} has no atoms." if empty else "a mapping needs at least one bead.")
    flat = np.concatenate([np.asarray(group, np.int64) for group in groups])
    unknown = flat[(flat < 0) | (flat >= atoms)]
    if unknown.size:
        raise BadMapping(f"there is no atom {int(unknown[0])}: the masses are those of {atoms} atoms.")
    every, times = np.unique(flat, return_counts=True)
    if (times > 1).any():
        raise BadMapping(
            f"atom {int(every[times > 1][0])} is in two beads: the sum of forces is right for disjoint ones."
        )


def _require_compact(fractional: NDArray[Any]) -> None:
    """Atoms of one group are nearer to each other than half of the cell, so that each has one nearest image."""
    extent = np.ptp(fractional, axis=1).max(axis=1)
    wide = np.flatnonzero(extent >= LARGEST_REACH)
    if wide.size:
        raise BadMapping(
            f"bead {int(wide[0])} reaches over {extent[wide[0]]:.2f} of the cell; beyond {LARGEST_REACH:g} the nearest "
            "image of an atom is ambiguous: use a larger cell or smaller beads."
        )
