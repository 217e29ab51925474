"""What a caller may give as a structure, and how it is packed for the wire."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from ase.io import write
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from understudy.errors import InvalidStructure
from understudy.structures import as_structure, as_structures, pack, read_frames

coordinates = st.floats(-1e6, 1e6)


@st.composite
def all_atoms(draw: st.DrawFn) -> Atoms:
    n = draw(st.integers(1, 6))
    periodic = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
    return Atoms(
        numbers=draw(npst.arrays(np.int64, n, elements=st.integers(1, 118))),
        positions=draw(npst.arrays(np.float64, (n, 3), elements=coordinates)),
        cell=draw(npst.arrays(np.float64, (3, 3), elements=coordinates)),
        pbc=periodic,
    )


@given(st.lists(all_atoms(), min_size=1, max_size=5))
def test_packing_keeps_every_atom_cell_and_order(frames: list[Atoms]) -> None:
    structures, single = as_structures(frames)
    tensors = pack(structures)
    assert not single
    assert tensors["natoms"].tolist() == [len(atoms) for atoms in frames]
    assert np.array_equal(tensors["numbers"], np.concatenate([atoms.numbers for atoms in frames]))
    assert np.array_equal(tensors["positions"], np.concatenate([atoms.positions for atoms in frames]))
    assert ("cell" in tensors) == ("pbc" in tensors) == any(atoms.pbc.any() for atoms in frames)
    for index, atoms in enumerate(frames):
        if atoms.pbc.any():
            assert np.array_equal(tensors["cell"][index], atoms.cell.array)
            assert np.array_equal(tensors["pbc"][index], atoms.pbc)
        elif "pbc" in tensors:
            assert not tensors["pbc"][index].any()


@given(all_atoms())
def test_a_dictionary_and_an_object_say_the_same_as_atoms(atoms: Atoms) -> None:
    given_data: dict[str, Any] = {
        "numbers": atoms.numbers.tolist(),
        "positions": atoms.positions.tolist(),
        "cell": atoms.cell.tolist(),
        "pbc": atoms.pbc.tolist(),
    }
    expected = pack([as_structure(atoms)])
    for other in (given_data, SimpleNamespace(**given_data)):
        packed = pack([as_structure(other)])
        assert packed.keys() == expected.keys()
        assert all(np.array_equal(packed[name], expected[name]) for name in expected)


def test_one_structure_is_told_from_a_list_of_one() -> None:
    water = molecule("H2O")
    assert as_structures(water)[1]
    assert not as_structures([water])[1]
    assert not as_structures(iter([water]))[1]


def test_later_changes_of_the_atoms_do_not_reach_a_structure_already_taken() -> None:
    water = molecule("H2O")
    structure = as_structure(water)
    water.positions += 1.0
    water.pbc = True
    assert np.array_equal(structure.positions, molecule("H2O").positions)
    assert not structure.pbc.any()


def test_a_cell_without_periodicity_is_not_sent() -> None:
    assert as_structure(molecule("H2O", vacuum=5.0)).cell is None


def test_a_slab_keeps_its_two_periodic_directions() -> None:
    structure = as_structure(fcc111("Al", (2, 2, 2)))
    assert structure.pbc.tolist() == [True, True, False]
    assert structure.cell is not None


def test_files_give_all_their_frames_in_order(tmp_path: Path) -> None:
    frames = [molecule("H2O"), bulk("Al", cubic=True), molecule("CH4")]
    path = tmp_path / "frames.extxyz"
    write(path, frames)
    structures, single = as_structures(path)
    assert not single
    assert [len(s) for s in structures] == [3, 4, 5]
    mixed, _ = as_structures([molecule("NH3"), str(path), bulk("Cu")])
    assert [len(s) for s in mixed] == [4, 3, 4, 5, 1]


@pytest.mark.parametrize(("name", "text"), [("empty.xyz", ""), ("broken.xyz", "3\n\nH 0 0\n"), ("a.nonsense", "?")])
def test_a_file_that_is_no_structure_is_refused_by_name(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InvalidStructure, match=name) as caught:
        read_frames(path)
    assert caught.value.code == "unreadable_file"


def test_a_symbol_that_is_no_element_is_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.xyz"
    path.write_text("2\n\nXx 0 0 0\nH 0 0 1\n")
    with pytest.raises(InvalidStructure, match="no element is called Xx"):
        read_frames(path)


def test_a_file_that_is_missing_is_an_ordinary_file_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_frames(tmp_path / "missing.xyz")


GOOD: dict[str, Any] = {"numbers": [8, 1], "positions": [[0, 0, 0], [0, 0, 1]]}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"numbers": []}, "numbers"),
        ({"numbers": None}, "numbers"),
        ({"numbers": [8.0, 1.0]}, "numbers"),
        ({"numbers": ["O", "H"]}, "numbers"),
        ({"numbers": [[8, 1]]}, "numbers"),
        ({"positions": [[0, 0, 0]]}, "positions"),
        ({"positions": [[0, 0], [0, 1]]}, "positions"),
        ({"positions": [[0, 0, 0], [0, 1]]}, "positions"),
        ({"positions": [["0", "0", "0"], ["0", "0", "1"]]}, "positions"),
        ({"positions": [[0, 0, 0], [0, 0, np.nan]]}, "positions"),
        ({"positions": [[0, 0, 0], [0, 0, np.inf]]}, "positions"),
        ({"positions": [[0, 0, 0], [0, 0, None]]}, "positions"),
        ({"pbc": True}, "cell"),
        ({"pbc": True, "cell": [1, 1, 1]}, "cell"),
        ({"pbc": 1}, "pbc"),
        ({"pbc": [True, False]}, "pbc"),
    ],
)
def test_what_cannot_be_sent_is_refused_with_index_and_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidStructure) as caught:
        as_structures([GOOD, {**GOOD, **change}])
    assert caught.value.facts["index"] == 1
    assert caught.value.facts["field"] == field
    assert f"structures[1].{field}" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("value", [3, None, object(), [1, 2], [[0, 0, 0]]])
def test_something_that_is_no_structure_at_all_is_refused(value: Any) -> None:
    with pytest.raises(InvalidStructure):
        as_structures(value)


@pytest.mark.parametrize("said", [{"charge": 1}, {"spin": 3}, {"multiplicity": 2.0}])
def test_a_charge_or_a_spin_is_not_left_out_in_silence(said: dict[str, float]) -> None:
    atoms = molecule("H2")
    atoms.info.update(said)
    for one in (atoms, {"numbers": [1], "positions": [[0, 0, 0]], **said}):
        with pytest.raises(InvalidStructure, match=r"structures\[0\]\.\w+ is [123]"):
            as_structures(one)
    atoms.info.update(charge=0, spin=1, multiplicity=1)
    assert len(as_structures(atoms)[0]) == 1
