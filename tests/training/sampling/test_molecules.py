"""Shapes that a labeller can be asked for: whole, apart, and not twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from training.sampling.molecules import Molecule, bridged, conformers, dimer, grown, molecules, torsions, trajectory

Chem = pytest.importorskip("rdkit.Chem", reason="the extra `sampling` is not installed")


@pytest.fixture(scope="module")
def ethanol() -> Molecule:
    return next(m for m in molecules() if m.smiles == "CCO")


def test_the_list_holds_many_molecules_of_four_elements_each_once() -> None:
    every = molecules()
    assert len(every) > 1000
    assert len({m.smiles for m in every}) == len(every)
    assert set(np.concatenate([m.numbers for m in every])) == {1, 6, 7, 8}


def test_dynamics_keeps_the_molecule_whole_and_moves_it_more_when_hot(ethanol: Molecule) -> None:
    start = conformers(ethanol, 1, seed=1)[0]
    moved = {}
    for kelvin in (50.0, 900.0):
        frames = list(trajectory(ethanol, start, kelvin, 12, seed=2))
        assert len(frames) == 12
        lengths = [np.linalg.norm(p[0] - p[1]) for p in frames]  # C-C
        assert all(1.2 < length < 1.9 for length in lengths)
        moved[kelvin] = np.std(lengths)
    assert moved[900.0] > 1.5 * moved[50.0]


def test_turned_torsions_keep_bonds_and_angles(ethanol: Molecule) -> None:
    start = conformers(ethanol, 1, seed=1)[0]
    rng = np.random.default_rng(0)
    turned = [t for t in (torsions(ethanol, start, rng) for _ in range(8)) if t is not None]
    assert turned
    assert max(abs(np.linalg.norm(t[2] - t[0]) - np.linalg.norm(start[2] - start[0])) for t in turned) < 1e-6
    assert max(np.abs(t - start).max() for t in turned) > 0.3


def test_a_proton_is_moved_along_a_hydrogen_bond_and_nothing_else() -> None:
    enol = next(m for m in molecules() if Chem.CanonSmiles(m.smiles) == Chem.CanonSmiles("C/C(O)=C/C(C)=O"))
    rng, found = np.random.default_rng(0), 0
    for start in conformers(enol, 6, seed=1):
        for _ in range(3):
            if (moved := bridged(enol, start, rng)) is None:
                continue
            found += 1
            (proton,) = np.flatnonzero(np.abs(moved - start).max(axis=1))
            assert enol.numbers[proton] == 1
            oxygens = moved[enol.numbers == 8]
            first, second = np.linalg.norm(oxygens - moved[proton], axis=1)
            assert abs(first + second - np.linalg.norm(oxygens[0] - oxygens[1])) < 1e-6
            assert 0.5 - 1e-9 <= first / second <= 2.0 + 1e-9
    assert found


def test_without_a_hydrogen_bond_no_proton_is_moved(ethanol: Molecule) -> None:
    assert bridged(ethanol, conformers(ethanol, 1, seed=1)[0], np.random.default_rng(0)) is None


@given(contact=st.floats(1.0, 6.0), seed=st.integers(0, 1000), n=st.integers(1, 6), m=st.integers(1, 6))
def test_the_nearest_atoms_of_a_dimer_are_as_far_apart_as_asked(contact: float, seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = (rng.normal(size=(k, 3)) for k in (n, m))
    both = dimer(first, second, contact, rng)
    assert both.shape == (n + m, 3)
    gap = np.linalg.norm(both[:n, None] - both[None, n:], axis=2).min()
    assert abs(gap - contact) < 1e-6
    assert np.allclose(_distances(both[:n]), _distances(first))
    assert np.allclose(_distances(both[n:]), _distances(second))


def _distances(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.linalg.norm(positions[:, None] - positions[None], axis=2))


def test_molecules_grow_by_a_substituent_into_new_ones_of_the_same_elements() -> None:
    parents = molecules()[:30]
    children = grown(parents, 40, np.random.default_rng(3))
    smiles = [child.smiles for child in children]
    assert len(set(smiles)) == 40
    assert not set(smiles) & {parent.smiles for parent in parents}
    for child in children:
        parsed = Chem.AddHs(Chem.MolFromSmiles(child.smiles))
        assert sum(atom.GetNumRadicalElectrons() for atom in parsed.GetAtoms()) == 0
        assert {atom.GetAtomicNum() for atom in parsed.GetAtoms()} <= {1, 6, 7, 8}
        assert Chem.GetFormalCharge(parsed) == 0


def test_atoms_of_every_molecule_stand_in_the_order_of_its_shapes() -> None:
    some = molecules()[::20]
    for molecule in [*some, *grown(some, 40, np.random.default_rng(4))]:
        parsed = Chem.AddHs(Chem.MolFromSmiles(molecule.smiles))
        assert molecule.numbers.tolist() == [atom.GetAtomicNum() for atom in parsed.GetAtoms()], molecule.smiles
