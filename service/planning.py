"""What a request would cost, whether it fits, and whether the model was trained for it: told before any work.

Neighbours of given structures are counted, no graph is run. Seconds come from the batching curve on the model's card
and from what waits now; memory from the bytes a neighbour slot took when the model was admitted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from contract.card import ModelCard
from contract.errors import InvalidInput, TooLarge
from contract.graphs import bucket
from contract.structures import Structure
from service.errors import ServiceError
from service.families.potential import Sample
from service.lanes import PADDING, Bounds
from service.models import MEAN, MEMBERS, Model, Models
from service.plane import Options
from service.settings import Limits
from service.trust import Domain


@dataclass(frozen=True, slots=True)
class Size:
    """A structure by its size alone.

    Attributes:
        atoms: at least 1.
        neighbours: within the cutoff, of the atom that has most.
    """

    atoms: int
    neighbours: float

    @property
    def slots(self) -> int:
        """Neighbour slots, as a batch is charged for them."""
        return self.atoms * bucket(max(1, math.ceil(self.neighbours)))


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a structure would be refused."""

    code: str
    detail: str
    hint: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one structure would cost.

    Attributes:
        domain: as far as it can be told without the committee's spread; None for a size alone.
    """

    atoms: int
    neighbours: int
    slots: int
    refusal: Refusal | None = None
    domain: Domain | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """An engine call by its size, padding included."""

    atoms: int
    slots: int


@dataclass(frozen=True, slots=True)
class LimitHit:
    """A limit that the request would hit."""

    name: str
    limit: float
    got: float
    unit: str


@dataclass(frozen=True, slots=True)
class Seconds:
    """How long it would take on this gateway now."""

    queue: float
    engine: float

    @property
    def total(self) -> float:
        """Until the answer is there."""
        return self.queue + self.engine


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request would cost a model.

    Attributes:
        slots: neighbour slots, padding within a structure included.
        batches: engine calls.
        seconds: None where the card has no curve for the graph that would run.
        memory_bytes: beyond what the loaded model takes; None where the card does not say.
    """

    model: Model
    estimates: list[Estimate]
    limits: list[LimitHit]
    slots: int
    batches: int
    seconds: Seconds | None
    memory_bytes: int | None

    @property
    def fits(self) -> bool:
        """Whether it would be answered."""
        return not self.limits and all(estimate.refusal is None for estimate in self.estimates)


@dataclass(frozen=True, slots=True)
class Planner:
    """Plans requests.

    Attributes:
        concurrency: engine calls at once.
        parallelism: of these, how many do not slow each other down.
    """

    models: Models
    limits: Limits
    concurrency: int
    parallelism: int

    def plan(self, model: Model, items: Sequence[Structure | Size], options: Options) -> Plan:
        """What these structures, or sizes, would cost a model."""
        return self._of(model, [_estimate(model, item, place) for place, item in enumerate(items)], options)

    def alternative(self, plan: Plan, items: Sequence[Structure | Size], options: Options) -> Plan | None:
        """The plan of the fastest other model that fits and would be as much in its domain, if it is faster."""
        others = [
            self.plan(model, items, options)
            for model in self.models.potentials
            if model is not plan.model and _may_be_asked(model, plan.model.card, items, options)
        ]
        better = [
            other
            for other in others
            if other.fits and _in_domain(other) >= _in_domain(plan) and _total(other) < _total(plan)
        ]
        return min(better, key=_total, default=None)

    def _of(self, model: Model, estimates: list[Estimate], options: Options) -> Plan:
        lane, curve = model.lane(options.forces_std), model.card.batching
        padded = batches_of([e for e in estimates if e.slots], lane.bounds, options.deterministic)
        seconds = None
        if curve.points and not options.forces_std:
            queue = lane.waiting_slots * lane.bounds.seconds_per_slot / self.parallelism
            each = [_seconds_of(batch.slots, model.card) for batch in padded]
            seconds = Seconds(queue, max(sum(each) / self.parallelism, max(each, default=0.0)))
        plan = Plan(
            model,
            estimates,
            self._hit(estimates, lane.bounds),
            sum(estimate.slots for estimate in estimates),
            len(padded),
            seconds,
            self._memory(model, padded, options),
        )
        if seconds is not None and seconds.total > self.limits.timeout_s and not plan.limits:
            hit = LimitHit("timeout_s", self.limits.timeout_s, seconds.total, "s")
            return replace(plan, limits=[*plan.limits, hit])
        return plan

    def _hit(self, estimates: Sequence[Estimate], bounds: Bounds) -> list[LimitHit]:
        atoms, slots = sum(e.atoms for e in estimates), sum(e.slots for e in estimates)
        every = [
            LimitHit("structures", min(self.limits.structures, bounds.queued), len(estimates), "structures"),
            LimitHit("atoms", self.limits.atoms, atoms, "atoms"),
            LimitHit("queued_slots", bounds.queued_slots, slots, "neighbour slots"),
        ]
        return [hit for hit in every if hit.got > hit.limit]

    def _memory(self, model: Model, batches: Sequence[Batch], options: Options) -> int | None:
        """The largest batches, as many as run at once."""
        memory = model.card.batching.memory.get(MEMBERS if options.forces_std else MEAN)
        if memory is None:
            return None
        each = [memory.bytes_per_slot * batch.slots + memory.bytes_per_atom * batch.atoms for batch in batches]
        return int(sum(sorted(each)[-self.concurrency :]))


def batches_of(estimates: Sequence[Estimate], bounds: Bounds, alone: bool) -> list[Batch]:
    """The engine calls, as a lane without other work would form them."""
    batches: list[Batch] = []
    rows = width = cost = 0
    for estimate in estimates:
        size = bucket(max(1, estimate.neighbours))
        padded = (rows + estimate.atoms) * max(width, size)
        if rows and (alone or padded > min(bounds.batch_slots, PADDING * (cost + estimate.slots))):
            batches.append(Batch(rows, rows * width))
            rows = width = cost = 0
        rows, width, cost = rows + estimate.atoms, max(width, size), cost + estimate.slots
    return [*batches, Batch(rows, rows * width)] if rows else batches


def size_of_density(atoms: int, atoms_per_cubic_angstrom: float, cutoff: float) -> Size:
    """A size from a number density: mean neighbours within the cutoff, but never more than the other atoms there are.

    In a disordered system the atom with most neighbours, which decides, has more than the mean.
    """
    return Size(atoms, atoms_per_cubic_angstrom * 4.0 / 3.0 * math.pi * cutoff**3)


def _estimate(model: Model, item: Structure | Size, place: int) -> Estimate:
    if isinstance(item, Size):
        neighbours = max(1, math.ceil(item.neighbours))
        refusal = _too_large(model.card, item.slots) if item.slots > model.card.max_slots else None
        return Estimate(item.atoms, neighbours, item.slots, refusal)
    try:
        sample = model.family.encode(item, place)
    except (InvalidInput, ServiceError) as error:
        slots = int(error.facts["got"]) if error.code == TooLarge.code else 0
        return Estimate(len(item), slots // len(item), slots, Refusal(error.code, error.detail, error.hint))
    return Estimate(sample.rows, sample.graph.degree, sample.rows * sample.width, None, _judged(model, sample))


def _judged(model: Model, sample: Sample) -> Domain:
    return model.family.judge.judge(sample.structure, sample.graph, None)


def _too_large(card: ModelCard, slots: int) -> Refusal:
    detail = f"It needs {slots:,} neighbour slots; model '{card.name}' takes {card.max_slots:,}."
    return Refusal("too_large", detail, "Split the system.")


def _seconds_of(slots: int, card: ModelCard) -> float:
    """One engine call by the curve; beyond its end in proportion."""
    points = sorted(card.batching.points, key=lambda point: point.slots)
    last = points[-1]
    if slots > last.slots:
        return 1e-3 * last.milliseconds * slots / last.slots
    return 1e-3 * float(np.interp(slots, [p.slots for p in points], [p.milliseconds for p in points]))


def _may_be_asked(other: Model, card: ModelCard, items: Sequence[Structure | Size], options: Options) -> bool:
    """Whether another model has the outputs and the elements: of structures its encoding tells, of sizes its card."""
    if other.card.family != card.family or (options.forces_std and MEMBERS not in other.lanes):
        return False
    sizes = any(isinstance(item, Size) for item in items)
    return not sizes or set(card.domain.elements) <= set(other.card.domain.elements)


def _in_domain(plan: Plan) -> int:
    return sum(estimate.domain is None or estimate.domain.in_domain for estimate in plan.estimates)


def _total(plan: Plan) -> float:
    return math.inf if plan.seconds is None or not plan.fits else plan.seconds.total


def said(plan: Plan) -> dict[str, Any]:
    """A plan as `POST /v1/plan` answers it."""
    card, seconds = plan.model.card, plan.seconds
    return {
        "model": card.name,
        "version": card.version,
        "digest": plan.model.stored.digest,
        "fits": plan.fits,
        "slots": plan.slots,
        "batches": plan.batches,
        "seconds": None
        if seconds is None
        else {"queue": seconds.queue, "engine": seconds.engine, "total": seconds.total},
        "memory_bytes": plan.memory_bytes,
        "measured_on": f"{card.batching.engine} on {card.batching.device}, {card.batching.threads} thread(s)",
        "limits": plan.limits,
    }
