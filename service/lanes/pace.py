"""How long an engine call takes, by its cost: as the card says at first, then as it is seen here."""

from typing import Final

from service.lanes.terms import Bounds

_MEMORY: Final = 0.1
_UNKNOWN_S: Final = 1e-6


class Pace:
    """Seconds of one worker per neighbour slot; 0 while that is not known.

    Attributes:
        seconds_per_slot: the running mean of what was seen here, full batches counting most.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.seconds_per_slot = self._stated = bounds.seconds_per_slot
        self._full = bounds.batch_slots

    def saw(self, slots: int, seconds: float) -> None:
        """A batch of so many slots took so long."""
        seen = seconds / slots
        if not self.seconds_per_slot:
            self.seconds_per_slot = seen
        self.seconds_per_slot += _MEMORY * min(1.0, slots / self._full) * (seen - self.seconds_per_slot)

    def seconds(self, slots: int) -> float:
        """How long so much work keeps one worker busy."""
        return slots * self.seconds_per_slot

    def charge_s(self, slots: int) -> float:
        """The same for the accounts of tenants, who pay for work of unknown length too."""
        return slots * (self.seconds_per_slot or _UNKNOWN_S)

    def at_least_s(self, slots: int) -> float:
        """The same, taking the card's word or experience, whichever promises more; other machines may be faster."""
        stated = self._stated or self.seconds_per_slot
        return 0.5 * slots * min(stated, self.seconds_per_slot)
