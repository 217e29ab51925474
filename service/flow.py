"""One question about flow: through the queue of its model, an axis at a time, to an answer with its receipt."""

import asyncio
import hashlib
import time
from collections.abc import Hashable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from contract.voxels import AXES, Image
from service.errors import OtherDigest, OutOfDomain
from service.families.field import FlowPrediction, FlowSample
from service.lanes import Terms
from service.meters import Work
from service.models.fields import FieldModel
from service.rock import Rock
from service.settings import Limits
from service.tenants import NOBODY, Priority, Tenant


@dataclass(frozen=True, slots=True)
class FlowOptions:
    """What a caller may choose.

    Attributes:
        keep_field: the answer is to hold the velocity.
        timeout_s: seconds that the answer may take; the gateway's own limit holds too.
        caller, tenant, priority: as for a prediction (service/plane.py).
        on_out_of_domain: where the model was not trained, `answer`, `flag` the answer too, or `refuse`.
        model_digest: the weights that must answer, by their digest or its first digits.
    """

    keep_field: bool = False
    timeout_s: float | None = None
    caller: Hashable = None
    tenant: Tenant = NOBODY
    priority: Priority = "interactive"
    on_out_of_domain: str = "flag"
    model_digest: str | None = None


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
    model: FieldModel, image: Image, axes: Sequence[int], options: FlowOptions, limits: Limits, encoders: Executor
) -> FlowAnswer:
    """Permeability of an image along some axes.

    Raises:
        TooLarge, QueueFull, DeadlineExceeded, Fault
        OtherDigest: the weights that are served are not those that the options name.
        OutOfDomain: the verdict is "out", and the options refuse that.
    """
    _refuse_other_digest(model, options.model_digest)
    loop, begun = asyncio.get_running_loop(), time.monotonic()

    def encode() -> list[FlowSample]:
        return [model.family.encode(image, axis, i, options.keep_field) for i, axis in enumerate(axes)]

    samples = await loop.run_in_executor(encoders, encode)
    encoded = time.monotonic()
    flowing = [sample for sample in samples if sample.inputs.pores.percolates]
    work = Work(model, encoded=(begun, encoded))
    timeout_s = min(options.timeout_s or limits.timeout_s, limits.timeout_s)
    terms = Terms(timeout_s, options.caller, True, options.tenant, options.priority, work)
    answered = await model.lane.submit(flowing, terms) if flowing else []
    work.ended = time.monotonic()
    if flowing:
        model.lane.meter.answered(work)
    by_place = {prediction.sample.index: prediction for prediction in answered}
    predictions = [by_place.get(s.index) or model.family.without_flow(s) for s in samples]
    seconds = {"features": encoded - begun, "queue": work.queue_s, "total": work.ended - begun}
    answer = FlowAnswer(model, predictions, options, seconds)
    if options.on_out_of_domain == "refuse":
        _refuse_out_of_domain(answer)
    return answer


def image_sha256(image: Image) -> str:
    """SHA-256 of an image's shape and its bits, in C order, pore = 1."""
    sha = hashlib.sha256(",".join(map(str, image.shape)).encode())
    sha.update(np.packbits(image).tobytes())
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
                f"Flow along {AXES[prediction.sample.inputs.axis]} is out of the domain of model "
                f"'{answer.model.card.name}': {' '.join(prediction.domain.reasons)}",
                hint="Ask with on_out_of_domain=flag to get the answer and the verdict.",
                reasons=prediction.domain.reasons,
            )
