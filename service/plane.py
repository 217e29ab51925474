"""The one way in: every protocol decodes into structures and options, calls `Plane.predict`, and encodes an answer."""

import asyncio
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from understudy.wire import OnOutOfDomain

from contract.structures import Structure
from service.errors import OtherDigest, OutOfDomain
from service.families.potential import Prediction, Sample
from service.followers import Followers
from service.lanes import Terms
from service.models import Model, Models
from service.settings import Limits
from service.tenants import NOBODY, Priority, Tenant

INLINE_ATOMS: Final = 300
OPTIONAL_OUTPUTS: Final = ("forces_std", "atomic_energies")


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may choose.

    Attributes:
        version: of the model; None for the one that is served.
        forces_std: also the spread of each force component, which takes the forces of each committee member.
        timeout_s: seconds the answer may take; the gateway's own limit holds too.
        caller: who asks, such as the address of a connection.
        deterministic: each structure is run alone, so that its answer is bitwise the same in every company.
        on_out_of_domain: what is to happen where the model was not trained: `answer` gives the verdict, `flag` marks
            the result too, `refuse` gives no answer.
        model_digest: the weights that must answer, by their digest or its first digits.
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
    followed: bool = True
    tenant: Tenant = NOBODY
    priority: Priority = "interactive"

    def effective(self) -> dict[str, Any]:
        """What an answer depends on, as its receipt says it."""
        return {
            "forces_std": self.forces_std,
            "deterministic": self.deterministic,
            "on_out_of_domain": self.on_out_of_domain,
        }


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Who answered, what, in the order of the structures, and how it was asked."""

    model: Model
    predictions: list[Prediction]
    options: Options = Options()


@dataclass(frozen=True, slots=True, eq=False)
class Exchange:
    """A request and its answer, as a follower sees them."""

    structures: Sequence[Structure]
    options: Options
    answer: Answer


class Plane:
    """Predicts. Knows models, not protocols.

    Attributes:
        followers: what looks at live traffic after it was answered.
    """

    def __init__(self, models: Models, limits: Limits, encoders: ThreadPoolExecutor) -> None:
        self.followers: Followers[Exchange] = Followers()
        self.models = models
        self.limits = limits
        self._encoders = encoders

    async def predict(self, name: str, structures: Sequence[Structure], options: Options) -> Answer:
        """Energies, forces, stress, spread and verdict of structures.

        Raises:
            UnknownModel, UnknownOutput, UnsupportedElement, TooLarge, CoincidentAtoms: nothing was run.
            QueueFull, DeadlineExceeded, Fault
            OtherDigest: the weights that are served are not those that the options name.
            OutOfDomain: the verdict on a structure is "out", and the options refuse that.
        """
        model = self.models.get(name, options.version)
        if options.model_digest is not None:
            refuse_other_digest(model, options.model_digest)
        lane = model.lane(options.forces_std)
        samples = await self._encode(model, structures)
        answer = Answer(model, await lane.submit(samples, self._terms(options)), options)
        if options.followed:
            self.followers.show(Exchange(structures, options, answer))
        if options.on_out_of_domain == "refuse":
            _refuse_out_of_domain(answer)
        return answer

    def _terms(self, options: Options) -> Terms:
        timeout_s = min(options.timeout_s or self.limits.timeout_s, self.limits.timeout_s)
        return Terms(timeout_s, options.caller, options.deterministic, options.tenant, options.priority)

    async def _encode(self, model: Model, structures: Sequence[Structure]) -> list[Sample]:
        """Neighbour lists: a few atoms here and now, many on another thread so that nobody else waits."""

        def encode() -> list[Sample]:
            return [model.family.encode(structure, index) for index, structure in enumerate(structures)]

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
                f"structures[{index}] is out of the domain of model '{answer.model.card.name}': "
                f"{' '.join(domain.reasons)}",
                hint="Ask with on_out_of_domain=flag to get the answer and the verdict, or ask another model.",
                index=index,
                reasons=domain.reasons,
                atoms=domain.atoms,
            )
