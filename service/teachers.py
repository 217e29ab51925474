"""The two-speed surrogate: a light student answers, the teacher that it was distilled from looks over its shoulder.

A student's card names its teacher. What the two disagree by on live traffic is kept here, one ledger a student; when
the running mean of the gap on sampled requests passes the bound on the card, the student's answers are flagged.
"""

from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np

from contract.card import TeacherGap
from service.errors import NoTeacher
from service.families.potential import Prediction
from service.models import MEAN, Model, Models

Why = Literal["sampled", "flagged", "asked"]
WINDOW: Final = 100
"""Sampled structures over which the running mean is taken."""
ENOUGH: Final = 20
"""Sampled structures before a running mean says anything."""
BURST_S: Final = 1.0
"""Seconds of the teacher's work that are granted before the student has earned them."""


@dataclass(frozen=True, slots=True)
class Gap:
    """What a student differs from its teacher by, on one structure.

    Attributes:
        energy_ev_per_atom: student minus teacher.
        forces_rms_ev_angstrom: root mean square over the components of all atoms.
        forces_max_ev_angstrom: the longest difference vector of an atom.
    """

    energy_ev_per_atom: float
    forces_rms_ev_angstrom: float
    forces_max_ev_angstrom: float

    def exceeds(self, bound: TeacherGap) -> bool:
        """Whether it is larger than on nineteen of twenty held-out structures."""
        return (
            abs(self.energy_ev_per_atom) > bound.energy_bound_ev_per_atom
            or self.forces_rms_ev_angstrom > bound.forces_bound_ev_angstrom
        )


@dataclass(frozen=True, slots=True, eq=False)
class Opinion:
    """The student's and the teacher's prediction of one structure."""

    model: Model
    student: Prediction
    teacher: Prediction
    gap: Gap


@dataclass(slots=True)
class Ledger:
    """What is known of one student from live traffic.

    Attributes:
        bound: from the card; None if the card has none.
        checks: structures that the teacher looked at, by reason.
        refused: structures that it should have looked at, but the budget was spent.
        student_s, teacher_s: engine seconds of both, estimated by the batching curves on their cards.
        energy_sum, forces_sum: of the gaps of all checks.
        recent: the gaps of the last sampled structures.
        running_mean: over them, since others do not stand for the traffic; None before there are enough.
    """

    bound: TeacherGap | None
    checks: Counter[Why] = field(default_factory=Counter)
    refused: int = 0
    student_s: float = 0.0
    teacher_s: float = 0.0
    energy_sum: float = 0.0
    forces_sum: float = 0.0
    energy_max: float = 0.0
    forces_max: float = 0.0
    recent: deque[Gap] = field(default_factory=lambda: deque(maxlen=WINDOW))
    running_mean: Gap | None = None

    def note(self, gap: Gap, why: Why) -> None:
        """Enter one gap."""
        energy, forces = abs(gap.energy_ev_per_atom), gap.forces_rms_ev_angstrom
        self.checks[why] += 1
        self.energy_sum += energy
        self.forces_sum += forces
        self.energy_max, self.forces_max = max(self.energy_max, energy), max(self.forces_max, forces)
        if why == "sampled":
            self.recent.append(gap)
            self.running_mean = _mean(self.recent) if len(self.recent) >= ENOUGH else None

    def affords(self, seconds: float, share: float) -> bool:
        """Whether a check of so many seconds keeps the teacher's work within a share of the student's."""
        return self.teacher_s + seconds <= BURST_S + share * self.student_s

    @property
    def drifted(self) -> bool:
        """Whether the running mean is above the bound on the card."""
        mean = self.running_mean
        return mean is not None and self.bound is not None and mean.exceeds(self.bound)

    @property
    def extra_cost(self) -> float:
        """The teacher's work as a share of the student's."""
        return self.teacher_s / self.student_s if self.student_s else 0.0


class Teachers:
    """Who teaches whom, and how far they are apart."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._ledgers: dict[str, Ledger] = {}

    def of(self, student: Model) -> Model | None:
        """The teacher of a model, if it has one and that is served here."""
        named = student.card.teacher
        return None if named is None else next((m for m in self._models.potentials if m.card.name == named.name), None)

    def required(self, student: Model) -> Model:
        """The teacher of a model.

        Raises:
            NoTeacher: it has none, or none that is served here.
        """
        teacher, named = self.of(student), student.card.teacher
        if teacher is not None:
            return teacher
        detail = "has no teacher" if named is None else f"has the teacher '{named.name}', which is not served here"
        raise NoTeacher(
            f"Model '{student.card.name}' {detail}.",
            hint="Ask without check and escalate; GET /v1/models/{model} names a model's teacher.",
        )

    def ledger(self, student: Model) -> Ledger:
        """The ledger of a student; each version of the weights has its own."""
        digest = student.stored.digest
        if digest not in self._ledgers:
            teacher = student.card.teacher
            self._ledgers[digest] = Ledger(None if teacher is None else teacher.gap)
        return self._ledgers[digest]

    def summary(self, student: Model) -> dict[str, Any] | None:
        """What `GET /v1/models/{model}` says of the two; None for a model without a teacher."""
        named = student.card.teacher
        if named is None:
            return None
        teacher, ledger = self.of(student), self.ledger(student)
        return {
            "served": teacher is not None,
            "same_weights": teacher is not None and teacher.stored.digest == named.digest,
            "checks": {why: ledger.checks[why] for why in ("sampled", "flagged", "asked")},
            "not_checked_for_cost": ledger.refused,
            "extra_cost": ledger.extra_cost,
            "running_mean": ledger.running_mean,
            "drifted": ledger.drifted,
        }


def opinion_of(model: Model, student: Prediction, teacher: Prediction) -> Opinion:
    """Both predictions of one structure, and their gap."""
    difference = np.asarray(student.forces, np.float64) - teacher.forces
    gap = Gap(
        (student.energy - teacher.energy) / student.sample.rows,
        float(np.sqrt(np.mean(difference**2))),
        float(np.linalg.norm(difference, axis=1).max()),
    )
    return Opinion(model, student, teacher, gap)


def _mean(gaps: Iterable[Gap]) -> Gap:
    """Means of the sizes."""
    sizes = [(abs(g.energy_ev_per_atom), g.forces_rms_ev_angstrom, g.forces_max_ev_angstrom) for g in gaps]
    return Gap(*np.mean(sizes, axis=0).tolist())


def seconds_of(predictions: list[Prediction], model: Model) -> float:
    """Engine seconds that structures cost a model, by the batching curve on its card."""
    slots = sum(prediction.sample.rows * prediction.sample.width for prediction in predictions)
    return slots * model.lanes[MEAN].bounds.seconds_per_slot
