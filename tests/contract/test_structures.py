"""Structures are checked once at the door; every refusal says what, where and what to do."""

from typing import Any

import numpy as np
import pytest

from contract.errors import InvalidInput
from contract.structures import checked_structure

WATER = ([8, 1, 1], [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
BOX = np.diag([5.0, 5.0, 5.0])

REFUSED: dict[str, tuple[tuple[Any, ...], str, int]] = {
    "no atoms": (([], np.zeros((0, 3))), "empty_structure", 422),
    "fractional atomic number": (([8.5, 1, 1], WATER[1]), "bad_type", 400),
    "atomic number as text": ((["8", "1", "1"], WATER[1]), "bad_type", 400),
    "boolean atomic number": (([True, True, True], WATER[1]), "bad_type", 400),
    "numbers in two dimensions": (([[8, 1, 1]], WATER[1]), "bad_shape", 400),
    "a single number": ((8, WATER[1]), "bad_shape", 400),
    "element zero": (([0, 1, 1], WATER[1]), "unknown_element", 422),
    "element 119": (([119, 1, 1], WATER[1]), "unknown_element", 422),
    "positions of fewer atoms": (([8, 1, 1, 1], WATER[1]), "bad_shape", 400),
    "positions in a plane": ((WATER[0], [[0, 0]] * 3), "bad_shape", 400),
    "ragged positions": ((WATER[0], [[0, 0, 0], [1, 0], [2, 0, 0]]), "bad_shape", 400),
    "positions as text": ((WATER[0], [["0", "0", "nan"]] * 3), "bad_type", 400),
    "null positions": ((WATER[0], [[None, 0, 0]] * 3), "bad_type", 400),
    "NaN": ((WATER[0], [[np.nan, 0, 0], [1, 0, 0], [2, 0, 0]]), "non_finite", 400),
    "infinity": ((WATER[0], [[np.inf, 0, 0], [1, 0, 0], [2, 0, 0]]), "non_finite", 400),
    "huge coordinates": ((WATER[0], [[1e30, 0, 0], [1, 0, 0], [2, 0, 0]]), "coordinate_range", 422),
    "periodic without a cell": ((*WATER, None, True), "missing_cell", 422),
    "singular cell": ((*WATER, np.ones((3, 3)), True), "singular_cell", 422),
    "a periodic direction without a vector": ((*WATER, np.diag([5.0, 5.0, 0.0]), True), "singular_cell", 422),
    "cell of two vectors": ((*WATER, BOX[:2], True), "bad_shape", 400),
    "cell with NaN": ((*WATER, np.full((3, 3), np.nan), True), "non_finite", 400),
    "pbc as numbers": ((*WATER, BOX, [1, 1, 0]), "bad_type", 400),
    "pbc of two": ((*WATER, BOX, [True, False]), "bad_shape", 400),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_structure_is_refused_with_field_index_and_remedy(case: tuple[tuple[Any, ...], str, int]) -> None:
    arguments, code, status = case
    with pytest.raises(InvalidInput) as refusal:
        checked_structure(*arguments, index=7)
    error = refusal.value
    assert (error.code, error.status) == (code, status)
    assert error.facts["index"] == 7
    assert "structures[7]" in error.detail
    assert error.hint


def test_a_left_handed_cell_is_right_input() -> None:
    cell = np.diag([5.0, 5.0, -6.0])
    assert checked_structure(*WATER, cell, True).volume == pytest.approx(150.0)


def test_a_slab_may_leave_out_the_vector_it_does_not_need() -> None:
    slab = checked_structure(*WATER, np.diag([5.0, 6.0, 0.0]), [True, True, False])
    assert slab.cell is not None
    assert slab.volume == pytest.approx(30.0)
    assert not slab.fully_periodic


def test_integer_positions_and_other_integer_types_are_understood() -> None:
    structure = checked_structure(np.array([1], np.uint8), np.array([[1, 2, 3]]))
    assert structure.positions.dtype == np.float64
    assert structure.numbers.dtype == np.int64


def test_a_cell_of_a_molecule_that_is_not_periodic_is_only_checked_for_its_shape() -> None:
    assert not checked_structure(*WATER, np.zeros((3, 3)), False).pbc.any()
