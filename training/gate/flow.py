"""The admission checks of a model of flow: what an image may ask of it, whatever the image.

Walls hold, no image sees its batch-mates, the graph is the network, and turning, doubling or padding an image changes
the answer as physics says, within what networks without these symmetries in their weights can do.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from contract.card import Check
from contract.flow import FlowInputs, flow_inputs
from contract.voxels import Image
from training.gate.engines import Arrays, Engine
from training.networks.permeability import PermeabilityCommittee

PARITY: Final = 1e-4
TURNED: Final = 0.25
DOUBLED: Final = 0.5
PADDED: Final = 0.15
MOVED: Final = 0.05
_SAMPLED: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class FlowSubmission:
    """What the checks see.

    Attributes:
        engine: runs the exported graph.
        committee: the network that was exported.
        images: of the test part, flow along the last axis.
        error: rmse of log10 k on the test part, and
        trivial_error: that of the mean predictor.
    """

    engine: Engine
    committee: PermeabilityCommittee
    images: Sequence[Image]
    error: float
    trivial_error: float

    @property
    def divisor(self) -> int:
        """Of the lengths."""
        return self.committee.config.divisor

    @property
    def sampled(self) -> list[Image]:
        """A few of the images, evenly spaced."""
        places = np.unique(np.linspace(0, len(self.images) - 1, _SAMPLED).astype(int))
        return [self.images[i] for i in places]

    def permeability(self, image: Image, axis: int = 2) -> float:
        """Mean of the members along an axis, voxel^2."""
        inputs = flow_inputs(image, axis, self.divisor)
        return float(inputs.permeabilities(self.engine(inputs.tensors())["member_flow"]).mean())


def examine_flow(submission: FlowSubmission) -> list[Check]:
    """Every check."""
    return [check for examine in _CHECKS for check in examine(submission)]


def graph_is_network(submission: FlowSubmission) -> Iterator[Check]:
    """Velocity and flow of the graph beside the network's, over the largest velocity, on several shapes."""
    shapes = _shapes(submission)
    found = [_parity(submission, inputs) for inputs in shapes]
    shape = str(list(shapes[int(np.argmax(found))].pore.shape))
    yield Check(name="graph beside network", measured=_worst(found), bound=PARITY, unit="relative", detail=shape)


def walls_hold(submission: FlowSubmission) -> Iterator[Check]:
    """No velocity in the solid, nor in pores that do not conduct: exactly."""
    count = 0
    for image in submission.sampled:
        inputs = flow_inputs(image, 2, submission.divisor)
        field = inputs.field(submission.engine(inputs.tensors())["velocity"])
        count += int(np.count_nonzero(field[~inputs.pores.conducting]))
    yield Check(name="velocity outside conducting pores", measured=float(count), bound=0.0, unit="voxels")


def field_is_flow(submission: FlowSubmission) -> Iterator[Check]:
    """The mean of the served field is the served permeability."""
    apart = []
    for inputs in _shapes(submission):
        outputs = submission.engine(inputs.tensors())
        k = inputs.permeabilities(outputs["member_flow"]).mean()
        apart.append(abs(float(inputs.field(outputs["velocity"]).mean(dtype=np.float64)) / k - 1.0))
    yield Check(name="mean of the field beside permeability", measured=_worst(apart), bound=PARITY, unit="relative")


def images_are_apart(submission: FlowSubmission) -> Iterator[Check]:
    """The answer for an image beside another one, the same turned, in a batch, and alone."""
    image = submission.images[0]
    turned = np.ascontiguousarray(image[::-1, :, ::-1])
    one, other = (flow_inputs(each, 2, submission.divisor) for each in (image, turned))
    both = {name: np.concatenate([one.tensors()[name], other.tensors()[name]]) for name in one.tensors()}
    together = submission.engine(both)["velocity"][:1]
    alone = submission.engine(one.tensors())["velocity"]
    yield Check(name="an image in company", measured=_apart(together, alone), bound=PARITY, unit="relative")


def axes_are_served_alike(submission: FlowSubmission) -> Iterator[Check]:
    """Flow along x of an image turned so that its z is x: exactly that along z."""
    apart = []
    for image in submission.sampled:
        turned = np.ascontiguousarray(np.moveaxis(image, 2, 0))
        apart.append(abs(submission.permeability(turned, 0) / submission.permeability(image, 2) - 1.0))
    yield Check(name="axis permutation", measured=_worst(apart), bound=1e-6, unit="relative")


def symmetric_images_are_alike(submission: FlowSubmission) -> Iterator[Check]:
    """The image with its sides exchanged, and upside down: learnt, not built in."""
    kinds: dict[str, Callable[[Image], Image]] = {
        "sides exchanged": lambda image: np.ascontiguousarray(image.swapaxes(0, 1)),
        "upside down": lambda image: np.ascontiguousarray(image[:, :, ::-1]),
    }
    for name, change in kinds.items():
        yield Check(name=f"median change, {name}", measured=_change(submission, change), bound=TURNED, unit="relative")


def doubled_images_scale(submission: FlowSubmission) -> Iterator[Check]:
    """Every voxel as eight: the permeability in voxel^2 should be four times as large."""

    def doubled(image: Image) -> Image:
        return np.ascontiguousarray(image.repeat(2, 0).repeat(2, 1).repeat(2, 2))

    measured = _change(submission, doubled, factor=4.0)
    yield Check(name="median change, voxels halved", measured=measured, bound=DOUBLED, unit="relative")


def padding_hardly_matters(submission: FlowSubmission) -> Iterator[Check]:
    """More solid at the high sides; the mean is taken over the same volume."""

    def wider(image: Image) -> Image:
        return np.pad(image, ((0, submission.divisor), (0, submission.divisor), (0, 0)))

    ratios = [wider(image).size / image.size for image in submission.sampled]
    factors = [1.0 / ratio for ratio in ratios]
    measured = _change(submission, wider, factors)
    yield Check(name="median change, padding", measured=measured, bound=PADDED, unit="relative")


def moved_images_are_alike(submission: FlowSubmission) -> Iterator[Check]:
    """The same rock elsewhere in the same solid, moved across the flow by one voxel of the coarsest scale."""
    step = submission.divisor

    def first(image: Image) -> Image:
        return np.pad(image, ((step, step), (step, step), (0, 0)))

    def moved(image: Image) -> Image:
        return np.pad(image, ((0, 2 * step), (2 * step, 0), (0, 0)))

    pairs = [(submission.permeability(moved(i)), submission.permeability(first(i))) for i in submission.sampled]
    measured = float(np.median([abs(got / wanted - 1.0) for got, wanted in pairs]))
    yield Check(name="median change, moved by a tile", measured=measured, bound=MOVED, unit="relative")


def beats_the_mean(submission: FlowSubmission) -> Iterator[Check]:
    """Better on the test part than one value for all."""
    yield Check(
        name="rmse of log10 k on the test part, mean predictor as bound",
        measured=submission.error,
        bound=submission.trivial_error,
    )


_CHECKS: Final[tuple[Callable[[FlowSubmission], Iterator[Check]], ...]] = (
    graph_is_network,
    walls_hold,
    field_is_flow,
    images_are_apart,
    axes_are_served_alike,
    symmetric_images_are_alike,
    doubled_images_scale,
    padding_hardly_matters,
    moved_images_are_alike,
    beats_the_mean,
)


def _change(
    submission: FlowSubmission, change: Callable[[Image], Image], factor: float | Sequence[float] = 1.0
) -> float:
    """Median over images of how far the permeability of a changed image is from factor times that of the image."""
    factors = np.broadcast_to(factor, len(submission.sampled))
    pairs = [
        (submission.permeability(change(i)), f * submission.permeability(i))
        for i, f in zip(submission.sampled, factors, strict=True)
    ]
    return float(np.median([abs(got / wanted - 1.0) for got, wanted in pairs]))


def _shapes(submission: FlowSubmission) -> list[FlowInputs]:
    """Images as they are and cut to other lengths."""
    image = submission.images[0]
    cuts = [image, image[:, : image.shape[1] // 2], image[: image.shape[0] - 3, :, : image.shape[2] // 2 + 1]]
    inputs = [flow_inputs(np.ascontiguousarray(cut), 2, submission.divisor) for cut in cuts]
    return [each for each in inputs if each.pores.percolates]


@torch.no_grad()
def _parity(submission: FlowSubmission, inputs: FlowInputs) -> float:
    tensors: Arrays = inputs.tensors()
    velocity, flow = submission.committee(*map(torch.from_numpy, tensors.values()))
    got = submission.engine(tensors)
    return _worst([_apart(got["velocity"], velocity.numpy()), _apart(got["member_flow"], flow.numpy())])


def _worst(values: Sequence[float]) -> float:
    """The largest; unlike with `max`, not a number wherever one of them is none."""
    return float(np.max(values))


def _apart(got: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    if got.shape != expected.shape:
        return np.inf
    difference = np.abs(got.astype(np.float64) - expected.astype(np.float64)).max()
    return float(difference / np.abs(expected.astype(np.float64)).max())
