"""From a folder to a potential that answers: verified, opened and warm."""

import time
from collections.abc import Sequence
from typing import Any
from zipfile import BadZipFile

from contract.environments import ENVIRONMENTS, Environments
from contract.errors import UnderstudyError, UnsafeArtefact
from contract.repository import StoredModel
from service.engines import Engine, Runner, Stop
from service.engines.reference import refuse_other_answers
from service.errors import NonFiniteAnswer, ServiceError
from service.families.potential import Potential, Prediction, Sample
from service.lanes import Lane, Turns
from service.meters import Outcomes, Stamps
from service.models.model import MEAN, MEMBERS, Model
from service.models.opening import bounds_of, does_not_run
from service.models.warmth import Warm
from service.receipts import origin_of
from service.settings import Limits


def load_potential(stored: StoredModel, engine: Engine, turns: Turns, limits: Limits) -> Model:
    """Open one verified model, hold it against its reference answers, and run every usual shape once.

    Raises:
        RepositoryError: a graph cannot be loaded, does not run, or gives other answers than it was admitted with.
    """
    card = stored.potential_card
    family, warm = Potential.of(card, _environments(stored)), Warm()
    lanes = {}
    for file in (file for file in (MEAN, MEMBERS) if file == MEAN or engine.opens(stored, file)):
        runner = _ready(stored, file, engine, family, warm)
        lanes[file] = Lane(compute_of(family, runner), bounds_of(card, limits, engine), turns)
    return Model(stored=stored, lanes=lanes, origin=origin_of(stored, engine), warm=warm, family=family)


def _ready(stored: StoredModel, file: str, engine: Engine, family: Potential, warm: Warm) -> Runner:
    runner = engine.open(stored, file)
    try:
        refuse_other_answers(stored, file, runner)
        return warm.warmed(file, runner, family.warm_batches())
    except UnderstudyError:
        raise
    except Exception as error:  # noqa: BLE001 (an engine's errors share no base of their own)
        raise does_not_run(stored, file, error) from None


def _environments(stored: StoredModel) -> Environments | None:
    """The surroundings that a model was trained on, if they were published with it."""
    if not stored.has(ENVIRONMENTS):
        return None
    path = stored.file(ENVIRONMENTS)
    try:
        return Environments.load(path)
    except (ValueError, KeyError, OSError, BadZipFile) as error:
        raise UnsafeArtefact(f"{path} is not a set of environments: {error}; publish the model again") from None


def compute_of(family: Potential, runner: Runner) -> Any:
    """What a lane runs on a worker: collate, engine, split, decode."""

    def compute(samples: Sequence[Sample], stop: Stop | None = None) -> Sequence[Prediction | ServiceError]:
        begun = time.monotonic()
        tensors = family.collate(samples)
        collated = time.monotonic()
        try:
            outputs = runner(tensors, stop)
        except ServiceError as error:  # nobody's structure is at fault: none is run again
            return [error] * len(samples)
        ran = time.monotonic()
        try:
            parts = family.split(outputs, samples)
            predictions = [family.decode(part, sample) for part, sample in zip(parts, samples, strict=True)]
            return Outcomes(predictions, Stamps(begun, collated, ran, time.monotonic()))
        except NonFiniteAnswer as error:
            if len(samples) > 1:  # the lane runs each alone, so that what one structure broke is no other's fault
                raise
            return [error]

    return compute
