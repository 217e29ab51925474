"""A request while it is in a lane: one ticket, one item a sample."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from service.engines import Stop
from service.errors import ServiceError
from service.lanes.terms import Terms


@dataclass(slots=True, eq=False)
class Ticket:
    """One request: its outcomes by position, and the future that waits for all of them.

    Attributes:
        deadline: seconds on the event loop's clock after which nobody waits any more.
    """

    future: asyncio.Future[list[Any]]
    outcomes: list[Any]
    missing: int
    terms: Terms
    deadline: float

    @property
    def since(self) -> float:
        """When it was submitted, on the same clock."""
        return self.deadline - self.terms.timeout_s


@dataclass(slots=True, eq=False)
class Item:
    """One sample of a request."""

    ticket: Ticket
    position: int
    sample: Any
    rows: int
    width: int

    @property
    def cost(self) -> int:
        """Neighbour slots."""
        return self.rows * self.width

    @property
    def wanted(self) -> bool:
        """Whether somebody still waits for it: not after a departure, a deadline or the failure of a sibling."""
        return not self.ticket.future.done()

    def put(self, outcome: Any) -> None:
        """Hand over an outcome; the last one ends the request, and so does an error."""
        ticket = self.ticket
        if ticket.future.done():
            return
        if isinstance(outcome, ServiceError):
            ticket.future.set_exception(outcome)
            return
        ticket.outcomes[self.position] = outcome
        ticket.missing -= 1
        if not ticket.missing:
            ticket.future.set_result(ticket.outcomes)


@dataclass(slots=True, eq=False)
class Batch:
    """What runs together in one engine call.

    Attributes:
        slots: cost, padding included.
        begun: seconds on the event loop's clock.
        stop: ends the call when nobody is left who waits for it.
    """

    items: list[Item]
    slots: int
    begun: float
    stop: Stop = field(default_factory=Stop)

    @property
    def abandoned(self) -> bool:
        """Whether nobody waits for any of it."""
        return not any(item.wanted for item in self.items)
