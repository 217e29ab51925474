"""Forces are minus the gradient of the energy, and virials its derivative by strain: by finite differences.

f'(x) = [f(x - 2h) - 8 f(x - h) + 8 f(x + h) - f(x + 2h)] / 12h + O(h^4)
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.card import Check
from contract.structures import Structure
from training.gate.deviation import agreement, deviations
from training.gate.engines import Arrays, Engine
from training.gate.samples import chains, small_cells, spread
from training.gate.submission import EVERYDAY, MEMBERS, Submission, doubled, tiled

SKIN_ANGSTROM: Final = 0.3
LARGEST_CALL_SLOTS: Final = 10_000
LARGE_ATOMS, MOVED_ATOMS = 60, 12
"""Of a structure with more atoms than the first, so many, evenly spaced, are moved: each costs twelve energies."""
STENCIL: Final = ((-2, 1.0 / 12.0), (-1, -8.0 / 12.0), (1, 8.0 / 12.0), (2, -1.0 / 12.0))

# In float64 one short step will do. In float32 a long one errs by curvature and a short one by rounding, and which is
# better depends on the structure: the best of several counts. What is not the derivative agrees with none of them.
EXACT_STEPS: Final = ((1e-4, 1e-4), (2e-5, 2e-5))
EXACT_BOUNDS: Final[Mapping[str, float]] = {"forces": 2e-5, "virial": 1e-6}
SERVED_STEPS: Final = ((2e-2, 5e-3), (5e-3, 2e-3), (1.5e-3, 5e-4), (5e-4, 2e-4))
SERVED_BOUNDS: Final[Mapping[str, float]] = {"forces": 2e-3, "virial": 2e-3}

# One member turns more sharply than the mean of several: where a tensor norm of it is near zero no step in float32 is
# short enough. Its exactness is a matter of parity.members_agree; here a wrong sign, unit or member must show.
MEMBER_BOUNDS: Final[Mapping[str, float]] = {"forces": 2e-2, "virial": 2e-2}


def network_derivatives(submission: Submission) -> list[Check]:
    """The network's forces and virials in float64."""
    samples = [(label, doubled(inputs)) for label, inputs in _samples(submission)]
    found = _found(submission.exact, samples, EXACT_STEPS)
    return agreement("finite differences of the network", found, EXACT_BOUNDS)


def served_derivatives(submission: Submission) -> list[Check]:
    """Forces and virials that are served, by energies that are served."""
    found = _found(submission.everyday, list(_samples(submission)), SERVED_STEPS)
    return agreement(f"finite differences of {EVERYDAY}", found, SERVED_BOUNDS)


def member_derivatives(submission: Submission) -> list[Check]:
    """Forces and virials of the first and the last member that are served, by that member's served energies.

    The gate compares every member's with the network's (parity.members_agree); this holds even if both were wrong.
    """
    if MEMBERS not in submission.engines:
        return []
    run, samples = submission.engines[MEMBERS], list(_samples(submission))
    found = []
    for m in (0, submission.network.config.members - 1):
        found += [(f"member {m}, {label}", each) for label, each in _found(_alone(run, m), samples, SERVED_STEPS)]
    return agreement(f"finite differences of members in {MEMBERS}", found, MEMBER_BOUNDS)


def forces_by_differences(
    run: Engine, inputs: Arrays, step: float, atoms: NDArray[np.int64] | None = None
) -> NDArray[np.float64]:
    """-dE/dr of the mean energy of one structure, [a, 3], by moving these atoms, or all, by `step` angstrom each."""
    n = len(inputs["species"])
    moving = np.arange(n) if atoms is None else atoms
    moves = np.eye(3 * n).reshape(n, 3, n, 3)[moving].reshape(-1, n, 3)
    moved = np.concatenate([inputs["positions"] + k * step * moves for k, _ in STENCIL])
    return -_slope(_energies(run, inputs, {"positions": moved}), step).reshape(-1, 3)


def virial_by_differences(run: Engine, inputs: Arrays, strain: float) -> NDArray[np.float64]:
    """dE/dstrain of the mean energy of one structure, [3, 3]; positions and lattice translations are strained."""
    strains = np.eye(9).reshape(9, 3, 3)
    maps = np.concatenate([np.eye(3) + k * strain * strains for k, _ in STENCIL])
    names = ("positions", "shifts")
    strained = {name: np.einsum("...a,cab->c...b", inputs[name].astype(np.float64), maps) for name in names}
    return _slope(_energies(run, inputs, strained), strain).reshape(3, 3)


def _energies(run: Engine, inputs: Arrays, changed: Arrays) -> NDArray[np.float64]:
    """Energies [M, copies] of copies of one structure with these tensors [copies, ..]; few a call, for memory."""
    copies, found = len(next(iter(changed.values()))), []
    lot = max(1, LARGEST_CALL_SLOTS // inputs["neighbours"].size)
    for start in range(0, copies, lot):
        part = {name: values[start : start + lot] for name, values in changed.items()}
        together = tiled(inputs, min(lot, copies - start))
        for name, values in part.items():
            together[name] = values.reshape(together[name].shape).astype(inputs[name].dtype)
        found.append(run(together)["energy"])
    return np.concatenate(found, axis=1)


def _alone(run: Engine, m: int) -> Engine:
    """One member of a committee, as a committee of one."""

    def alone(inputs: Arrays) -> Arrays:
        outputs = run(inputs)
        forces, virial = outputs["member_forces"][m], outputs["member_virial"][m]
        return {"energy": outputs["energy"][m : m + 1], "forces": forces, "virial": virial}

    return alone


def _slope(energy: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Derivative of the mean over members, from energies [M, stencil x X]."""
    each = energy.mean(axis=0).reshape(len(STENCIL), -1)
    return np.asarray(np.array([weight for _, weight in STENCIL]) @ each / step)


def _samples(submission: Submission) -> Iterator[tuple[str, Arrays]]:
    """Single structures, with lists that reach far enough for what moves."""
    named: list[tuple[str, Structure]] = [("test frame", s) for s in spread(submission.test.structures, 2)]
    named += [("chain", chains(submission.elements, (5,))[0])]
    named += [("small cell", cell) for cell in small_cells(submission.elements)]
    for label, structure in named:
        yield label, submission.inputs([structure], skin=SKIN_ANGSTROM)


def _found(
    run: Engine, samples: list[tuple[str, Arrays]], steps: Sequence[tuple[float, float]]
) -> Iterator[tuple[str, dict[str, float]]]:
    """Deviations of forces and virials, of the best step of each; a step is a length in angstrom and a strain."""
    for label, inputs in samples:
        served = run(inputs)
        tried = [deviations(served, _expected(run, inputs, served, *step), inputs["structure"]) for step in steps]
        yield label, {name: min(found[name] for found in tried) for name in tried[0]}


def _expected(run: Engine, inputs: Arrays, served: Arrays, step: float, strain: float) -> Arrays:
    """Forces and virial by differences; atoms of a large structure that are not moved keep their served forces."""
    forces = served["forces"].astype(np.float64)
    atoms = _moved(len(forces))
    forces[atoms] = forces_by_differences(run, inputs, step, atoms)
    return {"forces": forces, "virial": virial_by_differences(run, inputs, strain)[None]}


def _moved(n: int) -> NDArray[np.int64]:
    if n <= LARGE_ATOMS:
        return np.arange(n)
    return np.linspace(0, n - 1, MOVED_ATOMS).round().astype(np.int64)
