import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from contract.card import DataSource
from training.data.dataset import Dataset, ragged
from training.data.errors import TooAlike
from training.data.fingerprints import Fingerprints, close_pairs, fingerprints
from training.data.splits import DEFAULT_TOLERANCE

SOURCE = DataSource(
    name="made up",
    origin="here",
    licence="CC0-1.0",
    sha256="0" * 64,
    count=1,
    level_of_theory="none",
    citation="nobody",
)


def of(*frames: Atoms) -> Dataset:
    return ragged(
        [a.numbers for a in frames],
        [a.positions for a in frames],
        np.zeros(len(frames)),
        [SOURCE],
        cells=[a.cell.array if a.pbc.any() else None for a in frames],
        pbc=[a.pbc for a in frames],
    )


def difference(first: Atoms, second: Atoms) -> float:
    (prints,) = fingerprints(of(first, second))
    return float(np.linalg.norm(prints.values[0] - prints.values[1]))


def moved(atoms: Atoms, seed: int) -> Atoms:
    """The same molecule turned, mirrored, shifted and with its atoms in another order."""
    rng = np.random.default_rng(seed)
    other = atoms[rng.permutation(len(atoms))]
    other.positions = other.positions @ Rotation.random(rng=rng).as_matrix() * [1, 1, -1] + rng.normal(size=3)
    return other


@given(st.sampled_from(["CH3CH2OH", "C6H6", "H2O", "CH3SH"]), st.integers(0, 1000))
def test_moving_a_molecule_or_exchanging_equal_atoms_changes_nothing(name: str, seed: int) -> None:
    atoms = molecule(name)
    atoms.rattle(0.1, seed=seed)
    assert difference(atoms, moved(atoms, seed)) < 1e-5


def test_the_difference_is_the_change_of_inverse_distances() -> None:
    first, second = Atoms("HF", [[0, 0, 0], [0, 0, 1.0]]), Atoms("HF", [[0, 0, 0], [0, 0, 1.25]])
    assert difference(first, second) == pytest.approx(0.2, abs=1e-6)


def test_condensing_many_pairs_never_makes_frames_look_further_apart() -> None:
    rng = np.random.default_rng(0)
    first = Atoms("C20", 3 * rng.normal(size=(20, 3)))
    second = first.copy()
    second.rattle(0.05, seed=1)
    i, j = np.triu_indices(20, 1)
    inverse = [np.sort(1 / np.linalg.norm(a.positions[i] - a.positions[j], axis=1)) for a in (first, second)]
    exact = np.linalg.norm(inverse[0] - inverse[1])
    assert 0.2 * exact < difference(first, second) <= exact


def test_frames_of_different_formula_are_never_compared() -> None:
    prints = fingerprints(of(molecule("H2O"), molecule("CH4"), molecule("H2O")))
    assert sorted(p.frames.tolist() for p in prints) == [[0, 2], [1]]


def test_a_crystal_is_not_compared_with_a_cluster_of_the_same_formula() -> None:
    crystal = bulk("Al", cubic=True)
    cluster = Atoms("Al4", crystal.positions)
    assert len(fingerprints(of(crystal, cluster))) == 2


def test_a_crystal_keeps_its_fingerprint_when_atoms_leave_through_a_face() -> None:
    first = bulk("Cu", cubic=True)
    first.rattle(0.1, seed=0)
    second = first.copy()
    second.positions += [1.7, 0.3, 2.9]
    second.wrap()
    assert difference(first, second) < 1e-5


def test_straining_a_crystal_changes_its_fingerprint() -> None:
    assert difference(bulk("Cu", a=3.6), bulk("Cu", a=3.65)) > 1e-3


def test_isolated_atoms_are_all_alike() -> None:
    assert difference(Atoms("H"), Atoms("H", [[5, 5, 5]])) == 0.0


def test_coincident_atoms_give_finite_numbers() -> None:
    (prints,) = fingerprints(of(Atoms("H2", np.zeros((2, 3)))))
    assert np.isfinite(prints.values).all()


def test_close_pairs_are_those_within_the_tolerance() -> None:
    lengths = [1.0, 1.25, 1.001, 1.2505]
    (prints,) = fingerprints(of(*(Atoms("HF", [[0, 0, 0], [0, 0, r]]) for r in lengths)))
    assert sorted(map(tuple, np.sort(close_pairs(prints, 0.002)).tolist())) == [(0, 2), (1, 3)]


def test_so_many_copies_that_memory_would_not_do_are_refused() -> None:
    copies = Fingerprints(np.arange(20_000), np.zeros((20_000, 1), np.float32))
    with pytest.raises(TooAlike, match=r"about 2e\+08 pairs of frames lie within"):
        close_pairs(copies, 0.1)


def test_close_pairs_are_the_same_as_by_comparing_all_with_all() -> None:
    rng = np.random.default_rng(0)
    frames = [Atoms("C6", rng.normal(size=(6, 3)) * 2) for _ in range(30)]
    near = [a.copy() for a in frames]
    for a in near:
        a.rattle(0.02 * rng.random(), seed=int(rng.integers(1000)))
    (prints,) = fingerprints(of(*frames, *near))
    gap = np.linalg.norm(prints.values[:, None] - prints.values[None], axis=2)
    expected = set(zip(*np.nonzero(np.triu(gap <= 0.01, 1)), strict=True))
    assert 5 < len(expected) < 30
    assert set(map(tuple, np.sort(close_pairs(prints, 0.01)))) == expected


@pytest.mark.physics
@pytest.mark.parametrize("repeats", [2, 3, 4])
def test_independent_frames_of_a_crystal_are_told_apart_whatever_its_size(repeats: int) -> None:
    """Atoms displaced by 0.1 angstrom independently, and near copies in which they moved by 0.002."""
    first, second = (
        bulk("Al", cubic=True) * (repeats, repeats, repeats),
        bulk("Al", cubic=True) * (repeats, repeats, repeats),
    )
    first.rattle(0.1, seed=0)
    second.rattle(0.1, seed=1)
    near = first.copy()
    near.rattle(0.002, seed=2)
    assert difference(first, near) < DEFAULT_TOLERANCE < difference(first, second)
