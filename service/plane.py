"""The one way in: every protocol decodes into structures and options, calls `Plane.predict`, and encodes an answer."""

import asyncio
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final

from understudy.wire import Check, Escalate, Flag, OnOutOfDomain

from contract.packed import PackedImage
from contract.structures import Structure
from service.errors import OtherDigest, OutOfDomain
from service.families.potential import Prediction, Sample
from service.flags import flags_of
from service.flow import FlowAnswer, FlowOptions, Means, answer_flow
from service.followers import Followers
from service.journal import Journal, current
from service.lanes import Terms
from service.meters import Work
from service.models import FieldModel, Model, Models
from service.settings import Limits
from service.spool import Spool
from service.teachers import Opinion, Teachers, opinion_of, seconds_of
from service.tenants import NOBODY, Priority, Tenant
from service.uploads import Uploads

INLINE_ATOMS: Final = 300
OPTIONAL_OUTPUTS: Final = ("forces_std", "stress_std", "atomic_energies")
MEMBER_OUTPUTS: Final = frozenset({"forces_std", "stress_std"})


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may choose.

    Attributes:
        version: of the model that is named; None for the one that is promoted.
        forces_std: run the graph with forces and virial of each member, which forces_std and stress_std take.
        timeout_s: seconds the answer may take; the gateway's own limit holds too.
        caller: who asks, such as the address of a connection.
        deterministic: each structure is run alone, so that its answer is bitwise the same in every company.
        on_out_of_domain: what is to happen where the model was not trained: `answer` gives the verdict, `flag` marks
            the result too, `refuse` gives no answer.
        model_digest: the weights that must answer, by their digest or its first digits.
        check: "teacher": the answer carries what the model's teacher says, and the gap.
        escalate: which structures the teacher is to answer in place of the model: those that are flagged, or all.
        followed: the followers of live traffic may look at it; not so what they ask themselves.
        tenant: the group or the machine for whom it is asked.
        priority: bulk work waits for interactive work, but for a least share.
    """

    version: str | None = None
    forces_std: bool = False
    timeout_s: float | None = None
    caller: Hashable = None
    deterministic: bool = False
    on_out_of_domain: OnOutOfDomain = "flag"
    model_digest: str | None = None
    check: Check | None = None
    escalate: Escalate = "never"
    followed: bool = True
    tenant: Tenant = NOBODY
    priority: Priority = "interactive"

    def effective(self) -> dict[str, Any]:
        """What an answer depends on, as its receipt says it."""
        return {
            "forces_std": self.forces_std,
            "deterministic": self.deterministic,
            "on_out_of_domain": self.on_out_of_domain,
            "check": self.check,
            "escalate": self.escalate,
        }


@dataclass(frozen=True, eq=False)
class Answer:
    """Who answered, what, in the order of the structures, and how it was asked.

    Attributes:
        predictions: the answer; where a structure was escalated, it is the teacher's.
        opinions: what the teacher said, by the structure's place, where it was asked.
        escalated: places of the structures that the teacher answered.
        drifted: the model is known to be far from its teacher at present.
    """

    model: Model
    predictions: list[Prediction]
    options: Options = Options()
    opinions: Mapping[int, Opinion] = field(default_factory=dict)
    escalated: frozenset[int] = frozenset()
    drifted: bool = False

    @cached_property
    def own_flags(self) -> list[list[Flag]]:
        """The flags of each structure, by what the model itself said of it."""
        return [flags_of(self.by_model(place), self.model.card) for place in range(len(self.predictions))]

    @property
    def flags(self) -> list[list[Flag]]:
        """The flags of each structure, and that of the model's drift."""
        return [[*flags, "teacher_gap"] for flags in self.own_flags] if self.drifted else self.own_flags

    def by_model(self, place: int) -> Prediction:
        """What the model itself said, whoever answered."""
        return self.opinions[place].student if place in self.opinions else self.predictions[place]

    def answered_by(self, place: int) -> Model:
        """Whose prediction the answer is."""
        return self.opinions[place].model if place in self.escalated else self.model


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """A request and its answer, as a follower sees them.

    Attributes:
        seconds: that the model took, waiting included.
    """

    structures: Sequence[Structure]
    options: Options
    answer: Answer
    seconds: float = 0.0


class Plane:
    """Predicts. Knows models, not protocols.

    Attributes:
        followers: what looks at live traffic after it was answered.
        teachers: who teaches whom, and how far they are apart.
        spool: room on disk for what is larger than memory should hold.
        uploads: images that come in parts.
        concurrency: engine calls at once.
        parallelism: of these, how many do not slow each other down.
        journal: what is known of each request, whatever its protocol.
        engine_is_there: whether a prediction that comes now finds somebody to run it.
    """

    def __init__(
        self,
        models: Models,
        limits: Limits,
        encoders: ThreadPoolExecutor,
        concurrency: int = 1,
        parallelism: int = 1,
        journal: Journal | None = None,
        engine_is_there: Callable[[], bool] = lambda: True,
        spool: Spool | None = None,
    ) -> None:
        self.spool = Spool(None, 0) if spool is None else spool
        self.uploads = Uploads(self.spool, limits)
        self.engine_is_there = engine_is_there
        self.journal = Journal() if journal is None else journal
        self.followers: Followers[Exchange] = Followers()
        self.teachers = Teachers(models)
        self.models = models
        self.limits = limits
        self.concurrency = concurrency
        self.parallelism = parallelism
        self._encoders = encoders

    async def predict(self, asked: str | Model, structures: Sequence[Structure], options: Options) -> Answer:
        """Energies, forces, stress, spread and verdict of structures.

        Args:
            asked: a model by its name, or the one that was chosen already: it answers even if meanwhile it is served
                no more.
            structures: at least one.
            options: what the caller chose.

        Raises:
            UnknownModel, UnknownOutput, UnsupportedElement, TooLarge, CoincidentAtoms: nothing was run.
            QueueFull, DeadlineExceeded, Fault
            OtherDigest: the weights that are served are not those that the options name.
            NoTeacher: the options ask for a teacher that the model does not have, or that is not served.
            OutOfDomain: the verdict on a structure is "out", and the options refuse that.
        """
        model = self.models.potential(asked, options.version) if isinstance(asked, str) else asked
        if options.model_digest is not None:
            refuse_other_digest(model, options.model_digest)
        begin = asyncio.get_running_loop().time()
        predictions = await self._run(model, structures, options)
        seconds = asyncio.get_running_loop().time() - begin
        ledger = self.teachers.ledger(model)
        answer = Answer(model, predictions, options, drifted=ledger.drifted)
        if options.check is not None or options.escalate != "never":
            answer = await self._with_teacher(answer, begin)
        if options.followed:
            ledger.student_s += seconds_of(predictions, model)
            self.followers.show(Exchange(structures, options, answer, seconds))
        if options.on_out_of_domain == "refuse":
            _refuse_out_of_domain(answer)
        return answer

    async def flow(
        self, model: FieldModel, image: PackedImage, axes: Sequence[int], options: FlowOptions
    ) -> FlowAnswer:
        """Permeability, and where it is wanted the velocity, of an image along some axes; see service/flow.py."""
        means = Means(self.limits, self._encoders, self.spool, self.parallelism)
        return await answer_flow(model, image, axes, options, means)

    async def second_opinions(self, answer: Answer, places: Sequence[int], options: Options) -> dict[int, Opinion]:
        """What the teacher of a model says of some structures of its answer, by their places.

        Raises:
            NoTeacher, and whatever `predict` raises.
        """
        teacher = self.teachers.required(answer.model)
        structures = [answer.predictions[place].sample.structure for place in places]
        taught = await self._run(teacher, structures, options, places) if places else []
        return {
            place: opinion_of(teacher, answer.predictions[place], prediction)
            for place, prediction in zip(places, taught, strict=True)
        }

    async def _with_teacher(self, answer: Answer, begin: float) -> Answer:
        """The answer with what its options ask of the teacher."""
        options, every = answer.options, range(len(answer.predictions))
        chosen = {"never": (), "flagged": [p for p in every if answer.flags[p]], "always": every}[options.escalate]
        spent = asyncio.get_running_loop().time() - begin
        left = replace(options, timeout_s=max(1e-3, self._timeout_s(options) - spent))
        opinions = await self.second_opinions(answer, every if options.check else list(chosen), left)
        ledger = self.teachers.ledger(answer.model)
        for opinion in opinions.values():
            ledger.note(opinion.gap, "asked")
        predictions = [opinions[p].teacher if p in chosen else answer.predictions[p] for p in every]
        return replace(answer, predictions=predictions, opinions=opinions, escalated=frozenset(chosen))

    async def _run(
        self, model: Model, structures: Sequence[Structure], options: Options, places: Sequence[int] | None = None
    ) -> list[Prediction]:
        """The predictions of one model.

        Args:
            model: which.
            structures: at least one.
            options: how.
            places: of the structures in the caller's request, for error messages; by default in this order.
        """
        lane = model.lane(options.forces_std)
        work = Work(model)
        self._note(work, structures, options)
        try:
            with model:
                samples = await self._encode(model, structures, range(len(structures)) if places is None else places)
                work.encoded = (work.encoded[0], time.monotonic())
                lane.meter.encode_s.observe(work.encoded[1] - work.encoded[0])
                predictions = await lane.submit(samples, self._terms(options, work))
        except BaseException:
            work.ended = time.monotonic()
            if not work.queued:
                work.encoded = (work.encoded[0], work.ended)
            lane.meter.failed(work)
            raise
        work.ended = time.monotonic()
        lane.meter.answered(work)
        return predictions

    def _note(self, work: Work, structures: Sequence[Structure], options: Options) -> None:
        """Write work down among what is known of its request; not so what followers ask."""
        now = time.monotonic()
        work.encoded = (now, now)
        if options.followed and (journey := current.get()) is not None:
            journey.tenant = options.tenant
            if not journey.works:
                journey.structures, journey.atoms = len(structures), sum(map(len, structures))
            journey.works.append(work)

    def _timeout_s(self, options: Options) -> float:
        return min(options.timeout_s or self.limits.timeout_s, self.limits.timeout_s)

    def _terms(self, options: Options, work: Work) -> Terms:
        return Terms(
            self._timeout_s(options),
            options.caller,
            options.deterministic,
            options.tenant,
            options.priority,
            work,
        )

    async def _encode(self, model: Model, structures: Sequence[Structure], places: Sequence[int]) -> list[Sample]:
        """Neighbour lists: a few atoms here and now, many on another thread so that nobody else waits."""

        def encode() -> list[Sample]:
            return [model.family.encode(structure, p) for structure, p in zip(structures, places, strict=True)]

        if sum(map(len, structures)) <= INLINE_ATOMS:
            return encode()
        return await asyncio.get_running_loop().run_in_executor(self._encoders, encode)


def refuse_other_digest(model: Model, wanted: str) -> None:
    """Refuse to answer with other weights than the caller named.

    Raises:
        OtherDigest: naming both digests.
    """
    served = model.stored.digest
    if not served.startswith(wanted):
        raise OtherDigest(
            f"Model '{model.card.name}' is served with digest {served}, not {wanted}.",
            hint="Ask without model_digest to get the answer of these weights, or a gateway that serves the others.",
            expected=wanted,
            got=served,
            version=model.card.version,
        )


def _refuse_out_of_domain(answer: Answer) -> None:
    """Refuse the first structure for which the model was not trained.

    Raises:
        OutOfDomain: naming the reasons and the atoms.
    """
    for index, prediction in enumerate(answer.predictions):
        domain = prediction.domain
        if not domain.in_domain:
            raise OutOfDomain(
                f"structures[{index}] is out of the domain of model '{answer.answered_by(index).card.name}': "
                f"{' '.join(domain.reasons)}",
                hint="Ask with on_out_of_domain=flag to get the answer and the verdict, or ask another model.",
                index=index,
                reasons=domain.reasons,
                atoms=domain.atoms,
            )
