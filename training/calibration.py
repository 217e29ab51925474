"""Whether a committee's spread tells the size of its error: one factor, fitted on one part and tested on another."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri
from scipy.stats import spearmanr

NOMINAL: Final = (0.68, 0.95)
_SMALLEST_STD: Final = 1e-12


def calibration_factor(error: NDArray[np.float64], std: NDArray[np.float64]) -> float:
    """The c that makes c * std as large as the error on average: c = sqrt(mean((error / std)^2)).

    This is the maximum-likelihood scale of normally distributed errors. Fit it on the part that chose the weights,
    never on the part that tests it.

    Args:
        error: [n], prediction minus reference.
        std: [n], of the committee, in the same unit.
    """
    return float(np.sqrt(np.mean(scores(error, std) ** 2)))


def coverage(error: NDArray[np.float64], std: NDArray[np.float64], nominal: float) -> float:
    """Share of errors within the interval of `std` that holds the share `nominal` of normally distributed ones."""
    return float(np.mean(np.abs(scores(error, std)) <= interval(nominal)))


def interval(nominal: float) -> float:
    """Half width, in standard deviations, of the central interval that holds the share `nominal` of a normal law."""
    return float(ndtri(0.5 + nominal / 2.0))


def scores(error: NDArray[np.float64], std: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors in standard deviations [n]."""
    return np.asarray(error / np.maximum(std, _SMALLEST_STD), dtype=np.float64)


def rank_correlation(error: NDArray[np.float64], std: NDArray[np.float64]) -> float:
    """Spearman's correlation of the spread with the size of the error: does a larger spread mean a larger error?

    Not a number where all spreads, or all errors, are equal.
    """
    if np.ptp(std) == 0.0 or np.ptp(np.abs(error)) == 0.0:
        return float("nan")
    return float(spearmanr(std, np.abs(error)).statistic)
