"""Models of flow: loaded, verified and warm beside the potentials, each with a lane of its own on the same workers."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from contract.card import FieldCard
from contract.errors import UnderstudyError
from contract.repository import ModelRepository, StoredModel
from service.engines import Engine, Runner, Stop
from service.engines.reference import refuse_other_answers
from service.errors import NonFiniteAnswer, ServiceError, UnknownModel
from service.families.field import FlowFamily, FlowPrediction, FlowSample
from service.lanes import Lane, Turns
from service.meters import Outcomes, Stamps
from service.models.loading import bounds_of, does_not_run
from service.models.model import MEAN
from service.receipts import origin_of
from service.settings import Limits


@dataclass(frozen=True, slots=True, eq=False)
class FieldModel:
    """One model of flow.

    Attributes:
        stored: card, folder and digest, verified.
        family: its pure functions.
        lane: its queue.
        origin: the part of a receipt that is the same for every answer.
    """

    stored: StoredModel
    family: FlowFamily
    lane: Lane
    origin: Mapping[str, Any]

    @property
    def card(self) -> FieldCard:
        """The model card."""
        return self.family.card


class FieldModels:
    """The models of flow that are served, each in its promoted version."""

    def __init__(self, models: Sequence[FieldModel] = ()) -> None:
        self._models = {model.card.name: model for model in models}

    def __iter__(self) -> Iterator[FieldModel]:
        return iter(self._models.values())

    def __contains__(self, name: str) -> bool:
        return name in self._models

    def get(self, name: str) -> FieldModel:
        """A model.

        Raises:
            UnknownModel: naming those that there are.
        """
        if name not in self._models:
            served = ", ".join(self._models) or "none; publish one into the model repository"
            raise UnknownModel(
                f"No model of flow '{name[:64]}' is served here.", hint=f"There are: {served}.", models=[*self._models]
            )
        return self._models[name]


def load_fields(repository: ModelRepository, engine: Engine, turns: Turns, limits: Limits) -> FieldModels:
    """Verify, open and warm every model of flow of a repository that the engine runs; there may be none.

    Raises:
        RepositoryError: a model must not be served, naming the file and the reason.
    """
    stored = [repository.load(name) for name in repository.names() if repository.family(name) == "field"]
    return FieldModels([load_field(each, engine, turns, limits) for each in stored if engine.opens(each, MEAN)])


def load_field(stored: StoredModel, engine: Engine, turns: Turns, limits: Limits) -> FieldModel:
    """Open one verified model of flow, hold it against its reference answers, and run it once.

    Raises:
        RepositoryError: its graph cannot be loaded, does not run, or gives other answers than it was admitted with.
    """
    card = stored.field_card
    family, runner = FlowFamily.of(card), engine.open(stored, MEAN)
    try:
        refuse_other_answers(stored, MEAN, runner)
        for image in family.warm_images():
            sample = family.encode(image, 2)
            family.decode(runner(family.collate([sample])), sample)
    except UnderstudyError:
        raise
    except Exception as error:  # noqa: BLE001 (an engine's errors share no base of their own)
        raise does_not_run(stored, MEAN, error) from None
    bounds = replace(bounds_of(card, limits, engine), queued_slots=limits.queued_voxels, together=False)
    return FieldModel(stored, family, Lane(_compute_of(family, runner), bounds, turns), origin_of(stored, engine))


def _compute_of(
    family: FlowFamily, runner: Runner
) -> Callable[[Sequence[FlowSample], Stop | None], Sequence[FlowPrediction | ServiceError]]:
    """What a lane runs on a worker."""

    def compute(samples: Sequence[FlowSample], stop: Stop | None = None) -> Sequence[FlowPrediction | ServiceError]:
        begun = time.monotonic()
        tensors = family.collate(samples)
        collated = time.monotonic()
        try:
            outputs = runner(tensors, stop)
            ran = time.monotonic()
            prediction = family.decode(outputs, samples[0])
        except (NonFiniteAnswer, ServiceError) as error:
            return [error]
        return Outcomes([prediction], Stamps(begun, collated, ran, time.monotonic()))

    return compute
