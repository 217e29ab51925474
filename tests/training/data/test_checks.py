from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from contract.card import DataSource
from contract.units import BOHR_ANGSTROM, HARTREE_EV, KCAL_MOL_EV
from training.data.checks import (
    UnsoundData,
    atomic_energy_ev,
    inspect,
    require_apart,
    require_known,
    require_sound,
)
from training.data.dataset import Dataset, concatenate, ragged, uniform
from training.data.splits import Split, split, split_at_random

Springs = Callable[..., Dataset]


def codes(dataset: Dataset) -> list[str]:
    return [finding.code for finding in inspect(dataset)]


def parts(train: list[int], valid: list[int], test: list[int]) -> Split:
    return Split(*(np.array(p, np.int64) for p in (train, valid, test)), 0, 0, 0, "by hand")


def aluminium(source: DataSource, frames: int = 60) -> Dataset:
    """A rattled Al crystal that drifts through its faces, energies and forces by EMT."""
    rng = np.random.default_rng(0)
    atoms = bulk("Al", cubic=True) * (2, 1, 1)
    atoms.calc = EMT()
    made: list[Atoms] = []
    for _ in range(frames):
        atoms.positions += 0.02 * rng.normal(size=atoms.positions.shape) + 0.3
        atoms.wrap()
        made.append(atoms.copy())
        made[-1].info = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
    return ragged(
        [a.numbers for a in made],
        [a.positions for a in made],
        [a.info["energy"] for a in made],
        [source],
        forces=[a.info["forces"] for a in made],
        cells=[a.cell.array for a in made],
        pbc=[a.pbc for a in made],
    )


def test_sound_data_pass(springs: Springs, source: DataSource) -> None:
    require_sound(springs())
    require_sound(aluminium(source))


def test_nan_labels_are_refused_naming_the_frames_of_the_file(springs: Springs) -> None:
    dataset = springs(20)
    assert dataset.forces is not None
    dataset.energy[4] = np.nan
    dataset.forces[dataset.atoms_of(7), 0] = np.inf
    with pytest.raises(UnsoundData, match=r"not_finite: NaN or infinity .* Frames 4, 7\.") as caught:
        require_sound(dataset)
    assert caught.value.findings[0].frames == (4, 7)


def test_frames_are_numbered_as_in_the_file_also_after_a_selection(springs: Springs) -> None:
    dataset = springs(20)
    dataset.energy[13] = np.nan
    assert inspect(dataset.select(np.arange(10, 20)))[0].frames == (13,)


def test_more_than_ten_frames_are_counted_not_listed(springs: Springs) -> None:
    dataset = springs(30)
    dataset.energy[:] = np.nan
    assert str(inspect(dataset)[0]).endswith("Frames 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 20 more.")


def test_a_stress_that_is_left_out_as_a_whole_is_no_nan(source: DataSource) -> None:
    dataset = aluminium(source, 2)
    stress = np.zeros((2, 6))
    stress[1] = np.nan
    assert codes(replace(dataset, stress=stress)) == []
    stress[0, 2] = np.nan
    assert codes(replace(dataset, stress=stress)) == ["not_finite"]


def test_frames_without_atoms_and_data_without_frames_are_refused(springs: Springs, source: DataSource) -> None:
    hollow = ragged([[1], []], [np.zeros((1, 3)), np.zeros((0, 3))], [0, 0], [source])
    assert [(f.code, f.frames) for f in inspect(hollow)] == [("empty_frames", (1,))]
    assert codes(springs(3).select([])) == ["no_frames"]


def test_coincident_atoms_are_found_in_every_frame_they_occur(springs: Springs) -> None:
    dataset = springs(50)
    for frame in (0, 31):
        atoms = dataset.atoms_of(frame)
        dataset.positions[atoms.start] = dataset.positions[atoms.stop - 1] + [0, 0.003, 0]
    found = {f.code: f.frames for f in inspect(dataset)}
    assert found["coincident_atoms"] == (0, 31)


def test_atoms_of_different_frames_may_share_a_place(source: DataSource) -> None:
    assert "coincident_atoms" not in codes(uniform([1, 8], [[[0, 0, 0], [0, 0, 1]]] * 2, [-1.0, -1.0], [source]))


def test_an_atom_on_the_image_of_another_is_coincident(source: DataSource) -> None:
    cell = np.array([[4.0, 0, 0], [3.9, 0.5, 0], [0, 0, 4.0]])
    positions = [[[0.001, 0.1, 0.1], [4.0 + 3.9 - 0.001, 0.6, 0.1]], [[0.0, 0.1, 0.1], [2.0, 0.1, 0.1]]]
    dataset = ragged([[13, 13]] * 2, positions, [0, 0], [source], cells=[cell] * 2, pbc=[[True] * 3] * 2)
    assert [(f.code, f.frames) for f in inspect(dataset)] == [("coincident_atoms", (0,))]


def test_a_periodic_frame_needs_a_cell_with_a_volume(source: DataSource) -> None:
    flat = np.diag([3.0, 3.0, 0.0])
    dataset = ragged(
        [[13]] * 3, [np.zeros((1, 3))] * 3, [0, 0, 0], [source], cells=[3 * np.eye(3), None, flat], pbc=[[True] * 3] * 3
    )
    assert [(f.code, f.frames) for f in inspect(dataset)] == [("singular_cell", (1, 2))]


@pytest.mark.physics
def test_atomic_energies_are_those_of_hartree_fock_within_a_percent() -> None:
    """Hartree-Fock energies of C, N, O, Ne, Al, Ar in hartree: Clementi and Roetti (1974)."""
    hartree_fock = {6: -37.6886, 7: -54.4009, 8: -74.8094, 10: -128.5471, 13: -241.8767, 18: -526.8175}
    got = atomic_energy_ev(np.array(list(hartree_fock))) / HARTREE_EV
    assert got == pytest.approx(np.array(list(hartree_fock.values())), rel=0.01)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [("hartree", 1 / HARTREE_EV), ("kcal/mol", 1 / KCAL_MOL_EV), ("kJ/mol", 4.184 / KCAL_MOL_EV)],
)
def test_total_energies_in_another_unit_are_recognised(unit: str, factor: float, source: DataSource) -> None:
    water, methane = -76.4 * HARTREE_EV, -40.5 * HARTREE_EV
    frames = [[8, 1, 1], [6, 1, 1, 1, 1]]
    places = [np.arange(3 * len(z)).reshape(-1, 3) for z in frames]
    assert codes(ragged(frames, places, [water, methane], [source])) == []
    wrong = ragged(frames, places, [water * factor, methane * factor], [source])
    (finding,) = inspect(wrong)
    assert finding.code == "energy_unit"
    assert f"look like {unit}" in finding.message


@pytest.mark.parametrize("energy", [0.5, -8.0, -150.0, -1036.0])
def test_relative_binding_valence_and_total_energies_of_carbon_all_pass(energy: float, source: DataSource) -> None:
    assert codes(uniform([6], np.zeros((1, 1, 3)), [energy], [source])) == []


def test_energies_deeper_than_all_electrons_allow_are_refused(source: DataSource) -> None:
    assert codes(uniform([6], np.zeros((1, 1, 3)), [-5000.0], [source])) == ["energy_unit"]


@pytest.mark.parametrize(
    ("energy_factor", "force_factor", "said"),
    [
        (1.0, -1.0, "wrong sign"),
        (1.0, BOHR_ANGSTROM / HARTREE_EV, "look like hartree/bohr beside energies in eV"),
        (1.0, 1 / KCAL_MOL_EV, "look like kcal/mol/angstrom beside energies in eV"),
        (1.0, BOHR_ANGSTROM, "look like eV/bohr"),
        (1 / HARTREE_EV, 1.0, "look like eV/angstrom beside energies in hartree"),
        (1.0, 3.0, "do not fit the energies. They must be"),
    ],
)
def test_forces_of_the_wrong_sign_or_unit_are_recognised(
    springs: Springs, energy_factor: float, force_factor: float, said: str
) -> None:
    dataset = springs()
    assert dataset.forces is not None
    wrong = replace(dataset, energy=energy_factor * dataset.energy, forces=force_factor * dataset.forces)
    (finding,) = inspect(wrong)
    assert finding.code == "force_labels"
    assert said in finding.message


def test_crystals_with_gradients_for_forces_are_refused(source: DataSource) -> None:
    dataset = aluminium(source)
    assert dataset.forces is not None
    assert codes(replace(dataset, forces=-dataset.forces)) == ["force_labels"]


def test_a_finding_that_a_person_accepts_does_not_stop_training(springs: Springs) -> None:
    dataset = springs()
    assert dataset.forces is not None
    require_sound(replace(dataset, forces=-dataset.forces), ignore=("force_labels",))


def test_one_geometry_with_two_energies_is_refused(springs: Springs, source: DataSource) -> None:
    dataset = springs(10)
    other = replace(dataset.select([3]), energy=dataset.energy[[3]] + 0.5)
    found = [f for f in inspect(concatenate([dataset, other])) if f.code == "conflicting_copies"]
    assert found[0].frames == (3, 10)


def test_noise_of_a_dft_grid_is_no_conflict(springs: Springs) -> None:
    dataset = springs(10)
    other = replace(dataset.select([3]), energy=dataset.energy[[3]] + 0.002)
    assert codes(concatenate([dataset, other])) == []


def test_a_sound_split_is_apart(springs: Springs) -> None:
    dataset = springs(300)
    require_apart(dataset, split(dataset))


def test_a_frame_in_two_parts_is_refused(springs: Springs) -> None:
    with pytest.raises(UnsoundData, match=r"shared_frames: .* Frames 2\."):
        require_apart(springs(5), parts([0, 1, 2], [3], [2, 4]))


def test_a_turned_copy_of_a_training_frame_in_the_test_part_is_refused(springs: Springs) -> None:
    dataset = springs(10)
    copy = dataset.select([3])
    copy.positions[:] = copy.positions @ np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]) + 5.0
    both = concatenate([dataset, copy])
    with pytest.raises(UnsoundData, match=r"shared_copies: .* Frames 3, 10\."):
        require_apart(both, parts([0, 1, 2, 3, 4], [5, 6], [7, 8, 9, 10]))


def test_a_molecule_in_two_parts_is_refused(springs: Springs) -> None:
    dataset = replace(springs(6), groups=np.array([0, 0, 1, 1, 2, 2]))
    with pytest.raises(UnsoundData, match=r"shared_groups: .* Frames 2, 3\."):
        require_apart(dataset, parts([0, 1, 2], [3], [4, 5]))


def test_a_random_split_of_data_with_copies_is_caught(springs: Springs) -> None:
    twice = concatenate([springs(50), springs(50)])
    with pytest.raises(UnsoundData, match="shared_copies"):
        require_apart(twice, split_at_random(twice))
    require_apart(twice, split(twice, tolerance=1e-5, block=1))


def test_elements_that_the_network_does_not_know_are_refused_with_their_frames(source: DataSource) -> None:
    water, hydrogen = np.array([8, 1, 1]), np.array([1, 1])
    places = np.arange(9.0).reshape(3, 3)
    dataset = ragged([hydrogen, water, water], [places[:2], places, places + 0.1], [0.0, 1.0, 2.0], [source])
    require_known(dataset, [1, 8])
    with pytest.raises(UnsoundData, match=r"unknown_elements: the data hold O, .* Frames 1, 2\."):
        require_known(dataset, [1, 6])
