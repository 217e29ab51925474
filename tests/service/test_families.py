"""The potential family and its domain verdicts: pure functions, tested without a server."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import AMPLITUDES, CUTOFF, REFERENCE_EV, PairEngine, card_of, pair_energy
from wires import malonaldehyde, structure_of

from contract.environments import Environments, descriptors
from contract.graphs import build_graph
from contract.structures import Structure, checked_structure
from service.errors import NonFiniteAnswer, UnsupportedElement
from service.families.potential import Potential, Prediction
from service.models import compute_of

M = structure_of(malonaldehyde())


@pytest.fixture
def family(tmp_path: Path) -> Callable[..., Potential]:
    """Makes the family for a card with changes."""
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "model.onnx").write_bytes(b"not read here")
    return lambda **changes: Potential.of(card_of(tmp_path, "tiny", **changes))


def moved(structure: Structure, atom: int, by: tuple[float, float, float]) -> Structure:
    positions = structure.positions.copy()
    positions[atom] += by
    return checked_structure(structure.numbers, positions)


def test_the_family_with_any_engine_gives_the_potential_s_energies(family: Callable[..., Potential]) -> None:
    potential = family()
    structures = [M, checked_structure([6], [[0, 0, 0]]), checked_structure([6, 1], [[0, 0, 0], [0, 0, 1.1]])]
    predictions = compute_of(potential, PairEngine())([potential.encode(s, n) for n, s in enumerate(structures)])
    for structure, prediction in zip(structures, predictions, strict=True):
        assert prediction.energy == pytest.approx(pair_energy(structure), abs=1e-4)
        assert prediction.atomic_energies.sum() == pytest.approx(prediction.energy, abs=1e-4)
        assert prediction.forces.shape == prediction.forces_std.shape == (len(structure), 3)
    assert predictions[1].energy == REFERENCE_EV["C"]


def test_a_cost_is_atoms_times_the_standard_number_of_neighbours(family: Callable[..., Potential]) -> None:
    sample = family().encode(M)
    assert (sample.rows, sample.width) == (9, 8)
    assert family().encode(checked_structure([6], [[0, 0, 0]])).width == 1


def test_outputs_of_another_batch_are_never_handed_out(family: Callable[..., Potential]) -> None:
    potential = family()
    samples = [potential.encode(M), potential.encode(M)]
    outputs = PairEngine()(potential.collate(samples))
    with pytest.raises(ValueError, match="came back"):
        potential.split(outputs, samples[:1])


@pytest.mark.parametrize("name", ["energy", "forces", "virial"])
def test_a_number_that_is_not_finite_is_laid_at_the_door_of_its_structure(
    family: Callable[..., Potential], name: str
) -> None:
    potential = family()

    def broken(tensors: dict[str, np.ndarray], stop: object) -> dict[str, np.ndarray]:
        outputs = PairEngine()(tensors)
        where: Any = {"energy": (0, -1), "forces": (-1, 0), "virial": (-1, 0, 0)}[name]
        outputs[name][where] = np.nan
        return outputs

    compute = compute_of(potential, broken)
    samples = [potential.encode(M, 0), potential.encode(M, 1)]
    with pytest.raises(NonFiniteAnswer, match=r"structures\[1\]"):
        compute(samples)
    (outcome,) = compute(samples[1:])
    assert isinstance(outcome, NonFiniteAnswer)


def test_an_unknown_element_is_named_with_its_atoms(family: Callable[..., Potential]) -> None:
    with pytest.raises(UnsupportedElement, match="atom 1 is N") as refusal:
        family().encode(checked_structure([6, 7, 7], np.diag([0.0, 1.5, 3.0])), index=4)
    assert refusal.value.facts["atoms"] == [1, 2]
    assert refusal.value.facts["index"] == 4


def test_warm_batches_are_legal_for_every_usual_number_of_neighbours(family: Callable[..., Potential]) -> None:
    widths = [batch["neighbours"].shape[1] for batch in family().warm_batches()]
    assert {1, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256} <= set(widths)
    for batch in family(max_slots=100).warm_batches():
        assert np.isfinite(PairEngine()(batch)["energy"]).all()


def test_spreads_are_scaled_as_the_card_says(
    family: Callable[..., Potential],
) -> None:
    crystal = checked_structure(M.numbers, M.positions, 12.0 * np.eye(3), True)

    def answer(**changes: Any) -> Prediction:
        (prediction,) = compute_of(family(**changes), PairEngine())([family(**changes).encode(crystal)])
        return prediction

    def calibrated(scale: float) -> dict[str, Any]:
        return {"scale": scale, "half_width_95": 2.0, "against": "labels", "fitted_to": 9, "coverage": []}

    own = answer()
    energies = answer(committee={"members": 4, "energy": calibrated(2.0)})
    both = answer(committee={"members": 4, "energy": calibrated(2.0), "forces": calibrated(3.0)})
    assert energies.energy_std == both.energy_std == 2.0 * own.energy_std
    for scaled, factor in ((energies, 2.0), (both, 3.0)):
        np.testing.assert_allclose(scaled.forces_std, factor * own.forces_std, rtol=1e-6)
        np.testing.assert_allclose(scaled.stress_std, factor * own.stress_std, rtol=1e-6)
    ratio = np.std(AMPLITUDES, ddof=1) / np.mean(AMPLITUDES)
    np.testing.assert_allclose(own.stress_std, ratio * np.abs(own.stress), rtol=1e-4, atol=1e-9)


def test_atoms_with_unfamiliar_surroundings_are_named_the_strangest_first(family: Callable[..., Potential]) -> None:
    width = descriptors(build_graph(M, CUTOFF), np.array([1, 6, 8])).shape[1]
    own = descriptors(build_graph(M, CUTOFF), np.array([1, 6, 8]))
    centres = np.stack([np.resize(own[M.numbers == z], (4, width)) for z in (1, 6, 8)])
    white = np.broadcast_to(np.eye(width, dtype=np.float32), (3, width, width)).copy()
    environments = Environments(
        np.array([1, 6, 8]), np.zeros((3, width), np.float32), white, centres, np.full(3, 0.2, np.float32)
    )
    surroundings = {"centres": 4, "out_beyond": 1.5, "held_out_flagged": 0.01}
    card = family(domain={"surroundings": surroundings}).card
    potential = Potential.of(card, environments)

    def judged(structure: Structure) -> Any:
        sample = potential.encode(structure)
        return potential.judge.judge(structure, sample.graph, 0.0, sample.unfamiliar)

    assert judged(M).verdict == "in"
    hydrogen = int(np.flatnonzero(M.numbers == 1)[0])
    away = judged(moved(M, hydrogen, (0.0, 0.0, 0.9)))
    assert away.verdict == "out"
    assert hydrogen in away.atoms
    assert "surroundings unlike the training data" in " ".join(away.reasons)


def verdict(potential: Potential, structure: Structure, std: float | None = 0.0) -> Any:
    return potential.judge.judge(structure, potential.encode(structure).graph, std)


def test_a_structure_like_the_training_data_is_in_the_domain(family: Callable[..., Potential]) -> None:
    domain = verdict(family(), M)
    assert (domain.in_domain, domain.verdict, domain.reasons, domain.atoms) == (True, "in", [], [])


def test_another_molecule_is_out_and_told_why(family: Callable[..., Potential]) -> None:
    water = checked_structure([8, 1, 1], [[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    domain = verdict(family(), water)
    assert (domain.in_domain, domain.verdict) == (False, "out")
    assert domain.reasons == ["The model was not trained on H2O: the training data hold C3H4O2."]
    assert verdict(family(domain={"formulas": None}), water).in_domain


@pytest.mark.parametrize(("distance", "expected"), [(1.0, "in"), (0.85, "edge"), (0.6, "out")])
def test_atoms_closer_than_in_training_are_named(
    family: Callable[..., Potential], distance: float, expected: str
) -> None:
    bond = M.positions[0] - M.positions[4]
    shift = tuple(bond * (distance / np.linalg.norm(bond) - 1.0))
    domain = verdict(family(), moved(M, 0, shift))
    assert domain.verdict == expected
    if expected != "in":
        assert domain.atoms[0] == 0
        assert f"{distance:.3f} angstrom apart; the closest in the training data are 0.900" in domain.reasons[0]


def test_a_periodic_structure_is_out_of_a_molecule_s_domain_and_the_reverse(family: Callable[..., Potential]) -> None:
    periodic = checked_structure(M.numbers, M.positions, np.eye(3) * 30, True)
    assert verdict(family(), periodic).verdict == "out"
    bulk = family(domain={"periodic": True})
    assert verdict(bulk, periodic).verdict == "in"
    assert verdict(bulk, M).verdict == "edge"


@pytest.mark.parametrize(("std", "expected"), [(None, "in"), (4.9, "in"), (5.1, "edge"), (51.0, "out")])
def test_a_committee_that_disagrees_leads_out_of_the_domain(
    family: Callable[..., Potential], std: float | None, expected: str
) -> None:
    domain = verdict(family(), M, std)
    assert domain.verdict == expected
    assert domain.in_domain == (expected != "out")


def test_the_worst_finding_is_the_verdict_and_every_finding_is_told(family: Callable[..., Potential]) -> None:
    bond = M.positions[0] - M.positions[4]
    squeezed = moved(M, 0, tuple(bond * (0.85 / np.linalg.norm(bond) - 1.0)))
    domain = verdict(family(), squeezed, 60.0)
    assert domain.verdict == "out"
    assert len(domain.reasons) == 2


def test_an_isolated_atom_beside_others_has_no_nearest_and_no_finding(family: Callable[..., Potential]) -> None:
    far = np.concatenate([M.positions, [[0.0, 0.0, CUTOFF + 20.0]]])
    beside = checked_structure([*M.numbers, 1], far)
    assert verdict(family(domain={"formulas": None}), beside).verdict == "in"
