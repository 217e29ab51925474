"""The canonical form of a structure and the receipt made of it."""

import hashlib
import struct

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from understudy.receipts import Receipt, request_sha256, short_form, structure_sha256
from understudy.structures import as_structure

RECEIPT = {
    "kind": "understudy.receipt",
    "schema_version": 1,
    "model": "m",
    "version": "1",
    "digest": "d" * 64,
    "input_sha256": "",
    "inputs": ["a" * 64, "b" * 64],
    "options": {},
    "batch_mode": "batched",
    "engine": "onnxruntime",
    "engine_version": "1",
    "device": "cpu",
    "dtype": "float32",
    "software": {},
    "platform": "Linux",
}


def sha256_of(atoms: Atoms) -> str:
    structure = as_structure(atoms)
    return structure_sha256(structure.numbers, structure.positions, structure.cell, structure.pbc)


def test_the_canonical_form_is_the_documented_bytes() -> None:
    silicon = bulk("Si")
    expected = b"understudy.structure/1" + struct.pack("<Q2q", 2, 14, 14)
    expected += (
        struct.pack("<6d", *silicon.positions.ravel()) + b"\1\1\1" + struct.pack("<9d", *silicon.cell.array.ravel())
    )
    assert sha256_of(silicon) == hashlib.sha256(expected).hexdigest()


finite = st.floats(-1e3, 1e3, allow_subnormal=True)


@given(arrays(np.float64, (3, 3), elements=finite))
def test_memory_layout_byte_order_and_the_sign_of_zero_do_not_matter(positions: np.ndarray) -> None:
    numbers, pbc = np.array([1, 8, 1]), np.zeros(3, bool)
    plain = structure_sha256(numbers, positions, None, pbc)
    assert structure_sha256(numbers.astype(">i8"), np.asfortranarray(positions).astype(">f8"), None, pbc) == plain
    assert structure_sha256(numbers, np.where(positions == 0, -positions, positions), None, pbc) == plain
    assert structure_sha256(numbers, positions, np.eye(3), pbc) == plain  # a cell in which nothing is periodic


@pytest.mark.parametrize("change", ["numbers", "positions", "cell", "pbc", "order"])
def test_whatever_the_answer_depends_on_changes_the_hash(change: str) -> None:
    salt, other = bulk("NaCl", "rocksalt", 5.64), bulk("NaCl", "rocksalt", 5.64)
    if change == "numbers":
        other.numbers[0] = 3
    elif change == "positions":
        other.positions[0, 0] = np.nextafter(other.positions[0, 0], 1.0)
    elif change == "cell":
        other.cell[0] *= 1 + 1e-15
    elif change == "pbc":
        other.pbc = (True, True, False)
    else:
        other = other[[1, 0]]
    assert sha256_of(other) != sha256_of(salt)


def test_one_structure_of_many_has_the_receipt_it_would_have_alone() -> None:
    receipt = Receipt.model_validate({**RECEIPT, "input_sha256": request_sha256(RECEIPT["inputs"])})
    parts = [receipt.of(0), receipt.of(1)]
    assert [part.input_sha256 for part in parts] == RECEIPT["inputs"]
    assert parts[0].joined(parts[1:]) == receipt


def test_the_short_form_is_one_line_of_ascii() -> None:
    line = short_form({**RECEIPT, "input_sha256": "a" * 64})
    assert line == (f'schema=1, input="{"a" * 64}", model="m", version="1", digest="{"d" * 64}", mode="batched"')


def test_a_receipt_of_another_schema_is_not_taken_for_one_of_ours() -> None:
    with pytest.raises(ValueError, match="schema_version"):
        Receipt.model_validate({**RECEIPT, "schema_version": 2})
