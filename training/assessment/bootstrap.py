"""Errors with 95 % intervals: whole molecules are drawn with replacement, as their frames err alike.

What a mean needs of a molecule are a few sums. Drawing molecules is then a matrix of how often each was drawn times
these sums, and two models are compared on the very same draws.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

DRAWS: Final = 2000
_LEVEL: Final = 0.95
_SEED: Final = 0
_FEWEST: Final = 2

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval; none (NaN) where there are fewer than two molecules."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """Of each molecule: the sum of the sizes of its errors, of their squares, and how many there are, [molecules]."""

    size: Array
    square: Array
    count: Array

    @classmethod
    def of(cls, error: Array, molecule: NDArray[np.int64], molecules: int) -> "Sums":
        """From errors [n], or [n, components], and the molecule of each, from 0."""
        rows = error.reshape(len(error), -1)
        count = np.full(len(rows), float(rows.shape[1]))
        sums = (np.abs(rows).sum(axis=1), (rows**2).sum(axis=1), count)
        return cls(*(np.asarray(np.bincount(molecule, each, molecules), np.float64) for each in sums))

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(self.size + other.size, self.square + other.square, self.count + other.count)

    @property
    def total(self) -> int:
        """Errors in all."""
        return int(self.count.sum())

    def mae(self, drawn: Array) -> Array:
        """Mean absolute error of each draw [R], from how often each molecule was drawn [R, molecules]."""
        return np.asarray((drawn @ self.size) / np.maximum(drawn @ self.count, 1.0))

    def rmse(self, drawn: Array) -> Array:
        """Root mean square error of each draw [R]."""
        return np.asarray(np.sqrt((drawn @ self.square) / np.maximum(drawn @ self.count, 1.0)))

    def by_molecule(self, drawn: Array) -> Array:
        """Mean over molecules of their own mean absolute errors, of each draw [R]."""
        there = self.count > 0
        own = np.divide(self.size, self.count, out=np.zeros_like(self.size), where=there)
        return np.asarray((drawn @ own) / np.maximum(drawn @ there.astype(np.float64), 1.0))


@dataclass(frozen=True, slots=True)
class Errors:
    """Of one quantity."""

    mae: Estimate
    rmse: Estimate
    by_molecule: Estimate
    count: int


def draws(molecules: int) -> Array:
    """How often each molecule is drawn, [R + 1, molecules]; the first row is each once, the data as they are."""
    generator, alike = np.random.default_rng(_SEED), np.full(molecules, 1.0 / molecules)
    drawn = np.ones((DRAWS + 1, molecules))
    for row in drawn[1:]:  # one by one: all at once would take three times the memory
        row[:] = generator.multinomial(molecules, alike)
    return drawn


def errors(sums: Sums, drawn: Array) -> Errors:
    """Errors with their intervals."""
    of = (sums.mae(drawn), sums.rmse(drawn), sums.by_molecule(drawn))
    mae, rmse, by_molecule = (estimate(each, drawn.shape[1]) for each in of)
    return Errors(mae, rmse, by_molecule, sums.total)


def estimate(values: Array, molecules: int) -> Estimate:
    """The first of these values, and the interval that holds 95 % of the others."""
    if molecules < _FEWEST:
        return Estimate(float(values[0]), float("nan"), float("nan"))
    low, high = np.quantile(values[1:], [0.5 - _LEVEL / 2, 0.5 + _LEVEL / 2])
    return Estimate(float(values[0]), float(low), float(high))
