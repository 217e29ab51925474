"""When to ask again, and after how long: every request of this client may be repeated safely."""

import email.utils
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

ASK_AGAIN: Final = frozenset({429, 503})


@dataclass(frozen=True, slots=True)
class Retries:
    """How patient a client is.

    Attributes:
        answers: how often to ask again after 429 (busy) or 503 (not ready).
        connections: how often to ask again after a lost or refused connection.
        first_pause_s: doubled after each try, where the gateway does not say how long to wait.
        longest_pause_s: a gateway that asks for more than this is not waited for: the error is raised at once.
        jitter: spreads the pauses by up to a quarter, so that many clients do not come back at the same instant.
    """

    answers: int = 5
    connections: int = 2
    first_pause_s: float = 0.25
    longest_pause_s: float = 30.0
    jitter: random.Random = field(default_factory=random.Random, compare=False, repr=False)

    def pause_after_answer(self, status: int, headers: Mapping[str, str], tries: int) -> float | None:
        """Seconds to wait before asking again, or None: the answer stands."""
        if status not in ASK_AGAIN or tries >= self.answers:
            return None
        asked_s = retry_after_s(headers)
        if asked_s is not None and asked_s > self.longest_pause_s:
            return None
        return self._pause_s(asked_s, tries)

    def pause_after_loss(self, tries: int) -> float | None:
        """Seconds to wait before connecting again, or None: give up."""
        return None if tries >= self.connections else self._pause_s(None, tries)

    def _pause_s(self, asked_s: float | None, tries: int) -> float:
        if asked_s is None:
            asked_s = min(self.first_pause_s * 2**tries, self.longest_pause_s)
        return asked_s * self.jitter.uniform(1.0, 1.25)


NEVER: Final = Retries(answers=0, connections=0)


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The `Retry-After` header in seconds from now, whether written as a number or as a date; None if unusable."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
