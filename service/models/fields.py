"""From a folder to a model of flow that answers: verified, opened and warm, whole and in tiles."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from contract.conduction import in_memory
from contract.errors import NotReproduced, UnderstudyError
from contract.packed import PackedImage, conducting_along
from contract.repository import StoredModel
from contract.tiles import COARSE, FINEST, Tensors, TiledFlow
from service.engines import Engine, Runner, Stop
from service.engines.reference import refuse_other_answers
from service.errors import NonFiniteAnswer, ServiceError
from service.families.field import FlowFamily, FlowPrediction, FlowSample
from service.lanes import Bounds, Lane, Turns
from service.meters import Outcomes, Stamps
from service.models.model import MEAN, FieldModel
from service.models.opening import bounds_of, does_not_run
from service.receipts import origin_of
from service.settings import Limits

SEAMS: Final = 1e-3
"""Of the largest velocity: what an image may differ by when it is run in tiles."""


@dataclass(frozen=True, slots=True, eq=False)
class TensorSample:
    """One call of a graph; rows, voxels, are what it costs."""

    tensors: Tensors
    rows: int
    width: int = 1


def load_field(stored: StoredModel, engine: Engine, turns: Turns, limits: Limits) -> FieldModel:
    """Open one verified model of flow, hold it against its reference answers, and run it once, whole and in tiles.

    Raises:
        RepositoryError: its graph cannot be loaded, does not run, or gives other answers than it was admitted with.
    """
    family = FlowFamily.of(stored.field_card)
    files = [MEAN, *(file for file in (COARSE, FINEST) if engine.opens(stored, file))]
    runners = {file: _opened(stored, file, engine) for file in files}
    try:
        passes = _warmed(stored, family, runners)
    except UnderstudyError:
        raise
    except Exception as error:  # noqa: BLE001 (an engine's errors share no base of their own)
        raise does_not_run(stored, MEAN, error) from None
    bounds = replace(bounds_of(family.card, limits, engine), queued_slots=limits.queued_voxels, together=False)
    lanes = {
        file: Lane(_computing(file, family, runner), _of_file(bounds, file), turns) for file, runner in runners.items()
    }
    return FieldModel(stored=stored, lanes=lanes, origin=origin_of(stored, engine), family=family, passes=passes)


def _opened(stored: StoredModel, file: str, engine: Engine) -> Runner:
    runner = engine.open(stored, file)
    try:
        refuse_other_answers(stored, file, runner)
    except UnderstudyError:
        raise
    except Exception as error:  # noqa: BLE001 (as above)
        raise does_not_run(stored, file, error) from None
    return runner


def _warmed(stored: StoredModel, family: FlowFamily, runners: dict[str, Runner]) -> int:
    """Run an image, and if that can be, in tiles: the same must come out. How often tiles are passed over; 0: never.

    Raises:
        NotReproduced: the graphs of tiles are not those of the whole.
    """
    passes = 0
    for image in family.warm_images():
        conducting_along(PackedImage.of(image), (2,))
        sample = family.encode(image, 2, keep_field=True)
        whole = family.decode(runners[MEAN](family.collate([sample])), sample)
        if len(runners) == 3 and whole.velocity is not None:
            distance, estimate = sample.inputs.distance, sample.inputs.estimate
            flow = TiledFlow(distance, estimate, family.card.divisor, np.empty_like(distance), in_memory)
            flow.run(runners[COARSE], runners[FINEST])
            passes = flow.passes
            field = sample.inputs.field(np.asarray(flow.velocity)[None])
            if not np.abs(field - whole.velocity).max() <= SEAMS * np.abs(whole.velocity).max():
                raise NotReproduced(
                    f"model '{stored.card.name}' version {stored.card.version}: in tiles it gives another velocity "
                    "than whole; publish it again"
                )
    return passes


def _of_file(bounds: Bounds, file: str) -> Bounds:
    """The curve on the card is that of whole images; how fast the others are is seen here."""
    return bounds if file == MEAN else replace(bounds, seconds_per_slot=0.0)


def _computing(file: str, family: FlowFamily, runner: Runner) -> Callable[[Sequence[Any], Stop | None], Sequence[Any]]:
    """What a lane runs on a worker."""
    return _whole(family, runner) if file == MEAN else _tensors(runner)


def _whole(
    family: FlowFamily, runner: Runner
) -> Callable[[Sequence[FlowSample], Stop | None], Sequence[FlowPrediction | ServiceError]]:
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


def _tensors(runner: Runner) -> Callable[[Sequence[TensorSample], Stop | None], Sequence[Any]]:
    def compute(samples: Sequence[TensorSample], stop: Stop | None = None) -> Sequence[Any]:
        begun = time.monotonic()
        try:
            outputs = runner(samples[0].tensors, stop)
        except ServiceError as error:
            return [error]
        ran = time.monotonic()
        return Outcomes([outputs], Stamps(begun, begun, ran, ran))

    return compute
