import zipfile
from pathlib import Path

import numpy as np
import pytest

from contract.repository import sha256_of
from contract.units import HARTREE_EV, HARTREE_PER_BOHR_EV_ANGSTROM
from training.data.errors import EmptyData, UnreadableData
from training.data.fetch import cached, public_data
from training.data.provenance import Provenance
from training.data.qm22 import read_qm22

WITH_GRADIENT = """    3
   -76.40000000
O      0.0000000      0.0000000      0.1000000      0.0000000      0.0000000      0.0200000
H      0.0000000      0.7600000     -0.5000000      0.0000000     -0.0100000     -0.0100000
H      0.0000000     -0.7600000     -0.5000000      0.0000000      0.0100000     -0.0100000
    3
   -76.30000000
O      0.0000000      0.0000000      0.2000000      0.0000000      0.0000000      0.0000000
H      0.0000000      0.7600000     -0.5000000      0.0000000      0.0000000      0.0000000
H      0.0000000     -0.7600000     -0.5000000      0.0000000      0.0000000      0.0000000
"""
WITH_EXTRA_NUMBERS = """2
.000652407865 -.000008851911 -.0000918767 .000753136476
 H    -2.146673746    1.002106663    0.021236227
 F     2.187508870    0.971781735    0.008967574
2
.004 0 0 0
 H    -1.1    1.0    0.0
 F     2.1    0.9    0.0
2
.004 0 0 0
 H    -1.1    1.0    0.0
 F     2.1    0.9    0.0
"""


def write(folder: Path, text: str, name: str = "Molecule.xyz") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_energies_become_ev_and_gradients_become_forces(tmp_path: Path, provenance: Provenance) -> None:
    dataset = read_qm22(write(tmp_path, WITH_GRADIENT), provenance, "total")
    assert dataset.energy == pytest.approx([-76.4 * HARTREE_EV, -76.3 * HARTREE_EV], abs=1e-12)
    assert dataset[0].numbers.tolist() == [8, 1, 1]
    assert dataset[1].positions[0].tolist() == [0, 0, 0.2]
    assert dataset.forces is not None
    assert dataset.forces[0] == pytest.approx([0, 0, -0.02 * HARTREE_PER_BOHR_EV_ANGSTROM])


def test_further_numbers_beside_the_energy_are_not_used(tmp_path: Path, provenance: Provenance) -> None:
    dataset = read_qm22(write(tmp_path, WITH_EXTRA_NUMBERS), provenance, "relative")
    assert dataset.energy[0] == pytest.approx(0.000652407865 * HARTREE_EV)
    assert dataset.forces is None


def test_repeats_and_high_frames_go_and_the_notes_say_so(tmp_path: Path, provenance: Provenance) -> None:
    path = write(tmp_path, WITH_EXTRA_NUMBERS)
    dataset = read_qm22(path, provenance, "relative", max_energy_ev=0.05)
    (source,) = dataset.sources
    assert dataset.frames.tolist() == [0]
    assert source.count == 1
    assert source.sha256 == sha256_of(path)
    assert "1 exact repeats" in source.notes
    assert "Energy cut 0.05 eV above the set's own zero: 1 of 2 frames dropped." in source.notes


def test_total_energies_are_cut_above_the_lowest_frame(tmp_path: Path, provenance: Provenance) -> None:
    assert len(read_qm22(write(tmp_path, WITH_GRADIENT), provenance, "total", max_energy_ev=1.0)) == 1


def test_a_cut_below_every_frame_is_refused(tmp_path: Path, provenance: Provenance) -> None:
    with pytest.raises(EmptyData, match="no frame is left"):
        read_qm22(write(tmp_path, WITH_EXTRA_NUMBERS), provenance, "relative", max_energy_ev=1e-6)


def test_the_published_zip_is_read_without_unpacking(tmp_path: Path, provenance: Provenance) -> None:
    path = tmp_path / "Water.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Water.xyz", WITH_GRADIENT)
    assert len(read_qm22(path, provenance, "total")) == 2
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("Another.xyz", WITH_GRADIENT)
    with pytest.raises(UnreadableData, match=r"holds 2 \.xyz files, expected one"):
        read_qm22(path, provenance, "total")


def test_an_npz_holds_the_same_numbers_in_ev(tmp_path: Path, provenance: Provenance) -> None:
    path = tmp_path / "h2.npz"
    positions = np.array([[[0, 0, 0], [0, 0, 0.74]], [[0, 0, 0], [0, 0, 0.8]]])
    np.savez(path, numbers=np.uint8([1, 1]), positions=positions, energy=[-31.0, -30.9], forces=0 * positions)
    dataset = read_qm22(path, provenance, "total")
    assert dataset.energy.tolist() == [-31.0, -30.9]
    assert np.array_equal(dataset[1].positions, positions[1])
    np.savez(path, numbers=[1, 1], positions=positions)
    with pytest.raises(UnreadableData, match="Expected arrays numbers, positions and energy"):
        read_qm22(path, provenance, "total")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no frames"),
        ("two\n0.0\nH 0 0 0\n", r"line 1: expected the number of atoms, .* found 'two'"),
        ("2\n0.0\nH 0 0 0\n", "line 1: expected the number of atoms, with as many lines after it"),
        ("1\nenergy\nH 0 0 0\n", "line 2: expected an energy in hartree, found 'energy'"),
        ("1\n\nH 0 0 0\n", "line 2: expected an energy in hartree"),
        ("1\n0.0\nH 0 0 zero\n", "line 3: expected numbers behind the symbol, found 'H 0 0 zero'"),
        ("1\n0.0\nQ 0 0 0\n", "line 3: expected a chemical symbol"),
        ("1\n0.0\nH 0 0\n", "line 3: expected a chemical symbol, then 3 or 6 numbers"),
        ("1\n0.0\nH 0 0 0\n1\n0.0\nH 0 0 0 1 1 1\n", "line 6: expected a chemical symbol, then 3 or 6 numbers"),
    ],
)
def test_text_in_another_format_is_refused_naming_the_line(
    text: str, said: str, tmp_path: Path, provenance: Provenance
) -> None:
    with pytest.raises(UnreadableData, match=said):
        read_qm22(write(tmp_path, text), provenance, "total")


def test_a_broken_archive_is_refused(tmp_path: Path, provenance: Provenance) -> None:
    with pytest.raises(UnreadableData, match="is not a zip archive"):
        read_qm22(write(tmp_path, "not a zip", "Broken.zip"), provenance, "total")


@pytest.mark.parametrize(
    "name", ["malonaldehyde", "ethanol", "methane", "formic_acid_dimer", "n_methylacetamide", "hydronium"]
)
def test_the_published_file_and_the_npz_give_the_same_numbers(
    name: str, shared_data: Path, provenance: Provenance
) -> None:
    public = f"qm22-{name.replace('_', '-')}"
    original = cached(public)
    if original is None:
        pytest.skip(f"{public} is not in the cache: `understudy data fetch {public}`")
    assert sha256_of(original) == public_data(public).sha256
    published = read_qm22(original, provenance, "total")
    packed = read_qm22(shared_data / "qm22" / f"{name}.npz", provenance, "total")
    assert np.array_equal(published.numbers, packed.numbers)
    assert np.array_equal(published.positions, packed.positions)
    assert published.energy == pytest.approx(packed.energy, rel=1e-14)
    assert (published.forces is None) == (packed.forces is None)
    if published.forces is not None and packed.forces is not None:
        assert np.array_equal(published.forces.astype(np.float32), packed.forces.astype(np.float32))
