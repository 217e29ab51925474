"""What a structure gets never depends on who shares its batch."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from contract.card import ALONE_OR_BATCHED, Check
from contract.structures import Structure
from training.gate.deviation import PARITY, agreement, deviations, differing, worst
from training.gate.engines import Arrays, Engine
from training.gate.samples import lone_atoms, small_cells
from training.gate.submission import Submission, doubled

ALONE_BOUNDS: Final[Mapping[str, float]] = {
    "energy": 1e-6,
    "forces": 1e-5,
    "virial": 1e-5,
    "atomic_energy": 2e-6,
    "member_forces": 1e-5,
    "member_virial": 1e-5,
}


def alone_or_batched(submission: Submission) -> list[Check]:
    """Each structure by itself against the same structure among all others."""
    structures = _structures(submission)
    inputs = submission.inputs(structures)
    each = [submission.inputs([structure], inputs["neighbours"].shape[1]) for structure in structures]
    exact = [submission.exact(doubled(one)) for one in each]
    checks = []
    for file, run in submission.engines.items():
        answers, alone = run(inputs), [run(one) for one in each]
        found = [
            (f"structure {b}", deviations(_part(answers, inputs, b), alone[b], one["structure"]))
            for b, one in enumerate(each)
        ]
        rounding = worst(
            ("", deviations(got, right, one["structure"])) for got, right, one in zip(alone, exact, each, strict=True)
        )
        checks += agreement(f"{file}, {ALONE_OR_BATCHED}", found, _bounds(rounding))
    return checks


def _bounds(rounding: Mapping[str, tuple[float, str]]) -> dict[str, float]:
    """ALONE_BOUNDS, or twice the rounding of an answer that had no mates, where that is more, up to the parity's bound.

    In company matrices are of another size and sums of another order: both answers are the exact one, rounded.
    """
    twice = {name: min(2.0 * error, PARITY[name]) for name, (error, _) in rounding.items()}
    return {name: max(bound, twice.get(name, 0.0)) for name, bound in ALONE_BOUNDS.items()}


def order_of_the_batch(submission: Submission) -> list[Check]:
    """The same structures in the opposite order."""
    structures = _structures(submission)
    forward, backward = submission.inputs(structures), submission.inputs(structures[::-1])
    checks = []
    for file, run in submission.engines.items():
        answers, turned = run(forward), run(backward)
        found = [
            (f"structure {b}", deviations(_part(turned, backward, len(structures) - 1 - b), _part(answers, forward, b),
                                          np.zeros(len(structure), np.int64)))
            for b, structure in enumerate(structures)
        ]  # fmt: skip
        checks += agreement(f"{file}, order of the batch", found, ALONE_BOUNDS)
    return checks


def sick_mate(submission: Submission) -> list[Check]:
    """One structure's positions are not numbers: everyone else's answer stays the same to the last bit."""
    inputs = submission.inputs(_structures(submission))
    return [
        Check(name=f"{file}, a mate that is not a number", measured=float(_infected(run, inputs)), bound=0,
              unit="numbers that changed")
        for file, run in submission.engines.items()
    ]  # fmt: skip


def _infected(run: Engine, inputs: Arrays) -> int:
    """Numbers of other structures that change when the second structure of a batch falls ill."""
    ill = 1
    poisoned = np.where((inputs["structure"] == ill)[:, None], np.float32(np.nan), inputs["positions"])
    clean, dirty = run(inputs), run(inputs | {"positions": poisoned})
    others = [b for b in range(len(inputs["cells"])) if b != ill]
    return sum(differing(_part(dirty, inputs, b), _part(clean, inputs, b)) for b in others)


def _structures(submission: Submission) -> list[Structure]:
    return [*submission.molecules, *small_cells(submission.elements), *lone_atoms(submission.elements)]


def _part(outputs: Arrays, inputs: Arrays, b: int) -> Arrays:
    """One structure's share of a batch's answers."""
    atoms = inputs["structure"] == b
    return {name: _share(name, value, atoms, b) for name, value in outputs.items()}


def _share(name: str, value: NDArray[Any], atoms: NDArray[np.bool_], b: int) -> NDArray[Any]:
    match name:
        case "energy" | "member_virial":
            part = value[:, b : b + 1]
        case "virial":
            part = value[b : b + 1]
        case "forces":
            part = value[atoms]
        case _:
            part = value[:, atoms]
    return part
