"""The graph means what the card says: its cutoff, its elements, its members, its energies on labelled data."""

from itertools import combinations, combinations_with_replacement
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.card import Check
from contract.elements import SYMBOLS
from contract.graphs import build_graph, collate
from contract.structures import checked_structure
from training.candidate import reference_energies
from training.gate.deviation import PARITY, count, deviations
from training.gate.samples import lone_atoms
from training.gate.submission import Submission

FEWEST_LABELS: Final = 10
ALIKE: Final = 1e-7
CUTOFF_TOLERANCE_ANGSTROM: Final = 1e-3
LARGEST_FACTOR: Final = 5.0
_NO_ELEMENT: Final = 0


def cutoff_of_the_graph(submission: Submission) -> list[Check]:
    """The distance at which two atoms cease to feel each other, found by bisection, against the card's cutoff."""
    low, high = 0.5 * submission.cutoff, 1.5 * submission.cutoff
    while high - low > 0.01 * CUTOFF_TOLERANCE_ANGSTROM:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if _felt(submission, middle) else (low, middle)
    found = 0.5 * (low + high)
    return [
        Check(
            name="cutoff of the graph",
            measured=abs(found - submission.cutoff),
            bound=CUTOFF_TOLERANCE_ANGSTROM,
            unit="angstrom from the card's",
            detail=f"the graph's is {found:.4f}, the card's {submission.cutoff:.4f}",
        )
    ]


def energy_moves(submission: Submission) -> list[Check]:
    """Stretched structures have other energies."""
    structures = [s for s in submission.molecules if len(s) > 1]
    inputs = submission.inputs(structures, skin=0.2 * submission.cutoff)
    stretched = {name: (1.05 * inputs[name]).astype(np.float32) for name in ("positions", "shifts")}
    still, moved = submission.everyday(inputs)["energy"], submission.everyday(inputs | stretched)["energy"]
    dead = np.flatnonzero(~_apart(still, moved, inputs["structure"]).any(axis=0))
    return [count("energy depends on positions", (f"structure {b}" for b in dead), "structures whose energy stays")]


def elements_known(submission: Submission) -> list[Check]:
    """Every element of the card has the network's own energy for an atom alone, and not that of no element."""
    inputs = submission.inputs(lone_atoms(submission.elements))
    served, meant = submission.everyday(inputs), submission.exact(inputs)
    nameless = submission.everyday(inputs | {"species": np.full_like(inputs["species"], _NO_ELEMENT)})
    wrong = [
        SYMBOLS[z]
        for i, z in enumerate(submission.elements)
        if not np.allclose(served["energy"][:, i], meant["energy"][:, i], rtol=1e-5, atol=1e-5)
        or np.array_equal(served["energy"][:, i], nameless["energy"][:, i])
    ]
    return [count("elements of the card", wrong, "elements that the graph takes for another")]


def members_as_declared(submission: Submission) -> list[Check]:
    """As many members as the card says, no two of them alike: else the committee's spread means nothing."""
    inputs = submission.inputs(submission.molecules)
    energy = submission.everyday(inputs)["energy"]
    missing = abs(len(energy) - submission.card.committee.members)
    pairs = combinations(range(len(energy)), 2)
    alike = [
        f"{a} and {b}" for a, b in pairs if not _apart(energy[a : a + 1], energy[b : b + 1], inputs["structure"]).any()
    ]
    return [
        Check(name="members on the card", measured=float(missing), bound=0, unit="members missing or too many"),
        count("members differ", alike, "pairs that are alike"),
    ]


def labels_held_out(submission: Submission) -> list[Check]:
    """Enough labelled frames that the network was not fitted to; without them its errors are unknown."""
    missing = max(0, FEWEST_LABELS - len(submission.test))
    return [Check(name="labelled frames held out", measured=float(missing), bound=0, unit="frames missing")]


def better_than_the_mean(submission: Submission) -> list[Check]:
    """Mean absolute error on held-out labels over that of the best constant beside the atomic references.

    Where forces are all that is known: their root mean square error over that of no force.
    """
    test = submission.labelled
    if not len(test):
        return []
    if test.energy is None:
        return _better_than_no_force(submission)
    references = reference_energies(test.structures, submission.card.atomic_reference_ev)
    served = submission.labelled_energy.mean(axis=0) + references
    error = float(np.abs(served - test.energy).mean())
    beside = test.energy - references
    trivial = float(np.abs(beside - np.median(beside)).mean())
    return [_beside_trivial(error, trivial, f"{1e3 * error:.3g} meV against {1e3 * trivial:.3g} meV", len(test))]


def unit_of_the_energies(submission: Submission) -> list[Check]:
    """How much the energies vary, against the labels: hartree, kcal/mol or a wrong sign in place of eV show here.

    The least-squares slope of energies on labels, both beside the atomic references, or its inverse if that is larger.
    Where forces are all that is known: the slope of labels on forces, which scatter of the labels does not change.
    """
    test = submission.labelled
    if not len(test):
        return []
    if test.energy is None:
        return _unit_of_the_forces(submission)
    served = submission.labelled_energy.mean(axis=0)
    labels = test.energy - reference_energies(test.structures, submission.card.atomic_reference_ev)
    vary = labels - labels.mean()
    slope = float(served @ vary) / max(float(vary @ vary), np.finfo(float).tiny)
    return [_of_slope("unit of the energies", slope, len(test))]


def answers_of_the_run(submission: Submission) -> list[Check]:
    """The files answer what the trained run answered when it was evaluated: not an older state of it."""
    test = submission.labelled
    if not len(test):
        return []
    atoms = np.repeat(np.arange(len(test)), [len(s) for s in test.structures])
    found = deviations({"energy": submission.labelled_energy}, {"energy": test.predicted}, atoms)
    return [
        Check(
            name="answers of the trained run",
            measured=found["energy"],
            bound=5 * PARITY["energy"],
            unit="relative",
            detail=f"{len(test)} frames",
        )
    ]


def _better_than_no_force(submission: Submission) -> list[Check]:
    target, served = _forces(submission)
    error, trivial = (float(np.sqrt(np.mean(x**2))) for x in (served - target, target))
    detail = f"{1e3 * error:.3g} meV/angstrom against {1e3 * trivial:.3g}"
    return [_beside_trivial(error, trivial, detail, len(submission.labelled))]


def _unit_of_the_forces(submission: Submission) -> list[Check]:
    target, served = _forces(submission)
    slope = float((served * target).sum()) / max(float((served**2).sum()), np.finfo(float).tiny)
    return [_of_slope("unit of the forces", slope, len(submission.labelled))]


def _beside_trivial(error: float, trivial: float, detail: str, frames: int) -> Check:
    return Check(
        name="better than the mean predictor",
        measured=error / trivial if trivial > 0.0 else np.inf,
        bound=1.0,
        unit="of its error",
        detail=f"{detail} over {frames} frames",
    )


def _of_slope(name: str, slope: float, frames: int) -> Check:
    return Check(
        name=name,
        measured=max(slope, 1.0 / slope) if slope > 0.0 else np.inf,
        bound=LARGEST_FACTOR,
        unit="times the labels, or a part of them",
        detail=f"slope {slope:.3g} over {frames} frames",
    )


def _forces(submission: Submission) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Labels and served forces, eV/angstrom [A, 3]."""
    labels = submission.labelled.force_labels
    if labels is None:
        raise ValueError("held-out frames have neither energies nor forces")
    return labels.target.astype(np.float64), submission.labelled_forces.astype(np.float64)


def _felt(submission: Submission, distance: float) -> bool:
    """Whether any pair of elements exerts a force at this distance; the lists reach further, the graph decides."""
    pairs = combinations_with_replacement(submission.elements, 2)
    dimers = [checked_structure(pair, [[0.0, 0.0, 0.0], [distance, 0.0, 0.0]]) for pair in pairs]
    inputs = collate([build_graph(dimer, 2.0 * submission.cutoff) for dimer in dimers])
    return bool((submission.everyday(inputs)["forces"] != 0.0).any())


def _apart(a: NDArray[np.float64], b: NDArray[np.float64], structure: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether energies [M, B] differ by more than the last digits."""
    scale = np.maximum(np.abs(a), 1e-3 * np.bincount(structure))
    return np.asarray(~(np.abs(a - b) <= ALIKE * scale))
