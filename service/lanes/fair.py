"""Who is next: fair shares of the engine among tenants, interactive work before bulk.

Fair means in engine time, whatever the requests look like, and in proportion to weights. It is start-time fair queueing
(Goyal, Vin and Cheng, SIGCOMM 1996): each tenant has an account of virtual time that grows by cost / weight; whoever
has the least is next, and whoever comes back from a rest begins at the present. Over time that gives the shares of
deficit round robin (Shreedhar and Varghese, SIGCOMM 1995), but a tenant who asks little is next at once instead of
after a round. Within a tenant its callers take turns, one structure each.

Interactive work goes first. While it does, waiting bulk work earns credit, and goes first when it has enough of it.
"""

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from service.lanes.tickets import Item, Ticket
from service.tenants import PRIORITIES, Priority, Tenant

BULK_SHARE: Final = 0.1
_ACCOUNTS: Final = 4096
Rank = tuple[int, float]
NOTHING: Final[Rank] = (3, 0.0)


@dataclass(slots=True, eq=False)
class Account:
    """What one tenant has had, at one priority, in all lanes.

    Attributes:
        had_s: virtual time: seconds of engine over weight.
        waiting: items that wait.
    """

    had_s: float = 0.0
    waiting: int = 0


@dataclass(slots=True, eq=False)
class _Class:
    """One priority: its accounts, the virtual time of what was begun last, and how many items wait."""

    accounts: dict[Tenant, Account] = field(default_factory=dict)
    now_s: float = 0.0
    waiting: int = 0

    def account(self, tenant: Tenant) -> Account:
        account = self.accounts.get(tenant)
        if account is None:
            if len(self.accounts) >= _ACCOUNTS:
                self.accounts = {who: account for who, account in self.accounts.items() if account.waiting}
            account = self.accounts[tenant] = Account()
        return account


class Shares:
    """The accounts of all tenants, and bulk work's credit; shared by all lanes."""

    def __init__(self) -> None:
        self._classes: dict[Priority, _Class] = {priority: _Class() for priority in PRIORITIES}
        self._credit_s = 0.0

    def account(self, tenant: Tenant, priority: Priority) -> Account:
        """What a tenant has had."""
        return self._classes[priority].account(tenant)

    def enter(self, tenant: Tenant, priority: Priority) -> None:
        """One more item of a tenant waits; after a rest its account begins at the present."""
        ours = self._classes[priority]
        account = ours.account(tenant)
        if not account.waiting:
            account.had_s = max(account.had_s, ours.now_s)
        account.waiting += 1
        ours.waiting += 1

    def leave(self, tenant: Tenant, priority: Priority) -> None:
        """An item of a tenant waits no more."""
        ours = self._classes[priority]
        ours.account(tenant).waiting -= 1
        ours.waiting -= 1

    def charge(self, tenant: Tenant, priority: Priority, seconds: float) -> None:
        """An item of a tenant, which still counts as waiting, begins."""
        ours = self._classes[priority]
        account = ours.account(tenant)
        ours.now_s = max(ours.now_s, account.had_s)
        account.had_s += seconds / tenant.weight
        if priority == "bulk" and self._classes["interactive"].waiting:
            self._credit_s -= seconds
        elif priority == "interactive" and self._classes["bulk"].waiting:
            self._credit_s += seconds * BULK_SHARE / (1.0 - BULK_SHARE)

    def bulk_is_due(self, seconds: float) -> bool:
        """Whether bulk work of so many seconds goes first for once."""
        return not self._classes["interactive"].waiting or self._credit_s >= seconds


class _Line:
    """What waits in one lane of one tenant at one priority: its callers take turns."""

    __slots__ = ("account", "callers", "count", "slots")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.callers: OrderedDict[Hashable, deque[Item]] = OrderedDict()
        self.count = self.slots = 0

    def push(self, item: Item) -> None:
        self.callers.setdefault(item.ticket.terms.caller, deque()).append(item)
        self._grow(item, 1)

    def peek(self) -> Item:
        return next(iter(self.callers.values()))[0]

    def pop(self) -> Item:
        caller, items = next(iter(self.callers.items()))
        item = items.popleft()
        if items:
            self.callers.move_to_end(caller)
        else:
            del self.callers[caller]
        self._grow(item, -1)
        return item

    def put_back(self, item: Item) -> None:
        caller = item.ticket.terms.caller
        self.callers.setdefault(caller, deque()).appendleft(item)
        self.callers.move_to_end(caller, last=False)
        self._grow(item, 1)

    def forget(self, ticket: Ticket) -> list[Item]:
        """Take the items of a ticket out."""
        caller = ticket.terms.caller
        items = self.callers.get(caller, deque())
        gone = [item for item in items if item.ticket is ticket]
        if len(gone) < len(items):
            self.callers[caller] = deque(item for item in items if item.ticket is not ticket)
        else:
            self.callers.pop(caller, None)
        for item in gone:
            self._grow(item, -1)
        return gone

    def _grow(self, item: Item, by: int) -> None:
        self.count += by
        self.slots += by * item.cost


class Queue:
    """What waits in one lane.

    Args:
        shares: of all lanes.
        seconds: how long an item keeps one worker busy, by its cost.

    Attributes:
        count, slots: items that wait, and their cost.
    """

    def __init__(self, shares: Shares, seconds: Callable[[int], float]) -> None:
        self.count = self.slots = 0
        self._shares = shares
        self._seconds = seconds
        self._lines: dict[Priority, dict[Tenant, _Line]] = {priority: {} for priority in PRIORITIES}

    def push(self, item: Item) -> None:
        """Put an item at the end of its caller's."""
        terms = item.ticket.terms
        self._shares.enter(terms.tenant, terms.priority)
        self._line(item).push(item)
        self._grow(item, 1)

    def of(self, tenant: Tenant) -> tuple[int, int]:
        """Items of a tenant that wait, and their cost."""
        lines = [line for lines in self._lines.values() if (line := lines.get(tenant))]
        return sum(line.count for line in lines), sum(line.slots for line in lines)

    def oldest(self) -> float | None:
        """When the item that waits longest was submitted, in seconds on the event loop's clock; None if none waits."""
        lines = [line for lines in self._lines.values() for line in lines.values()]
        return min((items[0].ticket.since for line in lines for items in line.callers.values()), default=None)

    def share_of(self, tenant: Tenant) -> float:
        """The share of the engine that is a tenant's while all that wait go on waiting."""
        weights = {who: who.weight for lines in self._lines.values() for who in lines}
        return tenant.weight / sum({**weights, tenant: tenant.weight}.values())

    def rank(self) -> Rank:
        """How urgent the next item is, least first: bulk that is due, interactive, bulk; then what its tenant had."""
        bulk, interactive = self._next("bulk"), self._next("interactive")
        if bulk is not None and self._is_due(bulk):
            return 0, bulk.account.had_s
        if interactive is not None:
            return 1, interactive.account.had_s
        return NOTHING if bulk is None else (2, bulk.account.had_s)

    def in_turn(self) -> Iterator[Item]:
        """Take items out in the order that is fair; each is then begun, put back or dropped."""
        bulk = self._next("bulk")
        bulk_first = bulk is not None and self._is_due(bulk)
        for priority in reversed(PRIORITIES) if bulk_first else PRIORITIES:
            yield from self._in_turn(self._lines[priority])

    def begin(self, items: Sequence[Item]) -> None:
        """Items that were taken out are run, at the cost of their tenants."""
        for item in items:
            terms = item.ticket.terms
            self._shares.charge(terms.tenant, terms.priority, self._seconds(item.cost))
        self.drop(items)

    def put_back(self, items: Sequence[Item]) -> None:
        """Items that were taken out wait on, before all others of their tenants."""
        for item in reversed(items):
            self._line(item).put_back(item)
            self._grow(item, 1)

    def drop(self, items: Sequence[Item]) -> None:
        """Items that were taken out wait no more."""
        for item in items:
            self._shares.leave(item.ticket.terms.tenant, item.ticket.terms.priority)

    def forget(self, ticket: Ticket) -> None:
        """Take what still waits of a request out."""
        lines = self._lines[ticket.terms.priority]
        if line := lines.get(ticket.terms.tenant):
            gone = line.forget(ticket)
            for item in gone:
                self._grow(item, -1)
            self.drop(gone)
            if not line.count:
                del lines[ticket.terms.tenant]

    def _line(self, item: Item) -> _Line:
        terms = item.ticket.terms
        lines = self._lines[terms.priority]
        line = lines.get(terms.tenant)
        if line is None:
            line = lines[terms.tenant] = _Line(self._shares.account(terms.tenant, terms.priority))
        return line

    def _next(self, priority: Priority) -> _Line | None:
        lines = self._lines[priority]
        if len(lines) > 1:
            return min(lines.values(), key=lambda line: line.account.had_s)
        return next(iter(lines.values()), None)

    def _is_due(self, bulk: _Line) -> bool:
        return self._shares.bulk_is_due(self._seconds(bulk.peek().cost))

    def _in_turn(self, lines: dict[Tenant, _Line]) -> Iterator[Item]:
        heap = [(line.account.had_s, place, who, line) for place, (who, line) in enumerate(lines.items())]
        heapq.heapify(heap)
        while heap:
            had_s, place, who, line = heap[0]
            item = line.pop()
            self._grow(item, -1)
            if line.count:
                heapq.heapreplace(heap, (had_s + self._seconds(item.cost) / who.weight, place, who, line))
            else:
                heapq.heappop(heap)
                del lines[who]
            yield item

    def _grow(self, item: Item, by: int) -> None:
        self.count += by
        self.slots += by * item.cost
