"""From a folder to a model that answers: verified, opened and warm."""

from collections.abc import Sequence
from typing import Any

from contract.card import ModelCard
from contract.errors import ModelNotFound
from contract.repository import ModelRepository, StoredModel
from service.engines import Engine, Runner, Stop
from service.errors import NonFiniteAnswer, ServiceError
from service.families.potential import Potential, Prediction, Sample
from service.lanes import Bounds, Lane, Turns
from service.models.model import MEAN, MEMBERS, Model
from service.models.served import Models
from service.receipts import origin_of
from service.settings import Limits


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
    files = [file for file in (MEAN, MEMBERS) if file == MEAN or engine.opens(stored, file)]
    lanes = {}
    for file in files:
        runner = engine.open(stored, file)
        for tensors in family.warm_batches():
            runner(tensors)
        lanes[file] = Lane(compute_of(family, runner), _bounds(stored.card, limits, engine), turns)
    return Model(stored, family, lanes, origin_of(stored, engine))


def compute_of(family: Potential, runner: Runner) -> Any:
    """What a lane runs on a worker: collate, engine, split, decode."""

    def compute(samples: Sequence[Sample], stop: Stop | None = None) -> Sequence[Prediction | ServiceError]:
        try:
            outputs = runner(family.collate(samples), stop)
        except ServiceError as error:  # nobody's structure is at fault: none is run again
            return [error] * len(samples)
        try:
            parts = family.split(outputs, samples)
            return [family.decode(part, sample) for part, sample in zip(parts, samples, strict=True)]
        except NonFiniteAnswer as error:
            if len(samples) > 1:  # the lane runs each alone, so that what one structure broke is no other's fault
                raise
            return [error]

    return compute


def _bounds(card: ModelCard, limits: Limits, engine: Engine) -> Bounds:
    """Sizes by the card's curve; how fast a worker is only if the curve was measured on this kind of engine."""
    curve, here = card.batching, engine.description
    best = min(curve.points, key=lambda p: p.milliseconds / p.slots, default=None)
    measured = curve.engine.split()[0] == here.engine and curve.device == here.device
    seconds = best.milliseconds / best.slots / 1e3 if best and measured else 0.0
    return Bounds(curve.best_slots, limits.queued_structures, limits.queued_slots, seconds, curve.gains)
