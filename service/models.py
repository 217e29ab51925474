"""What is loaded: models by name, each with its card, its digest, its family and its lanes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from contract.card import ModelCard
from contract.errors import ModelNotFound
from contract.repository import ModelRepository, StoredModel
from service.engines import Engine, Runner
from service.errors import NonFiniteAnswer, UnknownModel, UnknownOutput
from service.families.potential import Potential, Prediction, Sample
from service.lanes import Bounds, Lane, Turns
from service.settings import Limits

MEAN: Final = "model.onnx"
MEMBERS: Final = "model_members.onnx"


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """One served version of a model.

    Attributes:
        stored: card, folder and digest, verified.
        family: its pure functions.
        lanes: by graph file; the one with the forces of each member is there only if the model has that file.
    """

    stored: StoredModel
    family: Potential
    lanes: dict[str, Lane]

    @property
    def card(self) -> ModelCard:
        """The model card."""
        return self.stored.card

    def lane(self, member_forces: bool) -> Lane:
        """The queue for a graph.

        Raises:
            UnknownOutput: the forces of each member were asked of a model that does not have them.
        """
        if member_forces and MEMBERS not in self.lanes:
            raise UnknownOutput(
                f"Model '{self.card.name}' has no forces_std: it has {self.card.committee.members} member(s) "
                "and no graph with the forces of each.",
                hint="Leave it out, or ask a committee model.",
                field="outputs",
            )
        return self.lanes[MEMBERS if member_forces else MEAN]


class Models:
    """The models that are served, by name."""

    def __init__(self, models: Sequence[Model]) -> None:
        self._by_name = {model.card.name: model for model in models}

    def __iter__(self) -> Iterator[Model]:
        return iter(self._by_name.values())

    def get(self, name: str, version: str | None = None) -> Model:
        """A model, in the version that is served or the one named.

        Raises:
            UnknownModel: naming what is served.
        """
        model = self._by_name.get(name)
        if model is None:
            served = list(self._by_name)
            raise UnknownModel(
                f"No model '{name[:64]}' is served here.", hint=f"There are: {', '.join(served)}.", models=served
            )
        if version is not None and version != model.card.version:
            raise UnknownModel(
                f"Model '{name}' is not served in version '{version[:20]}'.",
                hint=f"It is served in version {model.card.version}.",
                versions=[model.card.version],
            )
        return model


def load_models(repository: ModelRepository, engine: Engine, turns: Turns, limits: Limits) -> Models:
    """Verify, open and warm every model of a repository.

    Raises:
        RepositoryError: a model must not be served, naming the file and the reason; or there is none.
    """
    names = repository.names()
    if not names:
        raise ModelNotFound(
            f"there is no model in {repository.root}; name another folder with --model-repo or UNDERSTUDY_MODEL_REPO, "
            "or publish a model into it"
        )
    return Models([load_model(repository.load(name), engine, turns, limits) for name in names])


def load_model(stored: StoredModel, engine: Engine, turns: Turns, limits: Limits) -> Model:
    """Open and warm one verified model.

    Raises:
        RepositoryError: a graph cannot be loaded, or does not run.
    """
    family = Potential.of(stored.card)
    files = [file for file in (MEAN, MEMBERS) if file == MEAN or stored.has(file)]
    lanes = {}
    for file in files:
        runner = engine.open(stored, file)
        for tensors in family.warm_batches():
            runner(tensors)
        lanes[file] = Lane(compute_of(family, runner), _bounds(stored.card, limits), turns)
    return Model(stored, family, lanes)


def compute_of(family: Potential, runner: Runner) -> Any:
    """What a lane runs on a worker: collate, engine, split, decode."""

    def compute(samples: Sequence[Sample]) -> Sequence[Prediction | NonFiniteAnswer]:
        outputs = runner(family.collate(samples))
        try:
            parts = family.split(outputs, samples)
            return [family.decode(part, sample) for part, sample in zip(parts, samples, strict=True)]
        except NonFiniteAnswer as error:
            if len(samples) > 1:  # the lane runs each alone, so that what one structure broke is no other's fault
                raise
            return [error]

    return compute


def _bounds(card: ModelCard, limits: Limits) -> Bounds:
    best = min(card.batching.points, key=lambda p: p.milliseconds / p.slots, default=None)
    seconds = best.milliseconds / best.slots / 1e3 if best else 0.0
    return Bounds(card.batching.best_slots, limits.queued_structures, limits.queued_slots, seconds)
