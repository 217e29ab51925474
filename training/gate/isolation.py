"""What a structure gets never depends on who shares its batch."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from contract.card import Check
from contract.structures import Structure
from training.gate.deviation import agreement, deviations, differing
from training.gate.engines import Arrays, Engine
from training.gate.samples import lone_atoms, small_cells
from training.gate.submission import Submission

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
    slots = inputs["neighbours"].shape[1]
    checks = []
    for file, run in submission.engines.items():
        answers = run(inputs)
        found = []
        for b, structure in enumerate(structures):
            alone = submission.inputs([structure], slots)
            found.append((f"structure {b}", deviations(_part(answers, inputs, b), run(alone), alone["structure"])))
        checks += agreement(f"{file}, alone or batched", found, ALONE_BOUNDS)
    return checks


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
