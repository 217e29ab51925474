"""A version that follows live traffic before it answers any: the same structures, its differences on record.

The shadow never answers a caller. Each request that the promoted version has answered is asked of the shadow too, and
what it says is compared where the promoted version is in its domain: energy per atom, force components, and how long
the answer took. A promotion reads this record.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from contract.errors import InvalidInput
from service.errors import DeadlineExceeded, QueueFull, ServiceError
from service.families.potential import Prediction
from service.models.model import Model
from service.plane import Exchange, Options, Plane
from service.settings import Demands

MEV: Final = 1e3


@dataclass(slots=True)
class Difference:
    """Root mean square and largest of many differences, without keeping them."""

    count: int = 0
    largest: float = 0.0
    _squares: float = 0.0

    def add(self, differences: ArrayLike) -> None:
        """Take more differences in; one that is not finite counts as infinite."""
        values = np.nan_to_num(np.abs(np.asarray(differences, np.float64)).ravel(), nan=math.inf)
        self.count += values.size
        self.largest = max(self.largest, float(values.max(initial=0.0)))
        self._squares += float(values @ values)

    @property
    def rms(self) -> float:
        """0 where nothing was compared."""
        return math.sqrt(self._squares / self.count) if self.count else 0.0


@dataclass(slots=True, eq=False)
class Shadow:
    """What is known of one shadow.

    Attributes:
        requests: followed.
        structures: compared.
        outside: structures that were not compared, being out of the promoted version's domain.
        failed: requests that the shadow refused or failed on, and last_failure, why.
        missed: requests that were not followed because the gateway was busy.
        energy: differences in meV per atom.
        forces: differences of components in eV/angstrom.
        live_s, shadow_s: seconds that the answers took, waiting included.
    """

    model: Model
    requests: int = 0
    structures: int = 0
    outside: int = 0
    failed: int = 0
    last_failure: str = ""
    missed: int = 0
    energy: Difference = field(default_factory=Difference)
    forces: Difference = field(default_factory=Difference)
    live_s: float = 0.0
    shadow_s: float = 0.0

    @property
    def latency_ratio(self) -> float | None:
        """Time of the shadow's answers over that of the same answers of the promoted version."""
        return self.shadow_s / self.live_s if self.live_s else None

    def compare(self, live: list[Prediction], other: list[Prediction]) -> None:
        """Take the answers to one request in."""
        for one, two in zip(live, other, strict=True):
            if not one.domain.in_domain:
                self.outside += 1
                continue
            self.structures += 1
            self.energy.add(MEV * (two.energy - one.energy) / one.sample.rows)
            self.forces.add(two.forces - one.forces)

    def faults(self, demands: Demands) -> list[str]:
        """Why it may not be promoted yet, one sentence each."""
        return [*self.drift(demands), *self._too_few(demands)]

    def drift(self, demands: Demands) -> list[str]:
        """How it differs from the promoted version by more than is allowed, one sentence each."""
        found = []
        if self.energy.rms > demands.energy_mev_per_atom:
            found.append(
                f"Its energies differ by {self.energy.rms:.3g} meV/atom (root mean square, largest "
                f"{self.energy.largest:.3g}); {demands.energy_mev_per_atom:g} are allowed."
            )
        if self.forces.rms > demands.forces_ev_per_angstrom:
            found.append(
                f"Its forces differ by {self.forces.rms:.3g} eV/angstrom (root mean square, largest "
                f"{self.forces.largest:.3g}); {demands.forces_ev_per_angstrom:g} are allowed."
            )
        if self.failed:
            found.append(f"It gave no answer to {self.failed} requests that were answered: {self.last_failure}")
        return found

    def report(self, demands: Demands) -> dict[str, Any]:
        """The record as JSON."""
        return {
            "version": self.model.version,
            "digest": self.model.stored.digest,
            "requests": self.requests,
            "requests_wanted": demands.requests,
            "structures": self.structures,
            "outside": self.outside,
            "failed": self.failed,
            "missed": self.missed,
            "energy_rms_mev_per_atom": self.energy.rms,
            "energy_max_mev_per_atom": self.energy.largest,
            "forces_rms_ev_per_angstrom": self.forces.rms,
            "forces_max_ev_per_angstrom": self.forces.largest,
            "latency_ratio": self.latency_ratio,
            "drift": self.drift(demands),
        }

    def _too_few(self, demands: Demands) -> list[str]:
        if self.requests >= demands.requests and self.structures:
            return []
        return [
            f"It has followed {self.requests} of {demands.requests} requests and was compared on "
            f"{self.structures} structures."
        ]


class Shadows:
    """The shadows of all models, at most one each: a follower of live traffic.

    Args:
        plane: answers for the shadows.
        demands: on whoever is to be promoted.
    """

    name = "shadow"

    def __init__(self, plane: Plane, demands: Demands) -> None:
        self.demands = demands
        self._plane = plane
        self._of: dict[str, Shadow] = {}

    def __iter__(self) -> Iterator[Shadow]:
        return iter(self._of.values())

    def of(self, name: str) -> Shadow | None:
        """The shadow of a model, if there is one."""
        return self._of.get(name)

    def start(self, model: Model) -> None:
        """Let this version follow from now on, with an empty record; no other of the model does."""
        self._of[model.card.name] = Shadow(model)

    def replace(self, model: Model) -> None:
        """A version was read again: other weights begin with an empty record, the same ones go on."""
        shadow = self._of.get(model.card.name)
        if shadow is None or shadow.model.version != model.version:
            return
        if shadow.model.stored.digest == model.stored.digest:
            shadow.model = model
        else:
            self.start(model)

    def stop(self, name: str, version: str | None = None) -> None:
        """Let no version of a model follow, or not this one."""
        if name in self._of and version in (None, self._of[name].model.version):
            del self._of[name]

    def faults(self, name: str, version: str) -> list[str]:
        """Why a version may not be promoted, one sentence each; empty if it may."""
        shadow = self._of.get(name)
        if shadow is None or shadow.model.version != version:
            return [f"It has not followed live traffic; {self.demands.requests} requests are asked of it."]
        return shadow.faults(self.demands)

    def wants(self, exchange: Exchange) -> bool:
        """Every answer of a promoted version that has a shadow."""
        model = exchange.answer.model
        return model.card.name in self._of and self._plane.models.promoted(model.card.name) is model

    async def follow(self, exchange: Exchange) -> None:
        """Ask the shadow for the same structures, and compare."""
        shadow = self._of.get(exchange.answer.model.card.name)
        if shadow is None:
            return
        options = Options(caller=exchange.options.caller, followed=False, priority="bulk")
        started = perf_counter()
        try:
            answer = await self._plane.predict(shadow.model, exchange.structures, options)
        except (QueueFull, DeadlineExceeded):
            shadow.missed += 1
            return
        except (ServiceError, InvalidInput) as error:
            shadow.requests += 1
            shadow.failed += 1
            shadow.last_failure = error.detail
            return
        shadow.requests += 1
        shadow.shadow_s += perf_counter() - started
        shadow.live_s += exchange.seconds
        live = [exchange.answer.by_model(place) for place in range(len(answer.predictions))]
        shadow.compare(live, answer.predictions)
