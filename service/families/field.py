"""The family `field`: a rock image in; permeability along an axis, its interval, the flow field and a verdict out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from contract.card import FieldCard, FlowDomain
from contract.conduction import Flag
from contract.errors import TooLarge
from contract.flow import FlowInputs, Geometry, flow_inputs
from contract.voxels import AXES, Image
from service.errors import NonFiniteAnswer
from service.trust import Domain, Verdict

Tensors = dict[str, NDArray[Any]]

FLOOR: Final = 1e-6
"""voxel^2: a member's permeability below it counts as so much in the spread of the logarithm."""
NEARLY: Final = 1.25
LARGER: Final = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class FlowSample:
    """Flow along one axis of an image, ready for the graph.

    Attributes:
        inputs: of the graph.
        keep_field: whether the answer is to hold the velocity.
        rows: voxels, which is what it costs; width is 1.
    """

    inputs: FlowInputs
    keep_field: bool
    rows: int
    width: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class FlowPrediction:
    """The answer along one axis.

    Attributes:
        geometry: of the image along this axis.
        permeability: mean of the members, voxel^2; 0 where no pore conducts.
        log_std: calibrated standard deviation of its natural logarithm; None for a single member or without flow.
        half_width_95: how many of them hold 95 %.
        flux: float64 [n], the field's sum over each slice across the axis, voxel^4: the same for each in a true flow.
        fastest_outside: voxel^2, the largest velocity in the solid and in pores that do not conduct.
        velocity: float32, shaped as the image, voxel^2; None where it was not wanted.
        domain: whether the model was trained for this.
        inputs: what the graph was given; None of an image that was run in tiles.
        tiles: in which it was run; 1: whole.
    """

    geometry: Geometry
    permeability: float
    log_std: float | None
    half_width_95: float
    flux: NDArray[np.float64]
    fastest_outside: float
    velocity: NDArray[np.float32] | None
    domain: Domain
    inputs: FlowInputs | None = None
    tiles: int = 1

    @property
    def axis(self) -> str:
        """Its letter."""
        return AXES[self.geometry.axis]

    @property
    def interval_95(self) -> tuple[float, float] | None:
        """Where the permeability lies with 95 %, voxel^2."""
        if self.log_std is None:
            return None
        factor = math.exp(min(50.0, self.half_width_95 * self.log_std))
        return self.permeability / factor, self.permeability * factor

    @property
    def flux_std(self) -> float:
        """Standard deviation of the flux over the slices, over its mean: how far the field is from conserving mass."""
        mean = float(self.flux.mean())
        return float(self.flux.std() / abs(mean)) if mean else 0.0

    @property
    def residuals(self) -> dict[str, float]:
        """What a true flow has none of, relative: unevenness of the flux over the slices, and velocity in the solid."""
        mean = float(self.flux.mean())
        if not mean:
            return {"flux_std": 0.0, "flux_largest": 0.0, "velocity_in_solid": 0.0}
        pores = self.geometry.connected_porosity * math.prod(self.geometry.shape)
        in_pores = abs(float(self.flux.sum())) / pores
        return {
            "flux_std": self.flux_std,
            "flux_largest": float(np.abs(self.flux / mean - 1.0).max()),
            "velocity_in_solid": self.fastest_outside / in_pores,
        }


@dataclass(frozen=True, slots=True, eq=False)
class FlowFamily:
    """The pure functions of the family, for one model."""

    card: FieldCard

    @classmethod
    def of(cls, card: FieldCard) -> Self:
        """The family for a model's card."""
        return cls(card)

    def encode(self, image: Image, axis: int, keep_field: bool = False, stop: Flag | None = None) -> FlowSample:
        """What to ask about flow along an axis.

        Raises:
            TooLarge: more voxels than the model takes.
            Stopped: `stop` was set meanwhile.
        """
        self.refuse_too_large(image.size)
        inputs = flow_inputs(image, axis, self.card.divisor, stop)
        return FlowSample(inputs, keep_field, inputs.voxels)

    def refuse_too_large(self, voxels: int) -> None:
        """Refuse an image that does not go into one call.

        Raises:
            TooLarge
        """
        if voxels > self.card.max_voxels:
            raise TooLarge(
                f"The image has {voxels:,} voxels; model '{self.card.name}' takes {self.card.max_voxels:,}.",
                hint="Cut the volume into parts, or halve its resolution where the pores stay wide enough.",
                limit=self.card.max_voxels,
                got=voxels,
                unit="voxels",
            )

    def collate(self, samples: Sequence[FlowSample]) -> Tensors:
        """The tensors of one sample: images do not share a call, as each has another shape."""
        (sample,) = samples
        return sample.inputs.tensors()

    def decode(self, outputs: Mapping[str, NDArray[Any]], sample: FlowSample) -> FlowPrediction:
        """The outputs of one call as its prediction.

        Raises:
            NonFiniteAnswer: the model gave NaN or infinity.
        """
        inputs = sample.inputs
        field = inputs.field(outputs["velocity"])
        others = tuple(axis for axis in range(3) if axis != inputs.axis)
        flux = field.sum(axis=others, dtype=np.float64)
        outside = float(np.abs(field[~inputs.pores.conducting]).max(initial=0.0))
        velocity = field if sample.keep_field else None
        return self.predicted(inputs.geometry, outputs["member_flow"], flux, outside, velocity, inputs)

    def predicted(
        self,
        geometry: Geometry,
        member_flow: NDArray[np.float64],
        flux: NDArray[np.float64],
        fastest_outside: float,
        velocity: NDArray[np.float32] | None,
        inputs: FlowInputs | None = None,
        tiles: int = 1,
    ) -> FlowPrediction:
        """The answer from the sums of a velocity: member_flow [M, 1] over all voxels, voxel^5; flux by slice.

        Raises:
            NonFiniteAnswer: the model gave NaN or infinity.
        """
        members = member_flow[:, 0] / math.prod(geometry.shape)
        if not (np.isfinite(members).all() and np.isfinite(flux).all()):
            raise NonFiniteAnswer(
                f"Model '{self.card.name}' gave NaN or infinity for flow along {AXES[geometry.axis]}.",
                hint="Report it with the request id and the image.",
                axis=AXES[geometry.axis],
            )
        k, log_std = max(FLOOR, float(members.mean())), self._log_std(members)
        domain = judge(self.card.domain, geometry, log_std)
        return FlowPrediction(
            geometry, k, log_std, self._half_width, flux, fastest_outside, velocity, domain, inputs, tiles
        )

    def without_flow(self, geometry: Geometry, keep_field: bool) -> FlowPrediction:
        """The answer where no pore conducts: nothing is asked of the model."""
        reason = f"No pore space joins both ends along {AXES[geometry.axis]} through faces of voxels: nothing can flow."
        zeros = np.zeros(geometry.shape[geometry.axis])
        field = np.broadcast_to(np.float32(0.0), geometry.shape) if keep_field else None
        domain = Domain(True, "in", [reason], [])
        return FlowPrediction(geometry, 0.0, None, self._half_width, zeros, 0.0, field, domain)

    def warm_images(self) -> Iterator[Image]:
        """Images that touch every piece of compiled code."""
        image = np.zeros((2 * self.card.divisor,) * 3, bool)
        image[1:-1, 1:-1] = True
        yield image

    @property
    def _half_width(self) -> float:
        calibrated = self.card.committee.log_permeability
        return 2.0 if calibrated is None else calibrated.half_width_95

    def _log_std(self, members: NDArray[np.float64]) -> float | None:
        calibrated = self.card.committee.log_permeability
        if calibrated is None or len(members) < 2:
            return None
        spread = float(np.log(np.maximum(FLOOR, members)).std(ddof=1))
        return calibrated.scale * math.hypot(spread, calibrated.floor)


def judge(domain: FlowDomain, geometry: Geometry, log_std: float | None) -> Domain:
    """Whether a model was trained for such an image: porosity, width of the pores, size, spread of the members."""
    found = [
        _within("porosity", geometry.porosity, domain.porosity, ""),
        _within("the pores' mean width", geometry.length_scale, domain.length_scale_voxels, " voxels"),
        _large_enough(geometry, domain),
        _solved(geometry),
        _agreed(log_std, domain),
    ]
    verdicts = [verdict for verdict, _ in found]
    worst: Verdict = "out" if "out" in verdicts else "edge" if "edge" in verdicts else "in"
    return Domain(worst != "out", worst, [reason for _, reason in found if reason], [])


def _within(what: str, value: float, span: tuple[float, float], unit: str) -> tuple[str, str]:
    low, high = span
    if low <= value <= high:
        return "in", ""
    near = low / NEARLY <= value <= high * NEARLY
    return "edge" if near else "out", f"{what} is {value:.3g}{unit}; trained on {low:.3g} to {high:.3g}."


def _large_enough(geometry: Geometry, domain: FlowDomain) -> tuple[str, str]:
    shape, (low, high) = geometry.shape, domain.lengths_voxels
    if min(shape) >= low / 2 and max(shape) <= LARGER * high:
        return "in", ""
    text = "x".join(map(str, shape))
    return "edge", f"the image has {text} voxels; trained on sides of {low} to {high}."


def _solved(geometry: Geometry) -> tuple[str, str]:
    if geometry.solved:
        return "in", ""
    return (
        "edge",
        "the ways through are so winding that the estimate beneath the networks was cut short: k is too large.",
    )


def _agreed(log_std: float | None, domain: FlowDomain) -> tuple[str, str]:
    if log_std is None or log_std <= domain.log_std_in:
        return "in", ""
    verdict = "edge" if log_std <= domain.log_std_out else "out"
    return verdict, f"the members disagree: std of log k {log_std:.3g}, usual up to {domain.log_std_in:.3g}."
