"""Beads lie where the mass of their atoms is, wherever the boundary cuts it, and feel what they feel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.coarse.errors import BadMapping
from training.coarse.mapping import Mapping

CELL = np.array([[11.0, 0.0, 0.0], [3.0, 12.0, 0.0], [-2.0, 1.0, 13.0]])
MASSES = np.array([15.035, 15.999, 1.008] * 4)


def _molecules(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.random((4, 1, 3)) @ CELL
    return (centres + rng.normal(scale=0.8, size=(4, 3, 3))).reshape(-1, 3)


@given(st.integers(0, 50), st.integers(0, 2**31))
def test_wrapping_any_atom_by_lattice_vectors_moves_no_bead(seed: int, turns: int) -> None:
    mapping, atoms = Mapping.of_equal_molecules(4, MASSES), _molecules(seed)
    moved = atoms + np.random.default_rng(turns).integers(-2, 3, size=atoms.shape) @ CELL
    there, here = (mapping.positions(a, CELL) @ np.linalg.inv(CELL) for a in (moved, atoms))
    apart = there - here
    np.testing.assert_allclose(apart - np.round(apart), 0.0, atol=1e-9)


def test_a_bead_is_the_centre_of_mass_in_the_cell_and_its_force_the_sum() -> None:
    mapping, atoms = Mapping.of_equal_molecules(4, MASSES), _molecules(1)
    forces = np.random.default_rng(2).normal(size=atoms.shape)
    centres = np.average(atoms.reshape(4, 3, 3), axis=1, weights=MASSES[:3])
    apart = (mapping.positions(atoms, CELL) - centres) @ np.linalg.inv(CELL)
    np.testing.assert_allclose(apart, np.round(apart), atol=1e-9)
    fractional = mapping.positions(atoms, CELL) @ np.linalg.inv(CELL)
    assert ((fractional >= 0.0) & (fractional < 1.0)).all()
    np.testing.assert_allclose(mapping.forces(forces), forces.reshape(4, 3, 3).sum(axis=1))
    np.testing.assert_allclose(mapping.bead_masses, 32.042)


def test_beads_may_differ_in_size_and_leave_atoms_out() -> None:
    mapping = Mapping.of([[0, 1], [5]], MASSES)
    atoms = _molecules(3)
    np.testing.assert_allclose(mapping.forces(atoms), [atoms[0] + atoms[1], atoms[5]])
    np.testing.assert_allclose(mapping.bead_masses, [MASSES[:2].sum(), MASSES[5]])


@pytest.mark.parametrize(
    ("groups", "said"),
    [([[0, 1], [1, 2]], "atom 1 is in two beads"), ([[0], []], "bead 1 has no atoms"), ([[0, 40]], "no atom 40")],
)
def test_groups_that_cannot_be_beads_are_refused_by_name(groups: list[list[int]], said: str) -> None:
    with pytest.raises(BadMapping, match=said):
        Mapping.of(groups, MASSES)


def test_a_bead_that_reaches_half_of_the_cell_is_refused() -> None:
    atoms = np.array([[0.0, 0, 0], [4.0, 0, 0], [-4.0, 0, 0]])
    with pytest.raises(BadMapping, match="bead 0 reaches"):
        Mapping.of([[0, 1, 2]], MASSES[:3]).positions(atoms, 11.0 * np.eye(3))
