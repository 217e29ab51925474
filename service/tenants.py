"""Who asks: a group with a key, or the address of a caller without one."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, TypeAlias

Priority: TypeAlias = Literal["interactive", "bulk"]
PRIORITIES: Final[tuple[Priority, ...]] = ("interactive", "bulk")


@dataclass(slots=True)
class Budget:
    """A token bucket: so many neighbour slots a second, and as many as `burst_slots` at once after a rest.

    Whoever is in credit may ask, also for more than the credit: a large request is paid for by the wait after it.

    Attributes:
        slots_per_s: what comes in.
        burst_slots: the most that can be saved.
    """

    slots_per_s: float
    burst_slots: float
    _credit: float = field(init=False)
    _at: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        self._credit = self.burst_slots

    def wait_s(self, now: float) -> float:
        """Seconds until there is credit again; 0 if there is some.

        Args:
            now: monotonic seconds.
        """
        earned = self.slots_per_s * max(0.0, now - self._at)
        self._credit, self._at = min(self.burst_slots, self._credit + earned), now
        return 0.0 if self._credit > 0 else -self._credit / self.slots_per_s + 1e-9

    def spend(self, slots: int) -> None:
        """Take the cost of a request off the credit."""
        self._credit -= slots


@dataclass(frozen=True, slots=True)
class Tenant:
    """Who shares the gateway with others; two of one name are the same.

    Attributes:
        name: of the group that has the key, or the address of the caller.
        weight: share of the engine when others wait too, in proportion to theirs.
        budget: what may be asked for over time; None for any amount.
    """

    name: str
    weight: float = field(default=1.0, compare=False)
    budget: Budget | None = field(default=None, compare=False)

    def __hash__(self) -> int:
        return hash(self.name)  # a string remembers its own; many look-ups a request


NOBODY: Final = Tenant("nobody by name")


@lru_cache(4096)
def tenant_at(address: str) -> Tenant:
    """A caller without a key, by the address of its machine."""
    return Tenant(f"address {address}")
