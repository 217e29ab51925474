"""Asking for an answer again, from its receipt: the same inputs, the same weights, each structure alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from understudy.receipts import Receipt
from understudy.wire import Promise, ReplayVerdict

from contract.structures import Structure
from service.errors import BadRequest, OtherInput, UnknownModel
from service.families.potential import Prediction
from service.models import Model
from service.plane import Answer, Options, Plane, refuse_other_digest
from service.receipts import receipt_of, sha256_of
from service.tolerance import Tolerance

_BITS_DEPEND_ON: Final = ("engine", "engine_version", "device", "dtype", "software", "platform")


@dataclass(frozen=True, slots=True)
class Report:
    """What came of a replay, see `understudy.wire.ReplayReport`."""

    verdict: ReplayVerdict
    promised: Promise
    reason: str
    changed: dict[str, tuple[Any, Any]]
    energy_difference_ev: float | None
    forces_difference_ev_angstrom: float | None
    tolerance: Mapping[str, float]


async def replay(
    plane: Plane, receipt: Receipt, structures: Sequence[Structure], recorded: Sequence[Any] | None, options: Options
) -> tuple[Answer, Report]:
    """The answer that a receipt belongs to, made again in deterministic mode, and how it compares.

    Args:
        plane: answers.
        receipt: of the first answer.
        structures: what was asked.
        recorded: the results of the first answer as JSON holds them, where they were kept.
        options: who asks, and until when; the rest is taken from the receipt.

    Raises:
        OtherInput: the structures are not those of the receipt.
        OtherDigest: its weights are not served here.
        BadRequest: `recorded` is not the results of such an answer.
        and whatever `Plane.predict` raises.
    """
    refuse_other_input(receipt, structures)
    model = _model_of(plane, receipt)
    answer = await plane.predict(model.card.name, structures, _as_asked(receipt, model, options))
    changed = _changed(receipt, receipt_of(answer))
    return answer, _report(answer, receipt, recorded, changed)


def refuse_other_input(receipt: Receipt, structures: Sequence[Structure]) -> None:
    """Refuse structures that are not those of a receipt.

    Raises:
        OtherInput: naming the first that differs, and both hashes.
    """
    given = [sha256_of(structure) for structure in structures]
    if len(given) != len(receipt.inputs):
        raise OtherInput(
            f"The receipt is of {len(receipt.inputs)} structures; {len(given)} were given.",
            hint="Give the structures of the request that the receipt belongs to, in their order.",
            expected=len(receipt.inputs),
            got=len(given),
        )
    for index, (expected, got) in enumerate(zip(receipt.inputs, given, strict=True)):
        if expected != got:
            raise OtherInput(
                f"structures[{index}] has the SHA-256 {got}; the receipt is of {expected}.",
                hint="Give the same atoms in the same order, with all digits of their positions.",
                index=index,
                expected=expected,
                got=got,
            )


def _model_of(plane: Plane, receipt: Receipt) -> Model:
    """The model of a receipt, in its own version or the one that is served, with the same weights."""
    try:
        model = plane.models.potential(receipt.model, receipt.version)
    except UnknownModel:
        model = plane.models.potential(receipt.model)
    refuse_other_digest(model, receipt.digest)
    if receipt.teacher is not None:
        refuse_other_digest(plane.teachers.required(model), receipt.teacher.digest)
    return model


def _as_asked(receipt: Receipt, model: Model, options: Options) -> Options:
    said = receipt.options
    return Options(
        version=model.card.version,
        forces_std=said.get("forces_std") is True,
        check="teacher" if said.get("check") == "teacher" else None,
        escalate=escalate if (escalate := said.get("escalate")) in ("flagged", "always") else "never",
        timeout_s=options.timeout_s,
        caller=options.caller,
        tenant=options.tenant,
        deterministic=True,
        on_out_of_domain="answer",
        followed=False,
    )


def _changed(receipt: Receipt, now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What the last bits may depend on and is not as it was: then and now."""
    then = receipt.model_dump()
    return {name: (then[name], now[name]) for name in _BITS_DEPEND_ON if then[name] != now[name]}


def _report(
    answer: Answer, receipt: Receipt, recorded: Sequence[Any] | None, changed: dict[str, tuple[Any, Any]]
) -> Report:
    promised: Promise = "bitwise" if receipt.batch_mode == "deterministic" and not changed else "tolerance"
    tolerance = Tolerance.of(answer.model.card)
    if recorded is None:
        reason = "The receipt came without the results of the first answer: there is nothing to compare with."
        return Report("not_compared", promised, reason, changed, None, None, tolerance.said())
    results = _results(recorded, answer.predictions)
    pairs = list(zip(results, answer.predictions, strict=True))
    energy = max(abs(then.energy - now.energy) for then, now in pairs)
    forces = max(float(np.abs(then.forces - now.forces).max()) for then, now in pairs)
    verdict = _verdict(pairs, tolerance)
    reason = _reason(verdict, receipt, changed)
    return Report(verdict, promised, reason, changed, energy, forces, tolerance.said())


@dataclass(frozen=True, slots=True, eq=False)
class _Recorded:
    energy: float
    forces: np.ndarray[Any, np.dtype[np.float32]]


def _results(recorded: Sequence[Any], predictions: Sequence[Prediction]) -> list[_Recorded]:
    try:
        results = [_Recorded(float(r["energy"]), np.array(r["forces"], np.float32)) for r in recorded]
    except (TypeError, ValueError, KeyError):
        results = []
    if [r.forces.shape for r in results] != [p.forces.shape for p in predictions]:
        raise BadRequest(
            "results are not those of an answer to these structures.",
            hint="Give the member 'results' of the answer, with energy and forces of each structure; or leave it out.",
            field="results",
        )
    return results


def _verdict(pairs: Sequence[tuple[_Recorded, Prediction]], tolerance: Tolerance) -> ReplayVerdict:
    if all(then.energy == now.energy and np.array_equal(then.forces, now.forces) for then, now in pairs):
        return "bitwise"
    agree = all(
        tolerance.energies_agree(then.energy, now.energy, now.sample)
        and tolerance.forces_agree(then.forces, now.forces)
        for then, now in pairs
    )
    return "within_tolerance" if agree else "different"


def _reason(verdict: ReplayVerdict, receipt: Receipt, changed: Mapping[str, Any]) -> str:
    mode = receipt.batch_mode
    if verdict == "bitwise":
        return "Every bit of energies and forces is the same."
    because = []
    if mode != "deterministic":
        because.append(f"the first answer was {mode}, not deterministic")
    if changed:
        because.append(f"{', '.join(changed)} changed since")
    if verdict == "within_tolerance":
        return (
            f"The same within the tolerance; bits may differ because {' and '.join(because) or 'of a fault of ours'}."
        )
    if changed:
        return f"Not the same answer: {', '.join(changed)} changed since, and the difference is above the tolerance."
    return "Not the same answer, though weights, inputs and software are: the results were altered, or report a fault."
