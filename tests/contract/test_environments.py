"""Surroundings of atoms: what leaves a descriptor as it is, and how far the unfamiliar is."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from contract.environments import Environments, descriptors
from contract.graphs import build_graph
from contract.structures import Structure, checked_structure

CUTOFF = 4.0
ELEMENTS = np.array([1, 6, 8])
NUMBERS = np.array([8, 6, 1, 1, 1, 1])  # methanol, about
POSITIONS = np.array(
    [[0.7, 0.1, 0.0], [-0.7, 0.0, 0.0], [1.1, -0.8, 0.1], [-1.0, 1.0, 0.1], [-1.1, -0.5, 0.9], [-1.1, -0.5, -0.9]]
)


def described(structure: Structure) -> np.ndarray:
    return descriptors(build_graph(structure, CUTOFF), ELEMENTS)


def reference(*, reach: float = 1.0) -> Environments:
    """Two centres an element: methanol's own surroundings, not whitened."""
    own = described(checked_structure(NUMBERS, POSITIONS))
    width = own.shape[1]
    centres = np.stack([own[z == NUMBERS][[0, -1]] for z in ELEMENTS])
    white = np.broadcast_to(np.eye(width, dtype=np.float32), (3, width, width)).copy()
    return Environments(ELEMENTS, np.zeros((3, width), np.float32), white, centres, np.full(3, reach, np.float32))


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), order=st.permutations(range(6)))
def test_turning_shifting_and_renumbering_change_no_surroundings(seed: int, order: list[int]) -> None:
    turn = Rotation.random(random_state=np.random.RandomState(seed)).as_matrix()
    moved = checked_structure(NUMBERS[order], (POSITIONS @ turn.T + 7.0)[order])
    np.testing.assert_allclose(described(moved), described(checked_structure(NUMBERS, POSITIONS))[order], atol=2e-5)


def test_a_mirror_image_has_the_same_surroundings_and_a_bent_molecule_has_not() -> None:
    still = described(checked_structure(NUMBERS, POSITIONS))
    np.testing.assert_allclose(described(checked_structure(NUMBERS, -POSITIONS)), still, atol=2e-5)
    bent = POSITIONS.copy()
    bent[2] = [0.7, -0.96, 0.0]
    assert np.abs(described(checked_structure(NUMBERS, bent))[0] - still[0]).max() > 0.02


def test_atoms_of_a_crystal_have_the_surroundings_of_its_repeated_cell() -> None:
    cell = np.diag([3.0, 3.3, 3.6])
    small = checked_structure([6, 8], [[0.0, 0, 0], [1.4, 1.5, 1.6]], cell, True)
    twice = np.concatenate([small.positions, small.positions + cell[0]])
    large = checked_structure([6, 8, 6, 8], twice, np.diag([6.0, 3.3, 3.6]), True)
    np.testing.assert_allclose(described(large), np.tile(described(small), (2, 1)), atol=2e-5)


def test_surroundings_end_smoothly_at_the_cutoff() -> None:
    pair = [described(checked_structure([6, 8], [[0.0, 0, 0], [x, 0, 0]])) for x in (CUTOFF - 1e-3, CUTOFF + 1e-3)]
    np.testing.assert_allclose(pair[0], pair[1], atol=1e-5)


def test_distance_is_nought_at_a_centre_and_grows_with_the_stretch() -> None:
    environments = reference()
    far = []
    for stretch in (0.0, 0.2, 0.4):
        positions = POSITIONS.copy()
        positions[2, 1] -= stretch
        far.append(environments.distances(build_graph(checked_structure(NUMBERS, positions), CUTOFF))[2])
    assert far[0] == pytest.approx(0.0, abs=1e-5)
    assert far[0] < far[1] < far[2]


def test_reach_is_the_unit_of_distance() -> None:
    graph = build_graph(checked_structure(NUMBERS, 1.1 * POSITIONS), CUTOFF)
    np.testing.assert_allclose(reference(reach=2.0).distances(graph), reference().distances(graph) / 2.0, rtol=1e-6)


def test_an_element_that_was_not_trained_is_infinitely_far() -> None:
    graph = build_graph(checked_structure([6, 7], [[0.0, 0, 0], [1.2, 0, 0]]), CUTOFF)
    distances = reference().distances(graph)
    assert np.isinf(distances[1])
    assert np.isfinite(distances[0])


def test_a_stored_set_gives_the_same_distances(tmp_path: Path) -> None:
    environments, graph = reference(), build_graph(checked_structure(NUMBERS, 1.2 * POSITIONS), CUTOFF)
    environments.save(tmp_path / "environments.npz")
    again = Environments.load(tmp_path / "environments.npz").distances(graph)
    np.testing.assert_array_equal(again, environments.distances(graph))
