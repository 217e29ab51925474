"""Random porous media as voxel images: packs, overlapping spheres, blobs, fractures, vuggy rock; True = pore.

Each generator takes the length of a cube in voxels, the porosity wanted and a random generator, and gives the image of
a sample that was cut out of something larger: nothing is periodic. Lengths are in voxels.
"""

from collections.abc import Callable
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.spatial import cKDTree

from contract.voxels import Image

Family = Literal["packs", "overlapping", "blobs", "fractures", "vuggy"]
Field = NDArray[np.float64]

RADIUS: Final = (4.0, 20.0)
SMOOTHING: Final = (1.5, 8.0)
ROUGHNESS: Final = 0.8
"""Hurst exponent of fracture walls, as measured on most rocks (Bouchaud, J. Phys. Condens. Matter 9, 4319 (1997))."""
NARROWEST: Final = 3.0
"""Mean opening of a fracture, voxels; below it the walls' steps are the flow."""
_SETTLING: Final = 60


def packs(length: int, porosity: float, rng: np.random.Generator, radius: float | None = None) -> Image:
    """Grains that touch: spheres of two sizes pushed apart until they hardly overlap, then cemented to the porosity."""
    radius = _log_uniform(RADIUS, rng) if radius is None else radius
    return _quantile(_to_nearest(*_settled(length, radius, rng), length), porosity)


def overlapping(length: int, porosity: float, rng: np.random.Generator) -> Image:
    """Spheres dropped at random, as many as the porosity needs: the exponential of their volume is left."""
    radius = _log_uniform(RADIUS, rng)
    number = -np.log(porosity) / (4.0 / 3.0 * np.pi * radius**3) * (length + 2.0 * radius) ** 3
    centres = rng.uniform(-radius, length + radius, (rng.poisson(number), 3))
    return _quantile(_to_nearest(centres, np.full(len(centres), radius), length), porosity)


def blobs(length: int, porosity: float, rng: np.random.Generator) -> Image:
    """The upper part of smoothed noise; the smoothing length differs between axes by up to a half."""
    widths = _log_uniform(SMOOTHING, rng) * rng.uniform(0.75, 1.25, 3)
    noise = gaussian_filter(rng.normal(size=(length,) * 3), widths, mode="reflect")
    return _quantile(noise, porosity)


def fractures(length: int, porosity: float, rng: np.random.Generator) -> Image:
    """One to three fractures with self-affine walls through tight blobs; the axis z lies in them, more or less."""
    image, open_voxels = blobs(length, 0.3 * porosity, rng), 0.7 * porosity * length
    number = int(rng.integers(1, 1 + np.clip(open_voxels // NARROWEST, 1, 3)))
    for _ in range(number):
        image = image | _fracture(length, open_voxels / number, rng)
    return image


def vuggy(length: int, porosity: float, rng: np.random.Generator) -> Image:
    """A cemented pack with round holes much larger than its pores."""
    image = packs(length, 0.75 * porosity, rng)
    holes = rng.uniform(0, length, (int(rng.integers(2, 7)), 3))
    radii = rng.uniform(0.08, 0.2, len(holes)) * length
    return image | (_to_nearest(holes, radii, length) < 0.0)


MEDIA: Final[dict[Family, Callable[[int, float, np.random.Generator], Image]]] = {
    "packs": packs,
    "overlapping": overlapping,
    "blobs": blobs,
    "fractures": fractures,
    "vuggy": vuggy,
}


def _settled(length: int, radius: float, rng: np.random.Generator) -> tuple[Field, Field]:
    """Centres [n, 3] and radii [n] of spheres in a box one grain larger on every side."""
    box = length + 4.0 * radius
    number = int(0.6 * box**3 / (4.0 / 3.0 * np.pi * radius**3))
    centres = rng.uniform(0.0, box, (number, 3))
    radii = radius * rng.uniform(0.85, 1.15, number)
    for _ in range(_SETTLING):
        pairs = cKDTree(centres, boxsize=box).query_pairs(2.0 * radii.max(), output_type="ndarray")
        apart = centres[pairs[:, 0]] - centres[pairs[:, 1]]
        apart -= box * np.round(apart / box)
        distance = np.maximum(1e-9, np.linalg.norm(apart, axis=1))
        overlap = np.maximum(0.0, radii[pairs].sum(axis=1) - distance)
        push = 0.3 * (overlap / distance)[:, None] * apart
        np.add.at(centres, pairs[:, 0], push)
        np.add.at(centres, pairs[:, 1], -push)
        centres %= box
    return centres - 2.0 * radius, radii


def _to_nearest(centres: Field, radii: Field, length: int) -> Field:
    """Distance of every voxel to the nearest sphere's surface, negative inside; exact within one radius of spheres."""
    nearest = np.full((length,) * 3, 2.0 * radii.max())
    for centre, radius in zip(centres, radii, strict=True):
        low = np.maximum(0, np.floor(centre - 2.5 * radius)).astype(int)
        high = np.minimum(length, np.ceil(centre + 2.5 * radius)).astype(int)
        if (low >= high).any():
            continue
        axes = (np.arange(a, b) + 0.5 - c for a, b, c in zip(low, high, centre, strict=True))
        x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
        part = nearest[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
        np.minimum(part, np.sqrt(x * x + y * y + z * z) - radius, out=part)
    return nearest


def _log_uniform(span: tuple[float, float], rng: np.random.Generator) -> float:
    """A length: as often between 4 and 8 as between 8 and 16."""
    return float(np.exp(rng.uniform(*np.log(span))))


def _quantile(field: Field, porosity: float) -> Image:
    """The part of the field above the threshold that leaves this porosity."""
    return np.asarray(field > np.quantile(field, 1.0 - porosity))


def _fracture(length: int, aperture: float, rng: np.random.Generator) -> Image:
    """An open plane through the middle region, tilted against z by up to 20 degrees, between two rough walls."""
    shared, own = _rough(length, rng), _rough(length, rng)
    middle = rng.uniform(0.25, 0.75) * length + 0.06 * length * shared
    width = aperture * np.maximum(0.0, 1.0 + 0.35 * own)
    tilt = np.tan(np.radians(rng.uniform(-20.0, 20.0)))
    y, z = np.meshgrid(np.arange(length), np.arange(length), indexing="ij")
    turned = map_coordinates(middle, [y, z], order=0, mode="nearest") + tilt * (z - length / 2)
    x = np.arange(length)[:, None, None] + 0.5
    image = np.abs(x - turned) < width / 2.0
    return np.swapaxes(image, 0, 1) if rng.random() < 0.5 else image


def _rough(length: int, rng: np.random.Generator) -> Field:
    """A self-affine surface [length, length] of mean 0 and standard deviation 1, by its spectrum."""
    waves = np.fft.fftfreq(2 * length)
    wave = np.hypot(*np.meshgrid(waves, waves, indexing="ij"))
    wave[0, 0] = np.inf
    spectrum = np.fft.fft2(rng.normal(size=wave.shape)) * wave ** -(1.0 + ROUGHNESS)
    surface = np.fft.ifft2(spectrum).real[:length, :length]
    return np.asarray((surface - surface.mean()) / surface.std())
