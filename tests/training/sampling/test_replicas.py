"""Trajectories driven in one batch: they follow their course, stop for the right reason, and do not see each other."""

from collections.abc import Sequence

import numpy as np
import pytest
from ase.data import atomic_masses
from numpy.typing import NDArray

from contract.structures import Structure, checked_structure
from training.sampling.disordered import G_PER_CM3, disordered_cell
from training.sampling.replicas import Course, Dynamics, Frame, Limits, Start, explore

CALM = Limits(energy_std=1e9, force_std=1e9, closest=0.1)


class Springs:
    """No forces, and a spread that grows with the number of atoms that are near others."""

    def __init__(self, spread: float = 0.0, push: float = 0.0) -> None:
        self._spread, self._push = spread, push

    @property
    def cutoff(self) -> float:
        return 4.0

    def forces(self, frames: Sequence[Frame]) -> NDArray[np.float64]:
        return np.full((sum(len(f.structure) for f in frames), 3), self._push)

    def spread(self, frames: Sequence[Frame]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        atoms = np.array([len(f.structure) for f in frames])
        return np.zeros(len(frames)), np.full((atoms.sum(), 3), self._spread)


def _start(structure: Structure, kelvin: float = 0.0, end_density: float = 2.7) -> Start:
    return Start(structure, Course(kelvin, kelvin, 0.0, 1000.0), Course(2.7, end_density, 0.0, 1000.0))


@pytest.fixture
def cell() -> Structure:
    return disordered_cell(np.full(16, 13), 2.7, 1.9, np.random.default_rng(0))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("density", "apart"), [(2.2, 2.0), (3.0, 1.9)])
def test_disordered_cells_keep_their_distance_and_density(seed: int, density: float, apart: float) -> None:
    made = disordered_cell(np.full(32, 13), density, apart, np.random.default_rng(seed))
    assert made.cell is not None
    volume = abs(np.linalg.det(made.cell))
    assert atomic_masses[13] * 32 * G_PER_CM3 / volume == pytest.approx(density)
    away = made.positions[:, None] - made.positions
    away -= np.round(away / made.cell[0, 0]) * made.cell[0, 0]
    distance = np.linalg.norm(away, axis=2)[~np.eye(32, dtype=bool)]
    assert distance.min() >= apart


def test_a_packing_that_cannot_be_made_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="stalls above 30%"):
        disordered_cell(np.full(32, 13), 2.7, 2.6, np.random.default_rng(0))


def test_the_cell_follows_the_course_of_the_density(cell: Structure) -> None:
    how = Dynamics(step_fs=1.0, check_every=5, length_fs=100.0)
    (ended,) = explore([_start(cell, end_density=2.4)], Springs(), CALM, how, seed=1)
    assert ended.reason == "survived"
    assert cell.cell is not None
    assert ended.structure.cell is not None
    grown = np.linalg.det(ended.structure.cell) / np.linalg.det(cell.cell)
    assert grown == pytest.approx(2.7 / 2.4, rel=0.01)  # the last check is one interval before the end


def test_a_course_swings_between_its_ends() -> None:
    course = Course(100.0, 300.0, 50.0, 1000.0)
    assert course.at(0.0, 4000.0) == 100.0
    assert course.at(500.0, 4000.0) == pytest.approx(100.0 + 25.0 + 50.0)
    assert course.at(4000.0, 4000.0) == pytest.approx(300.0)


def test_disagreement_ends_a_trajectory_with_the_frame_and_the_spread(cell: Structure) -> None:
    limits = Limits(energy_std=1.0, force_std=0.4, closest=0.1)
    (ended,) = explore([_start(cell)], Springs(spread=0.5), limits, Dynamics(length_fs=50.0), seed=1)
    assert (ended.reason, ended.time_fs, ended.force_std) == ("force", 0.0, 0.5)
    assert np.allclose(ended.structure.positions, cell.positions)


def test_atoms_that_meet_end_it_without_a_label_and_the_others_go_on(cell: Structure) -> None:
    near = checked_structure([13, 13], [[0, 0, 0], [1.0, 0, 0]], 8.0 * np.eye(3), True)
    limits = Limits(energy_std=1e9, force_std=1e9, closest=1.6)
    ended = explore([_start(near), _start(cell)], Springs(), limits, Dynamics(length_fs=20.0), seed=1)
    assert [e.reason for e in ended] == ["close", "survived"]


def test_forces_without_measure_end_it_too(cell: Structure) -> None:
    (ended,) = explore([_start(cell)], Springs(push=np.inf), CALM, Dynamics(length_fs=20.0), seed=1)
    assert ended.reason == "not finite"


def test_a_trajectory_is_the_same_alone_and_in_company(cell: Structure) -> None:
    how = Dynamics(length_fs=40.0)
    (alone,) = explore([_start(cell, kelvin=300.0)], Springs(), CALM, how, seed=7)
    together = explore([_start(cell, kelvin=300.0), _start(cell, kelvin=900.0)], Springs(), CALM, how, seed=7)
    assert np.array_equal(alone.structure.positions, together[0].structure.positions)
    moved = [np.abs(e.structure.positions - cell.positions).mean() for e in together]
    assert moved[1] > moved[0] > 0.0
