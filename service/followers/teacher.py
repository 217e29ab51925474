"""The teacher looks over its student's shoulder: at a sampled share of the requests, and at whatever was flagged."""

import itertools
import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from service.errors import DeadlineExceeded, QueueFull
from service.plane import Answer, Exchange, Options, Plane
from service.teachers import Opinion, Why, seconds_of

OnOpinion: TypeAlias = Callable[[Answer, int, Opinion], Awaitable[None]]
Choose: TypeAlias = Callable[[Answer], list[int]]
"""Which structures of an answer to ask about, by their places; it must say the same whenever it is asked."""


class TeacherCheck:
    """Asks the teacher about some structures of every n-th answer, and enters the gap in the student's ledger.

    Args:
        plane: answers for the teacher.
        why: under which name a check is counted.
        choose: the structures.
        fraction: of the answers that are looked at; 0 for none.
        share: of the student's engine time that the teacher may cost in the mean.
        on_opinion: told of each structure, by its place, and of the two opinions of it.
    """

    def __init__(
        self, plane: Plane, why: Why, choose: Choose, fraction: float, share: float, on_opinion: OnOpinion | None = None
    ) -> None:
        self.name = f"teacher, {why}"
        self._plane = plane
        self._why = why
        self._choose = choose
        self._every = math.ceil(1 / fraction) if fraction > 0 else 0
        self._share = share
        self._on_opinion = on_opinion
        self._seen = itertools.count(1)

    def wants(self, exchange: Exchange) -> bool:
        """Whether it is this one's turn, there is something to ask, and the teacher's time is not used up."""
        answer, teachers = exchange.answer, self._plane.teachers
        teacher = teachers.of(answer.model)
        if teacher is None or answer.opinions or not (places := self._choose(answer)) or not self._is_due():
            return False
        ledger = teachers.ledger(answer.model)
        seconds = seconds_of([answer.predictions[place] for place in places], teacher)
        if not ledger.affords(seconds, self._share):
            ledger.refused += len(places)
            return False
        ledger.teacher_s += seconds
        return True

    async def follow(self, exchange: Exchange) -> None:
        """Ask, compare, enter."""
        answer = exchange.answer
        options = Options(caller=exchange.options.caller, followed=False, priority="bulk")
        try:
            opinions = await self._plane.second_opinions(answer, self._choose(answer), options)
        except (QueueFull, DeadlineExceeded):
            return  # a busy gateway says nothing of the gap
        ledger = self._plane.teachers.ledger(answer.model)
        for place, opinion in opinions.items():
            ledger.note(opinion.gap, self._why)
            if self._on_opinion is not None:
                await self._on_opinion(answer, place, opinion)

    def _is_due(self) -> bool:
        return self._every > 0 and next(self._seen) % self._every == 0


def every_place(answer: Answer) -> list[int]:
    """All structures."""
    return list(range(len(answer.predictions)))


def flagged_places(answer: Answer) -> list[int]:
    """The structures that are flagged by themselves, whatever is known of their model."""
    return [place for place, flags in enumerate(answer.own_flags) if flags]
