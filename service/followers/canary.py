"""The live canary of the isolation contract: a sampled request is run again alone, and must give the same answer."""

import itertools
import math
from typing import Final

import structlog

from service.errors import DeadlineExceeded, QueueFull
from service.families.potential import Prediction
from service.plane import Exchange, Options, Plane
from service.tenants import Tenant
from service.tolerance import Tolerance

_TENANT: Final = Tenant("canary")
_log: Final = structlog.get_logger("canary")


class Canary:
    """Repeats every n-th exchange alone.

    Args:
        plane: answers the repetition.
        fraction: of the exchanges; 0 for none.

    Attributes:
        checked: structures that were compared.
        violations: structures whose answer was another one alone. Anything but 0 is a fault of ours.
    """

    name = "canary"

    def __init__(self, plane: Plane, fraction: float) -> None:
        self.checked = 0
        self.violations = 0
        self._plane = plane
        self._every = math.ceil(1 / fraction) if fraction > 0 else 0
        self._seen = itertools.count(1)

    def wants(self, exchange: Exchange) -> bool:
        """Every n-th."""
        return self._every > 0 and next(self._seen) % self._every == 0 and not exchange.options.deterministic

    async def follow(self, exchange: Exchange) -> None:
        """Run the structures again, each alone, and compare."""
        model = exchange.answer.model
        options = Options(
            forces_std=exchange.options.forces_std,
            caller=exchange.options.caller,  # so that whoever is alone on the gateway still counts as alone
            deterministic=True,
            followed=False,
            tenant=_TENANT,
            priority="bulk",
        )
        try:
            again = await self._plane.predict(model, exchange.structures, options)
        except (QueueFull, DeadlineExceeded):
            return  # a busy gateway says nothing of isolation
        tolerance = Tolerance.of(model.card)
        for index, (alone, batched) in enumerate(zip(again.predictions, exchange.answer.predictions, strict=True)):
            self.checked += 1
            if not same(alone, batched, tolerance):
                self.violations += 1
                _log.error("isolation violation", model=model.card.name, digest=model.stored.digest, index=index)
                for lane in model.lanes.values():  # until it is loaded again: a wrong answer is worse than a slow one
                    lane.stop_sharing()


def same(one: Prediction, other: Prediction, tolerance: Tolerance) -> bool:
    """Whether two predictions of one structure agree within the tolerance of the isolation contract."""
    energies = tolerance.energies_agree(one.energy, other.energy, one.sample)
    return energies and tolerance.forces_agree(one.forces, other.forces)
