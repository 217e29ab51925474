"""The one way in: every protocol decodes into structures and options, calls `Plane.predict`, and encodes an answer."""

import asyncio
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from contract.structures import Structure
from service.families.potential import Prediction, Sample
from service.models import Model, Models
from service.settings import Limits

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
    """

    version: str | None = None
    forces_std: bool = False
    timeout_s: float | None = None
    caller: Hashable = None


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """Who answered, and what, in the order of the structures."""

    model: Model
    predictions: list[Prediction]


class Plane:
    """Predicts. Knows models, not protocols."""

    def __init__(self, models: Models, limits: Limits, encoders: ThreadPoolExecutor) -> None:
        self.models = models
        self.limits = limits
        self._encoders = encoders

    async def predict(self, name: str, structures: Sequence[Structure], options: Options) -> Answer:
        """Energies, forces, stress, spread and verdict of structures.

        Raises:
            UnknownModel, UnknownOutput, UnsupportedElement, TooLarge, CoincidentAtoms: nothing was run.
            QueueFull, DeadlineExceeded, Fault
        """
        model = self.models.get(name, options.version)
        lane = model.lane(options.forces_std)
        samples = await self._encode(model, structures)
        timeout_s = min(options.timeout_s or self.limits.timeout_s, self.limits.timeout_s)
        return Answer(model, await lane.submit(samples, timeout_s, options.caller))

    async def _encode(self, model: Model, structures: Sequence[Structure]) -> list[Sample]:
        """Neighbour lists: a few atoms here and now, many on another thread so that nobody else waits."""

        def encode() -> list[Sample]:
            return [model.family.encode(structure, index) for index, structure in enumerate(structures)]

        if sum(map(len, structures)) <= INLINE_ATOMS:
            return encode()
        return await asyncio.get_running_loop().run_in_executor(self._encoders, encode)
