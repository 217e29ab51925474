"""A reference set of surroundings tells held-out frames from structures that the training data do not hold."""

import ase.build
import numpy as np
import pytest

from contract.card import Surroundings
from contract.environments import Environments
from contract.structures import Structure, checked_structure
from training.environments import CENTRES, fit_environments, largest_distances
from training.out_of_domain import auroc, surroundings, unfamiliar

CUTOFF = 4.0
ELEMENTS = [1, 6, 8]
ETHANOL = ase.build.molecule("CH3CH2OH")


def frames(count: int, seed: int) -> list[Structure]:
    """Ethanol, its atoms moved by 0.05 angstrom."""
    generator = np.random.default_rng(seed)
    moved = ETHANOL.positions + generator.normal(0.0, 0.05, (count, len(ETHANOL), 3))
    return [checked_structure(ETHANOL.numbers, positions) for positions in moved]


@pytest.fixture(scope="module")
def environments() -> Environments:
    return fit_environments(frames(150, 0), frames(100, 1), ELEMENTS, CUTOFF)


@pytest.fixture(scope="module")
def found(environments: Environments) -> Surroundings:
    return surroundings(environments, frames(100, 2), CUTOFF)


def test_every_kind_of_structure_that_was_not_trained_is_told_from_held_out_frames(found: Surroundings) -> None:
    kinds = {detection.kind: detection for detection in found.detection}
    assert len(kinds) == 6
    assert min(detection.auroc for detection in kinds.values()) >= 0.9
    assert kinds["broken into two"].flagged == 1.0
    assert kinds["other molecules of these elements"].count > 10


def test_held_out_frames_stay_inside(found: Surroundings) -> None:
    assert found.held_out_flagged <= 0.05


def test_the_atom_that_moved_is_the_unfamiliar_one(environments: Environments) -> None:
    from contract.graphs import build_graph

    pulled = ETHANOL.positions.copy()
    pulled[3] += pulled[3] - pulled[2]  # the hydroxyl hydrogen, twice as far from its oxygen
    distances = environments.distances(build_graph(checked_structure(ETHANOL.numbers, pulled), CUTOFF))
    assert int(distances.argmax()) in (2, 3)


def test_the_set_is_small(environments: Environments) -> None:
    assert environments.centres.shape[:2] == (3, CENTRES)
    size = sum(getattr(environments, name).nbytes for name in ("mean", "whitening", "centres", "reach"))
    assert size < 200_000


def test_an_element_without_atoms_in_the_training_data_is_far_from_all() -> None:
    methane = ase.build.molecule("CH4")
    moved = methane.positions + np.random.default_rng(3).normal(0.0, 0.05, (60, 5, 3))
    seen = [checked_structure(methane.numbers, positions) for positions in moved]
    without_oxygen = fit_environments(seen[:40], seen[40:], ELEMENTS, CUTOFF)
    assert largest_distances(without_oxygen, frames(1, 0), CUTOFF)[0] > 100.0


def test_kinds_that_cannot_be_made_of_the_frames_are_left_out() -> None:
    crystal = checked_structure([13], [[0.0, 0.0, 0.0]], 2.6 * np.eye(3), True)
    assert set(unfamiliar([crystal], np.array([13]), CUTOFF)) == {"dense cell", "rattled by 0.3 angstrom"}


def test_auroc_counts_pairs_in_the_right_order() -> None:
    assert auroc(np.array([0.0, 1.0]), np.array([2.0, 3.0])) == 1.0
    assert auroc(np.array([0.0, 2.0]), np.array([1.0, 3.0])) == 0.75
    assert auroc(np.ones(3), np.ones(4)) == 0.5
