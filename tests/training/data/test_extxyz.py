import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from contract.units import HARTREE_EV
from training.data.errors import UnreadableData
from training.data.extxyz import ExtxyzKeys, read_extxyz
from training.data.provenance import Provenance


def crystal(seed: int) -> Atoms:
    atoms = bulk("Al", cubic=True)
    atoms.rattle(0.1, seed=seed)
    atoms.calc = EMT()
    atoms.get_stress()
    return atoms


def labelled(atoms: Atoms, **results: object) -> Atoms:
    atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms


def test_a_crystal_written_by_ase_comes_back_with_all_its_labels(tmp_path: Path, provenance: Provenance) -> None:
    frames = [crystal(0), crystal(1)]
    write(tmp_path / "al.xyz", frames, format="extxyz")
    dataset = read_extxyz(tmp_path / "al.xyz", provenance)
    for i, atoms in enumerate(frames):
        assert dataset.energy[i] == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
        assert dataset.forces is not None
        assert dataset.forces[dataset.atoms_of(i)] == pytest.approx(atoms.get_forces(), abs=1e-7)
        assert dataset.stress is not None
        assert dataset.stress[i] == pytest.approx(atoms.get_stress(), abs=1e-8)
        assert dataset[i].volume == pytest.approx(atoms.get_volume())
        assert dataset[i].pbc.all()


def test_reference_labels_come_before_plain_ones(tmp_path: Path, provenance: Provenance) -> None:
    atoms = crystal(0)
    atoms.info["REF_energy"] = -3.0
    atoms.arrays["REF_forces"] = np.ones((4, 3))
    atoms.info["REF_stress"] = np.arange(9.0).reshape(3, 3)
    write(tmp_path / "al.xyz", atoms, format="extxyz")
    dataset = read_extxyz(tmp_path / "al.xyz", provenance)
    assert dataset.energy.tolist() == [-3.0]
    assert dataset.forces is not None
    assert (dataset.forces == 1).all()
    assert dataset.stress is not None
    assert dataset.stress[0].tolist() == [0, 4, 8, 6, 4, 2]


def test_keys_of_ones_own_are_read(tmp_path: Path, provenance: Provenance) -> None:
    atoms = molecule("H2O")
    atoms.info |= {"dft": -14.0, "energy": 7.0}
    write(tmp_path / "water.xyz", atoms, format="extxyz")
    assert read_extxyz(tmp_path / "water.xyz", provenance, ExtxyzKeys(energy=("dft",))).energy.tolist() == [-14.0]


def test_hartree_are_converted_with_their_forces(tmp_path: Path, provenance: Provenance) -> None:
    write(tmp_path / "h2.xyz", labelled(molecule("H2"), energy=-1.0, forces=np.full((2, 3), 0.1)), format="extxyz")
    dataset = read_extxyz(tmp_path / "h2.xyz", provenance, energy_unit="hartree")
    assert dataset.energy[0] == pytest.approx(-HARTREE_EV)
    assert dataset.forces is not None
    assert dataset.forces == pytest.approx(np.full((2, 3), 0.1 * HARTREE_EV))


def test_isolated_atoms_need_no_forces(tmp_path: Path, provenance: Provenance) -> None:
    frames = [labelled(Atoms("H"), energy=-13.0), labelled(molecule("H2"), energy=-31.0, forces=np.ones((2, 3)))]
    write(tmp_path / "h.xyz", frames, format="extxyz")
    dataset = read_extxyz(tmp_path / "h.xyz", provenance)
    assert dataset.forces is not None
    assert dataset.forces.tolist() == [[0, 0, 0], [1, 1, 1], [1, 1, 1]]


def test_a_formal_cell_of_a_molecule_is_left_out(tmp_path: Path, provenance: Provenance) -> None:
    atoms = labelled(molecule("H2O"), energy=0.0)
    atoms.cell = 50 * np.eye(3)
    write(tmp_path / "w.xyz", atoms, format="extxyz")
    assert read_extxyz(tmp_path / "w.xyz", provenance).cells is None


def test_a_slab_gets_a_third_vector(tmp_path: Path, provenance: Provenance) -> None:
    slab = labelled(Atoms("Al", cell=[3.0, 3.0, 0.0], pbc=(True, True, False)), energy=0.0)
    write(tmp_path / "slab.xyz", slab, format="extxyz")
    structure = read_extxyz(tmp_path / "slab.xyz", provenance)[0]
    assert structure.pbc.tolist() == [True, True, False]
    assert structure.volume > 0


def test_frames_of_one_configuration_type_become_a_group(tmp_path: Path, provenance: Provenance) -> None:
    frames = [labelled(Atoms("H", [[i, 0, 0]]), energy=float(i)) for i in range(4)]
    for atoms, kind in zip(frames, "abab", strict=True):
        atoms.info["kind"] = kind
    write(tmp_path / "h.xyz", frames, format="extxyz")
    groups = read_extxyz(tmp_path / "h.xyz", provenance, ExtxyzKeys(group="kind")).groups
    assert groups[0] == groups[2] != groups[1] == groups[3]
    with pytest.raises(UnreadableData, match=r"4 of 4 frames have no group \(sort\), the first is frame 0"):
        read_extxyz(tmp_path / "h.xyz", provenance, ExtxyzKeys(group="sort"))


def test_a_frame_without_energy_is_named(tmp_path: Path, provenance: Provenance) -> None:
    write(tmp_path / "h.xyz", [labelled(Atoms("H"), energy=0.0), Atoms("H")], format="extxyz")
    with pytest.raises(UnreadableData, match=r"1 of 2 frames have no energy \(REF_energy or energy\).* frame 1\."):
        read_extxyz(tmp_path / "h.xyz", provenance)


def test_forces_in_some_frames_only_are_refused(tmp_path: Path, provenance: Provenance) -> None:
    frames = [labelled(molecule("H2"), energy=0.0, forces=np.zeros((2, 3))), labelled(molecule("H2"), energy=0.0)]
    write(tmp_path / "h.xyz", frames, format="extxyz")
    with pytest.raises(UnreadableData, match="1 of 2 frames have no forces"):
        read_extxyz(tmp_path / "h.xyz", provenance)


def test_a_virial_is_not_taken_for_a_stress_and_the_notes_say_so(tmp_path: Path, provenance: Provenance) -> None:
    atoms = labelled(bulk("Al"), energy=0.0)
    atoms.info["virial"] = np.eye(3)
    write(tmp_path / "al.xyz", atoms, format="extxyz")
    dataset = read_extxyz(tmp_path / "al.xyz", provenance)
    assert dataset.stress is None
    assert "virials were not used" in dataset.sources[0].notes


@pytest.mark.parametrize("text", ["", "no xyz at all\n", "3\nenergy=1\nH 0 0 0\n"])
def test_a_file_in_another_format_is_refused(text: str, tmp_path: Path, provenance: Provenance) -> None:
    path = tmp_path / "broken.xyz"
    path.write_text(text)
    with pytest.raises(UnreadableData, match=r"broken\.xyz"):
        read_extxyz(path, provenance)


def test_the_published_3bpa_set_is_read(shared_data: Path, provenance: Provenance) -> None:
    dataset = read_extxyz(shared_data / "botnet/3bpa_train_300K.xyz.gz", provenance)
    assert len(dataset) == 500
    assert dataset.formulas() == ["C12H12N2O"]
    assert (dataset.energy.min(), dataset.energy.max()) == pytest.approx((-17660.81, -17659.77), abs=0.01)
    assert dataset.forces is not None
    with gzip.open(shared_data / "botnet/3bpa_train_300K.xyz.gz", "rt") as file:
        first = file.readlines()[2].split()
    assert dataset.positions[0] == pytest.approx([float(x) for x in first[1:4]])


def test_an_energy_cut_is_above_the_lowest_frame_of_the_formula(tmp_path: Path, provenance: Provenance) -> None:
    frames = [labelled(Atoms("H", [[i, 0, 0]]), energy=float(i)) for i in range(4)]
    write(tmp_path / "h.xyz", frames, format="extxyz")
    assert len(read_extxyz(tmp_path / "h.xyz", provenance, max_energy_ev=1.5)) == 2


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        (lambda lines: [*lines[:7], "1.0 2.0\n", *lines[8:]], "frame 1, line 8"),
        (lambda lines: [*lines[:5], "no number\n", *lines[6:]], "frame 1, line 6"),
        (lambda lines: [*lines[:8], "H 1 none 0\n", *lines[9:]], "frame 1, line 9"),
        (lambda lines: lines[:-1], "frame 2, line 15"),
    ],
    ids=["a row cut short", "a count that is none", "a word for a number", "an end that is missing"],
)
def test_a_damaged_frame_is_named_with_its_line(
    tmp_path: Path, provenance: Provenance, damage: Callable[[list[str]], list[str]], place: str
) -> None:
    frame = ["3\n", 'Properties=species:S:1:pos:R:3 energy=1.0 pbc="F F F"\n']
    frame += ["O 0 0 0\n", "H 1 0 0\n", "H 0 1 0\n"]
    (tmp_path / "a.xyz").write_text("".join(damage(frame * 3)))
    with pytest.raises(UnreadableData, match=place):
        read_extxyz(tmp_path / "a.xyz", provenance)
