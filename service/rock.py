"""What is asked of a rock before its flow: phases, voxel size, pores; and what its owner should be told."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from contract.card import Calibration
from contract.packed import PackedImage
from contract.voxels import AXES, throat_voxels
from service.errors import BadImage
from service.families.field import FlowPrediction

MOST_LABELS: Final = 16
SURELY: Final = 0.45
SUSPICIOUS: Final = 0.6
NARROW: Final = 4.0
SCATTER: Final = 0.2
TOO_NARROW: Final = 0.1
THROATS_UP_TO: Final = 4_000_000
"""Voxels; in larger images the throats are not measured."""
USUAL_UM: Final = (0.005, 500.0)
IMPLAUSIBLE: Final = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class Rock:
    """An image with its phases told apart.

    Attributes:
        image: [nx, ny, nz], one bit a voxel, True = pore.
        voxel_size_um: of cubic voxels.
        pore_values: the labels that are pores.
        detected: they were not named but found.
    """

    image: PackedImage
    voxel_size_um: float
    pore_values: list[int]
    detected: bool


def rock_of(labels: NDArray[Any] | PackedImage, voxel_size_um: float, pore_values: Sequence[int] | None) -> Rock:
    """Tell pores from solid.

    Args:
        labels: [nx, ny, nz], bits or booleans (True is pore) or whole numbers, one for each phase.
        voxel_size_um: side of a voxel.
        pore_values: the labels that are pores; where there are two, the rarer is taken if it is clearly the rarer.

    Raises:
        BadImage: not three-dimensional, grey levels, labels that need to be named, no pore or no solid.
    """
    if len(labels.shape) != 3 or min(labels.shape) < 2:
        raise _bad(f"The image has the shape {list(labels.shape)}.", "Send three dimensions of at least 2 voxels.")
    if isinstance(labels, PackedImage):
        return _checked(Rock(labels, voxel_size_um, [1], False))
    if labels.dtype == bool:
        return _checked(Rock(PackedImage.of(labels), voxel_size_um, [1], False))
    labels = _whole_numbers(labels)
    values, counts = np.unique(labels, return_counts=True)
    if len(values) > MOST_LABELS:
        raise _bad(
            f"The image has {len(values)} different values: it looks like grey levels.",
            "Segment it first, and send one whole number for each phase.",
        )
    if pore_values is None:
        return _checked(_detected(labels, values, counts, voxel_size_um))
    strangers = sorted(set(pore_values) - {int(v) for v in values})
    if strangers:
        raise _bad(f"pore_value names {strangers}; the image holds {values.tolist()}.", "Name labels that are there.")
    return _checked(Rock(PackedImage.of(np.isin(labels, list(pore_values))), voxel_size_um, sorted(pore_values), False))


def warnings_of(
    rock: Rock, predictions: Sequence[FlowPrediction], throats: Sequence[float | None]
) -> list[dict[str, str]]:
    """What may be wrong with an image or makes its answer worth less, each with a code and a remedy.

    Args:
        rock: the image.
        predictions: along some axes.
        throats: voxels, along the same axes.
    """
    along = (warning for prediction in predictions for warning in _along(prediction))
    found = [*_of_image(rock), *_of_throats(predictions, throats), *along]
    return [{"code": code, "text": text} for code, text in found]


def interval_warning(calibrated: Calibration | None) -> list[dict[str, str]]:
    """What to know of an interval that held less on unseen images than it is called to."""
    faults = [c for c in (calibrated.coverage if calibrated else []) if c.observed < c.nominal - TOO_NARROW]
    if not faults:
        return []
    worst = faults[-1]
    text = (
        f"The {worst.nominal:.0%} interval is too narrow: on {worst.count} images that the model never saw it held "
        f"{worst.observed:.0%}. Verify what depends on it by a simulation."
    )
    return [{"code": "interval_too_narrow", "text": text}]


def throat_of(rock: Rock, prediction: FlowPrediction) -> float | None:
    """Voxels across the narrowest place of the widest way; None without flow, and in large images."""
    inputs = prediction.inputs
    if inputs is None or rock.image.size > THROATS_UP_TO or not inputs.pores.percolates:
        return None
    return throat_voxels(inputs.field(inputs.distance[None]), inputs.pores.conducting, inputs.axis)


def octants(image: PackedImage) -> list[float]:
    """Porosity of the eight halves by halves by halves: how much a sample of this size depends on where it is taken."""
    halves = [(0, n // 2, n) for n in image.shape]
    pores, sizes = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    for x in range(image.shape[0]):  # one slice at a time, as the image may be large
        plane = image.block((slice(x, x + 1), slice(None), slice(None)))[0]
        for y, z in product((0, 1), repeat=2):
            part = plane[halves[1][y] : halves[1][y + 1], halves[2][z] : halves[2][z + 1]]
            pores[int(x >= halves[0][1]), y, z] += np.count_nonzero(part)
            sizes[int(x >= halves[0][1]), y, z] += part.size
    return [float(share) for share in (pores / sizes).ravel()]


def _of_image(rock: Rock) -> Iterator[tuple[str, str]]:
    porosity = rock.image.porosity
    if rock.detected:
        yield (
            "polarity_detected",
            f"No pore_value was given: {rock.pore_values[0]}, the rarer label, was taken as pore (porosity "
            f"{porosity:.3f}). Name pore_value to be sure.",
        )
    if porosity > SUSPICIOUS:
        yield (
            "suspicious_porosity",
            f"The porosity is {porosity:.2f}, which few rocks have: are pore and solid exchanged?",
        )
    if not USUAL_UM[0] <= rock.voxel_size_um <= USUAL_UM[1]:
        yield (
            "unusual_voxel_size",
            f"A voxel of {rock.voxel_size_um:g} micrometres is unusual: is it in nanometres or millimetres?",
        )
    scatter = np.array(octants(rock.image))
    if scatter.std() > SCATTER * max(porosity, 1e-9):
        yield (
            "not_representative",
            f"The porosity of its eight parts scatters from {scatter.min():.3f} to {scatter.max():.3f}: this volume is "
            "too small, or too uneven, to stand for the rock. Take a larger one, or several.",
        )


def _of_throats(predictions: Sequence[FlowPrediction], throats: Sequence[float | None]) -> Iterator[tuple[str, str]]:
    narrow = {p.axis: t for p, t in zip(predictions, throats, strict=True) if t is not None and t < NARROW}
    if narrow:
        widths = ", ".join(f"{throat:.1f} along {axis}" for axis, throat in narrow.items())
        yield (
            "narrow_throats",
            f"The widest way through, in voxels at its narrowest: {widths}. Below {NARROW:g} the voxels' "
            "steps matter, for a simulation too. Take a finer image.",
        )


def _along(prediction: FlowPrediction) -> Iterator[tuple[str, str]]:
    geometry, axis = prediction.geometry, prediction.axis
    if not geometry.percolates:
        yield "not_percolating", f"k{axis} is 0: {prediction.domain.reasons[0]}"
        return
    simple = geometry.connected_porosity**3 / (5.0 * geometry.surface**2)
    ratio = prediction.permeability / simple
    if not 1.0 / IMPLAUSIBLE <= ratio <= IMPLAUSIBLE:
        yield (
            "implausible",
            f"k{axis} is {ratio:.2g} times what Kozeny and Carman's formula gives: verify it by a simulation.",
        )


def _whole_numbers(labels: NDArray[Any]) -> NDArray[Any]:
    if labels.dtype.kind in "iu":
        return labels
    if labels.dtype.kind != "f" or not np.isfinite(labels).all() or (labels != np.round(labels)).any():
        raise _bad(
            f"The image has values of type {labels.dtype} that are not whole numbers.",
            "Segment it, and send booleans (True is pore) or one whole number for each phase.",
        )
    return labels.astype(np.int64)


def _detected(labels: NDArray[Any], values: NDArray[Any], counts: NDArray[np.int64], voxel_size_um: float) -> Rock:
    shares = {int(v): c / labels.size for v, c in zip(values, counts, strict=True)}
    said = ", ".join(f"{value} ({share:.1%})" for value, share in shares.items())
    if len(values) != 2:
        raise _bad(
            f"The image holds the labels {said}.", "Say which of them are pores by pore_value, such as 0 or 0,2."
        )
    rarer = min(shares, key=lambda value: shares[value])
    if shares[rarer] > SURELY:
        raise _bad(
            f"Pore and solid cannot be told apart: the image holds the labels {said}.",
            "Say which is pore by pore_value.",
        )
    return Rock(PackedImage.of(labels == rarer), voxel_size_um, [rarer], True)


def _checked(rock: Rock) -> Rock:
    porosity = rock.image.porosity
    if porosity in (0.0, 1.0):
        phase = "pore" if porosity else "solid"
        raise _bad(f"Every voxel is {phase}.", "Send an image of both, and name the pores by pore_value.")
    return rock


def axes_of(text: str) -> list[int]:
    """The axes that are named: "all", or letters such as "x" or "x,z".

    Raises:
        BadImage
    """
    names = list(AXES) if text == "all" else [name.strip() for name in text.split(",")]
    if not set(names) <= set(AXES) or len(set(names)) < len(names):
        raise _bad(f"axes is '{text[:20]}'.", "Give all, or some of x, y and z with commas between them.", "axes")
    return [AXES.index(name) for name in names]


def _bad(detail: str, hint: str, field: str = "image") -> BadImage:
    return BadImage(detail, hint=hint, field=field)
