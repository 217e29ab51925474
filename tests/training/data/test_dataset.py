from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.card import DataSource
from contract.structures import Structure
from training.data.dataset import Dataset, concatenate, ragged, uniform
from training.data.errors import EmptyData, InconsistentData

SOURCE = DataSource(
    name="made up",
    origin="here",
    licence="CC0-1.0",
    sha256="0" * 64,
    count=1,
    level_of_theory="none",
    citation="nobody",
)


def ladder(sizes: list[int]) -> Dataset:
    """Frame i has sizes[i] atoms at (i, atom, 0) and the energy i."""
    positions = [np.array([[i, a, 0.0] for a in range(n)]).reshape(n, 3) for i, n in enumerate(sizes)]
    return ragged(
        [np.arange(1, n + 1) for n in sizes],
        positions,
        np.arange(len(sizes), dtype=float),
        [SOURCE],
        forces=[-p for p in positions],
    )


def test_iteration_gives_structures_of_the_right_atoms() -> None:
    structures = list(ladder([2, 1, 3]))
    assert all(isinstance(s, Structure) for s in structures)
    assert [len(s) for s in structures] == [2, 1, 3]
    assert structures[2].positions.tolist() == [[2, 0, 0], [2, 1, 0], [2, 2, 0]]
    assert structures[2].cell is None
    assert not structures[2].pbc.any()


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.data())
def test_a_selection_keeps_each_frame_whole_and_in_the_asked_order(sizes: list[int], data: st.DataObject) -> None:
    dataset = ladder(sizes)
    chosen = data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=20))
    part = dataset.select(np.array(chosen, np.int64))
    assert part.energy.tolist() == [float(i) for i in chosen]
    assert part.frames.tolist() == chosen
    for structure, i in zip(part, chosen, strict=True):
        assert np.array_equal(structure.positions, dataset[i].positions)
        assert np.array_equal(structure.numbers, dataset[i].numbers)
    assert part.forces is not None
    assert np.array_equal(part.forces, -part.positions)


def test_a_mask_selects_like_its_indices() -> None:
    dataset = ladder([1, 2, 3, 4])
    assert dataset.select(dataset.energy > 1.5).frames.tolist() == [2, 3]


def test_a_mask_of_the_wrong_length_is_refused() -> None:
    with pytest.raises(InconsistentData, match=r"mask has shape \[2\], expected \[3\]"):
        ladder([1, 1, 1]).select(np.array([True, False]))


@given(st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=5), min_size=1, max_size=4))
def test_concatenation_keeps_frames_and_keeps_groups_apart(parts: list[list[int]]) -> None:
    datasets = [ladder(sizes) for sizes in parts]
    whole = concatenate(datasets)
    assert len(whole) == sum(map(len, datasets))
    assert len(np.unique(whole.groups)) == len(whole)
    assert whole.source.tolist() == [k for k, sizes in enumerate(parts) for _ in sizes]
    assert [s.positions.tolist() for s in whole] == [s.positions.tolist() for d in datasets for s in d]


def test_kinds_are_kept_where_every_data_set_has_them() -> None:
    named = [
        replace(ladder(sizes), kinds=np.array([kind] * len(sizes))) for sizes, kind in (([1, 2], "a"), ([3], "ring"))
    ]
    whole = concatenate(named).kinds
    assert whole is not None
    assert whole.tolist() == ["a", "a", "ring"]
    assert concatenate([named[0], ladder([2])]).kinds is None


def test_data_with_and_without_forces_are_not_joined_silently() -> None:
    bare = uniform([1, 1], np.zeros((2, 2, 3)), np.zeros(2), [SOURCE])
    with pytest.raises(InconsistentData, match="made up has no forces, the others have"):
        concatenate([ladder([2]), bare])


def test_molecules_and_crystals_live_in_one_data_set() -> None:
    dataset = ragged(
        [[13], [1, 1]],
        [np.zeros((1, 3)), np.zeros((2, 3))],
        [0.0, 0.0],
        [SOURCE],
        cells=[4 * np.eye(3), None],
        pbc=[[True] * 3, [False] * 3],
    )
    assert dataset[0].volume == pytest.approx(64)
    assert dataset[1].cell is None


def test_forces_of_the_wrong_shape_name_the_frame() -> None:
    with pytest.raises(InconsistentData, match=r"frame 1: forces has shape \[2\], expected a row of three numbers"):
        ragged([[1], [1]], [np.zeros((1, 3))] * 2, [0, 0], [SOURCE], forces=[np.zeros((1, 3)), np.zeros(2)])


def test_forces_for_a_different_number_of_atoms_are_refused() -> None:
    with pytest.raises(InconsistentData, match=r"forces has shape \[3, 3\], expected \[2, 3\]"):
        ragged([[1], [1]], [np.zeros((1, 3))] * 2, [0, 0], [SOURCE], forces=[np.zeros((1, 3)), np.zeros((2, 3))])


def test_one_energy_too_few_is_refused() -> None:
    with pytest.raises(InconsistentData, match=r"energy has shape \[1\], expected \[2\]"):
        uniform([1], np.zeros((2, 1, 3)), [0.0], [SOURCE])


def test_compositions_do_not_depend_on_the_order_of_atoms() -> None:
    dataset = ragged([[1, 8, 1], [8, 1, 1], [8, 1]], [np.zeros((n, 3)) for n in (3, 3, 2)], np.zeros(3), [SOURCE])
    labels = dataset.compositions()
    assert labels[0] == labels[1] != labels[2]
    assert dataset.formulas() == ["H2O", "HO"]
    elements, counts = dataset.element_counts()
    assert elements.tolist() == [1, 8]
    assert counts.tolist() == [[2, 1], [2, 1], [1, 1]]


def test_a_note_brings_the_count_of_frames_up_to_date() -> None:
    (noted,) = ladder([1, 1, 1]).select([0, 2]).noting("One dropped.").sources
    assert noted.count == 2
    assert noted.notes == "One dropped."


def test_a_cut_that_leaves_nothing_says_so() -> None:
    with pytest.raises(EmptyData, match=r"made up: no frame is left\. All too high\. Loosen the cut"):
        ladder([1]).select([]).noting("All too high.")
