"""What is known of each request: written down on its way, told at its end to the log, the metrics and the traces."""

import time
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, Protocol

from service.meters import Work
from service.tenants import NOBODY, Tenant

ANONYMOUS: Final = "without a key"
STAGES: Final = ("body", "encode", "queue", "run", "reply")
_BY_ADDRESS: Final = "address "
_ANSWERED: Final = 400
_LEFT: Final = 499


@dataclass(slots=True, eq=False)
class Journey:
    """One request on its way.

    Attributes:
        request_id: as its caller or we named it.
        protocol: "HTTP" or "gRPC".
        parent: W3C `traceparent` and `tracestate` that the caller sent.
        begun, ended: `time.monotonic()` seconds; wall_ns: of the clock on the wall when it began.
        code: stable code of the refusal, "ok" if there was none.
    """

    request_id: str
    protocol: str
    parent: dict[str, str] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)
    wall_ns: int = field(default_factory=time.time_ns)
    ended: float = 0.0
    route: str = "other"
    status: int = 0
    code: str = "ok"
    tenant: Tenant | None = None
    structures: int = 0
    atoms: int = 0
    works: list[Work] = field(default_factory=list)

    @property
    def slots(self) -> int:
        """Cost in neighbour slots."""
        return sum(work.slots for work in self.works)

    @property
    def stage(self) -> str:
        """How far it came: body, encode, queue, run or reply."""
        if not self.works:
            return "body"
        work = self.works[-1]
        if not work.queued:
            return "encode"
        if not work.begun:
            return "queue"
        return "reply" if work.calls else "run"


current: ContextVar[Journey | None] = ContextVar("journey", default=None)


class Reader(Protocol):
    """Is told of each request at its end."""

    def ended(self, journey: Journey) -> None:
        """The request is over; quick, for its caller may still wait."""


class Journal:
    """The requests of one gateway.

    Attributes:
        refusals: by protocol and code.
        cancellations: requests whose caller left, by how far they had come.
        tenant_slots: neighbour slots that were asked for, by tenant.
        readers: log and traces, where they are wanted.
    """

    def __init__(self) -> None:
        self.refusals: Counter[tuple[str, str]] = Counter()
        self.cancellations: Counter[str] = Counter()
        self.tenant_slots: Counter[str] = Counter()
        self.readers: list[Reader] = []

    def end(self, journey: Journey, route: str, status: int, code: str = "ok") -> None:
        """A request is over, one way or the other."""
        journey.ended, journey.route, journey.status, journey.code = time.monotonic(), route, status, code
        if status == _LEFT:
            self.cancellations[journey.stage] += 1
        elif status >= _ANSWERED:
            self.refusals[journey.protocol, code] += 1
        if journey.tenant is not None:
            self.tenant_slots[name_of(journey.tenant)] += journey.slots
        for reader in self.readers:
            reader.ended(journey)


def name_of(tenant: Tenant) -> str:
    """A tenant among metrics: whoever has no key is one of many."""
    return ANONYMOUS if tenant is NOBODY or tenant.name.startswith(_BY_ADDRESS) else tenant.name
