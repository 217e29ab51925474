"""One question about flow: through the queue of its model, an axis at a time, to an answer with its receipt."""

import asyncio
import hashlib
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

from contract.conduction import Flag
from contract.packed import PackedImage
from service.errors import OtherDigest, OutOfDomain
from service.families.field import FlowPrediction, FlowSample
from service.lanes import Terms
from service.meters import Work
from service.models import FieldModel
from service.rock import Rock
from service.settings import Limits
from service.spool import Spool
from service.stopping import stopping
from service.tenants import NOBODY, Priority, Tenant
from service.tiles import Progress, TiledQuestion


@dataclass(frozen=True, slots=True)
class FlowOptions:
    """What a caller may choose.

    Attributes:
        keep_field: the answer is to hold the velocity.
        timeout_s: seconds that the answer may take; the gateway's own limit holds too.
        caller, tenant, priority: as for a prediction (service/plane.py).
        on_out_of_domain: where the model was not trained, `answer`, `flag` the answer too, or `refuse`.
        model_digest: the weights that must answer, by their digest or its first digits.
        tell: is told how far an image that is run in tiles has come.
    """

    keep_field: bool = False
    timeout_s: float | None = None
    caller: Hashable = None
    tenant: Tenant = NOBODY
    priority: Priority = "interactive"
    on_out_of_domain: str = "flag"
    model_digest: str | None = None
    tell: Progress | None = None


@dataclass(frozen=True, slots=True)
class Means:
    """What answering takes beside a model.

    Attributes:
        encoders: threads that prepare images.
        spool: room on disk for what is larger than memory should hold.
        parallelism: engine calls that do not slow each other down.
    """

    limits: Limits
    encoders: Executor
    spool: Spool
    parallelism: int


@dataclass(frozen=True, slots=True, eq=False)
class FlowAnswer:
    """Who answered, what along each axis, how it was asked, and the seconds it took."""

    model: FieldModel
    predictions: list[FlowPrediction]
    options: FlowOptions
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def flags(self) -> list[str]:
        """Why the answer deserves a second look."""
        if self.options.on_out_of_domain == "answer":
            return []
        verdicts = {prediction.domain.verdict for prediction in self.predictions}
        return ["out_of_domain"] if "out" in verdicts else ["edge_of_domain"] if "edge" in verdicts else []

    def receipt(self, rock: Rock) -> dict[str, Any]:
        """What the answer depends on, and hashes of what was asked."""
        asked = image_sha256(rock.image)
        return {
            **self.model.origin,
            "teacher": None,
            "input_sha256": asked,
            "inputs": [asked],
            "options": {
                "axes": [prediction.axis for prediction in self.predictions],
                "voxel_size_um": rock.voxel_size_um,
                "on_out_of_domain": self.options.on_out_of_domain,
            },
            "batch_mode": "alone",
        }


async def answer_flow(
    model: FieldModel, image: PackedImage, axes: Sequence[int], options: FlowOptions, means: Means
) -> FlowAnswer:
    """Permeability of an image along some axes; one that is too large for a call is run in tiles.

    Raises:
        TooLarge, QueueFull, DeadlineExceeded, SpoolFull, Fault
        OtherDigest: the weights that are served are not those that the options name.
        OutOfDomain: the verdict is "out", and the options refuse that.
    """
    _refuse_other_digest(model, options.model_digest)
    ask = _in_tiles if model.passes and image.size > means.limits.whole_voxels else _whole
    begun = time.monotonic()
    work = Work(model, encoded=(begun, begun))
    try:
        with model:
            predictions = await ask(model, image, axes, options, means, work)
    except BaseException:
        work.ended = time.monotonic()
        model.lane.meter.failed(work)
        raise
    work.ended = time.monotonic()
    model.lane.meter.answered(work)
    seconds = {"features": work.encoded[1] - begun, "queue": work.queue_s, "total": work.ended - begun}
    answer = FlowAnswer(model, predictions, options, seconds)
    if options.on_out_of_domain == "refuse":
        _refuse_out_of_domain(answer)
    return answer


async def _whole(
    model: FieldModel, image: PackedImage, axes: Sequence[int], options: FlowOptions, means: Means, work: Work
) -> list[FlowPrediction]:
    """Each axis in one engine call."""
    model.family.refuse_too_large(image.size)

    loop, terms = asyncio.get_running_loop(), _terms(options, means.limits.flow_timeout_s, work)
    deadline = loop.time() + terms.timeout_s

    def encode(stop: Flag) -> list[FlowSample]:
        unpacked = image.unpacked()
        return [model.family.encode(unpacked, axis, options.keep_field, stop) for axis in axes]

    with stopping(deadline, terms.timeout_s) as stop:
        samples = await loop.run_in_executor(means.encoders, encode, stop)
    work.encoded = (work.encoded[0], time.monotonic())
    flowing = [sample for sample in samples if sample.inputs.pores.percolates]
    terms = terms.with_left(deadline - loop.time())
    answered = iter(await model.lane.submit(flowing, terms) if flowing else [])
    return [
        next(answered)
        if sample.inputs.pores.percolates
        else model.family.without_flow(sample.inputs.geometry, options.keep_field)
        for sample in samples
    ]


async def _in_tiles(
    model: FieldModel, image: PackedImage, axes: Sequence[int], options: FlowOptions, means: Means, work: Work
) -> list[FlowPrediction]:
    """Each axis in parts (service/tiles.py)."""
    terms = _terms(options, means.limits.flow_timeout_s, work)
    with means.spool.scratch() as scratch:
        return await TiledQuestion(
            model=model,
            image=image,
            axes=axes,
            keep_field=options.keep_field,
            terms=terms,
            length=means.limits.tile_length,
            ahead=means.parallelism,
            encoders=means.encoders,
            scratch=scratch,
            tell=options.tell,
        ).answers()


def _terms(options: FlowOptions, limit_s: float, work: Work) -> Terms:
    timeout_s = min(options.timeout_s or limit_s, limit_s)
    return Terms(timeout_s, options.caller, True, options.tenant, options.priority, work)


def image_sha256(image: PackedImage) -> str:
    """SHA-256 of an image's shape and its bits, in C order, pore = 1."""
    sha = hashlib.sha256(",".join(map(str, image.shape)).encode())
    for bits in image.flat_bits():
        sha.update(bits)
    return sha.hexdigest()


def _refuse_other_digest(model: FieldModel, wanted: str | None) -> None:
    served = model.stored.digest
    if wanted is not None and not served.startswith(wanted):
        raise OtherDigest(
            f"Model '{model.card.name}' is served with digest {served}, not {wanted[:64]}.",
            hint="Ask without model_digest to get the answer of these weights.",
            expected=wanted[:64],
            got=served,
        )


def _refuse_out_of_domain(answer: FlowAnswer) -> None:
    for prediction in answer.predictions:
        if not prediction.domain.in_domain:
            raise OutOfDomain(
                f"Flow along {prediction.axis} is out of the domain of model "
                f"'{answer.model.card.name}': {' '.join(prediction.domain.reasons)}",
                hint="Ask with on_out_of_domain=flag to get the answer and the verdict.",
                reasons=prediction.domain.reasons,
            )
