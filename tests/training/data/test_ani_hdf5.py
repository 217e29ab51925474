from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from contract.units import HARTREE_EV
from training.data.ani_hdf5 import AniKeys, read_ani_hdf5
from training.data.checks import require_sound
from training.data.dataset import Dataset
from training.data.errors import UnreadableData
from training.data.fetch import cached
from training.data.provenance import Provenance

Springs = Callable[..., Dataset]


def comp6(path: Path, dataset: Dataset, sign: float = 1.0, species: object = (b"C", b"O", b"H", b"H")) -> Path:
    """The frames as two molecules in the layout of COMP6, hartree and angstrom."""
    assert dataset.forces is not None
    half = len(dataset) // 2
    shape = (-1, 4, 3)
    with h5py.File(path, "w") as file:
        for name, part in (("mol00", slice(0, half)), ("mol01", slice(half, None))):
            group = file.create_group(f"set/{name}")
            group["coordinates"] = dataset.positions.reshape(shape)[part]
            group["energies"] = dataset.energy[part] / HARTREE_EV
            group["forces"] = sign * dataset.forces.reshape(shape)[part] / HARTREE_EV
            group["species"] = np.array(species)
            group["lot"] = np.array([b"wb97x"])
    return path


def test_conformers_of_one_molecule_become_one_group_in_ev(
    tmp_path: Path, springs: Springs, provenance: Provenance
) -> None:
    made = springs(40)
    dataset = read_ani_hdf5(comp6(tmp_path / "a.h5", made), provenance)
    assert len(dataset) == 40
    assert dataset.energy == pytest.approx(made.energy)
    assert dataset.groups.tolist() == [0] * 20 + [1] * 20
    assert dataset.numbers[:4].tolist() == [6, 8, 1, 1]
    require_sound(dataset)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_sign_of_forces_is_measured_and_noted(
    sign: float, tmp_path: Path, springs: Springs, provenance: Provenance
) -> None:
    made = springs(100)
    dataset = read_ani_hdf5(comp6(tmp_path / "a.h5", made, sign), provenance)
    assert dataset.forces == pytest.approx(made.forces)
    assert ("negated" in dataset.sources[0].notes) == (sign < 0)
    assert "slope" in dataset.sources[0].notes


def test_a_declared_gradient_is_negated_without_measuring(
    tmp_path: Path, springs: Springs, provenance: Provenance
) -> None:
    made = springs(4)
    dataset = read_ani_hdf5(comp6(tmp_path / "a.h5", made, -1.0), provenance, forces_are="gradient")
    assert dataset.forces == pytest.approx(made.forces)


def test_a_sign_that_cannot_be_measured_must_be_declared(
    tmp_path: Path, springs: Springs, provenance: Provenance
) -> None:
    path = comp6(tmp_path / "a.h5", springs(4))
    with pytest.raises(UnreadableData, match=r"too few close conformers.*Declare forces_are"):
        read_ani_hdf5(path, provenance)
    assert read_ani_hdf5(path, provenance, forces_are="forces").forces is not None
    assert read_ani_hdf5(path, provenance, AniKeys(forces=False)).forces is None


@pytest.mark.parametrize("species", [np.array([6, 8, 1, 1], np.uint8), np.tile([6, 8, 1, 1], (20, 1))])
def test_species_may_be_numbers_of_a_molecule_or_of_every_conformer(
    species: np.ndarray, tmp_path: Path, springs: Springs, provenance: Provenance
) -> None:
    path = comp6(tmp_path / "a.h5", springs(40), species=species)
    assert read_ani_hdf5(path, provenance, forces_are="forces").numbers[:4].tolist() == [6, 8, 1, 1]


def test_molecules_that_share_an_array_by_size_are_groups_of_their_own(tmp_path: Path, provenance: Provenance) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("002")
        group["coordinates"] = np.arange(18.0).reshape(3, 2, 3)
        group["species"] = [[1, 1], [1, 9], [1, 1]]
        group["energies"] = [0.0, 1.0, 2.0]
    groups = read_ani_hdf5(tmp_path / "a.h5", provenance).groups
    assert groups[0] == groups[2] != groups[1]


def ani1x(path: Path) -> Path:
    """Two levels of theory, the better one known of a part of the conformers, as in ANI-1x."""
    with h5py.File(path, "w") as file:
        group = file.create_group("H2")
        group["atomic_numbers"] = np.array([1, 1], np.uint8)
        group["coordinates"] = np.arange(18.0).reshape(3, 2, 3)
        group["wb97x_dz.energy"] = [-1.0, -1.1, -1.2]
        group["wb97x_dz.forces"] = np.ones((3, 2, 3))
        group["ccsd(t)_cbs.energy"] = [-1.01, np.nan, -1.21]
    return path


def test_several_levels_of_theory_must_be_told_apart(tmp_path: Path, provenance: Provenance) -> None:
    with pytest.raises(UnreadableData, match=r"2 arrays could be the energy.*ccsd\(t\)_cbs.energy, wb97x_dz.energy"):
        read_ani_hdf5(ani1x(tmp_path / "a.h5"), provenance)


def test_coupled_cluster_energies_never_meet_dft_forces(tmp_path: Path, provenance: Provenance) -> None:
    dataset = read_ani_hdf5(ani1x(tmp_path / "a.h5"), provenance, AniKeys(energy="ccsd(t)_cbs.energy"))
    assert dataset.forces is None
    assert dataset.energy == pytest.approx([-1.01 * HARTREE_EV, -1.21 * HARTREE_EV])
    assert "1 of 3 frames without these labels dropped." in dataset.sources[0].notes
    assert dataset.frames.tolist() == [0, 2]


def test_forces_are_those_of_the_level_of_the_energy(tmp_path: Path, provenance: Provenance) -> None:
    path = ani1x(tmp_path / "a.h5")
    dataset = read_ani_hdf5(path, provenance, AniKeys(energy="wb97x_dz.energy"), forces_are="forces")
    assert dataset.forces == pytest.approx(np.full((6, 3), HARTREE_EV))
    assert dataset.sources[0].notes == "Labels: wb97x_dz.energy, wb97x_dz.forces."


def test_an_energy_cut_is_above_the_lowest_conformer(tmp_path: Path, provenance: Provenance) -> None:
    keys = AniKeys(energy="wb97x_dz.energy", forces=False)
    assert len(read_ani_hdf5(ani1x(tmp_path / "a.h5"), provenance, keys, max_energy_ev=3.0)) == 2


def test_a_missing_array_is_named_with_its_group(tmp_path: Path, provenance: Provenance) -> None:
    with pytest.raises(UnreadableData, match=r"group /H2 has no array 'mp2\.energy'; it has atomic_numbers, ccsd"):
        read_ani_hdf5(ani1x(tmp_path / "a.h5"), provenance, AniKeys(energy="mp2.energy"))


def test_species_that_do_not_fit_the_coordinates_are_refused(
    tmp_path: Path, springs: Springs, provenance: Provenance
) -> None:
    path = comp6(tmp_path / "a.h5", springs(4), species=[b"H", b"H"])
    with pytest.raises(UnreadableData, match=r"group /set/mol00: coordinates \[2, 4, 3\] and species \[2\] do not"):
        read_ani_hdf5(path, provenance, forces_are="forces")


def test_unknown_symbols_are_refused(tmp_path: Path, springs: Springs, provenance: Provenance) -> None:
    path = comp6(tmp_path / "a.h5", springs(4), species=[b"H", b"H", b"H", b"Qq"])
    with pytest.raises(UnreadableData, match="species Qq are no chemical symbols"):
        read_ani_hdf5(path, provenance, forces_are="forces")


def test_other_files_are_refused(tmp_path: Path, provenance: Provenance) -> None:
    (tmp_path / "text.h5").write_text("not HDF5")
    with pytest.raises(UnreadableData, match="cannot be read as HDF5"):
        read_ani_hdf5(tmp_path / "text.h5", provenance)
    h5py.File(tmp_path / "empty.h5", "w").close()
    with pytest.raises(UnreadableData, match="has no group with coordinates or positions"):
        read_ani_hdf5(tmp_path / "empty.h5", provenance)


def test_the_published_s66x8_holds_gradients(provenance: Provenance) -> None:
    path = cached("comp6-s66x8")
    if path is None:
        pytest.skip("comp6-s66x8 is not in the cache: `understudy data fetch comp6-s66x8`")
    dataset = read_ani_hdf5(path, provenance)
    assert len(dataset) == 528
    assert len(np.unique(dataset.groups)) == 66
    assert "Gradients" in dataset.sources[0].notes
    require_sound(dataset)
