"""Puts what was flagged, and what the teacher answered very differently, into the harvest."""

import asyncio
from collections.abc import Iterator, Sequence

from service.followers.teacher import flagged_places
from service.harvest import Harvest, Harvested
from service.plane import Answer, Exchange
from service.receipts import sha256_of
from service.teachers import Opinion


class Harvester:
    """Keeps structures of live traffic that a reference calculation would teach something."""

    name = "harvest"

    def __init__(self, harvest: Harvest) -> None:
        self._harvest = harvest

    def wants(self, exchange: Exchange) -> bool:
        """Whether a structure is flagged, or far from the teacher."""
        return bool(flagged_places(exchange.answer) or _far(exchange.answer))

    async def follow(self, exchange: Exchange) -> None:
        """Keep them, on another thread: a disk may be slow."""
        await asyncio.to_thread(self._keep, list(_worth_keeping(exchange.answer)))

    async def hear(self, answer: Answer, place: int, opinion: Opinion) -> None:
        """Keep a structure that the teacher looked at afterwards, if the two are far apart."""
        if _is_far(answer, opinion):
            reasons = [*answer.own_flags[place], "teacher_gap"]
            await asyncio.to_thread(self._keep, [_harvested(answer, place, reasons, opinion)])

    def _keep(self, every: list[Harvested]) -> None:
        for harvested in every:
            self._harvest.keep(harvested)


def _worth_keeping(answer: Answer) -> Iterator[Harvested]:
    far = _far(answer)
    for place in sorted({*flagged_places(answer), *far}):
        reasons = [*answer.own_flags[place], *(["teacher_gap"] if place in far else [])]
        yield _harvested(answer, place, reasons, answer.opinions.get(place))


def _far(answer: Answer) -> set[int]:
    return {place for place, opinion in answer.opinions.items() if _is_far(answer, opinion)}


def _is_far(answer: Answer, opinion: Opinion) -> bool:
    teacher = answer.model.card.teacher
    return teacher is not None and teacher.gap is not None and opinion.gap.exceeds(teacher.gap)


def _harvested(answer: Answer, place: int, reasons: Sequence[str], opinion: Opinion | None) -> Harvested:
    prediction, model = answer.by_model(place), answer.model
    structure = prediction.sample.structure
    return Harvested(
        structure,
        sha256_of(structure),
        reasons,
        model.card.name,
        model.card.version,
        model.stored.digest,
        prediction.energy,
        prediction.energy_std,
        prediction.forces,
        None if opinion is None else opinion.teacher.energy,
        None if opinion is None else opinion.teacher.forces,
    )
