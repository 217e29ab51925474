"""Whether a committee's spread tells the size of its error: a scale fitted on held-out data, tested on others.

The sample standard deviation s of M members has M - 1 degrees of freedom. If members and truth scatter alike, up to a
scale, error / s follows Student's t with M - 1 degrees of freedom: few members make long tails. The scale is fitted so
that one calibrated standard deviation holds 68 % of the errors; wider intervals follow from the t law.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr
from scipy.stats import t as student

from contract.card import Calibration, Coverage

NOMINAL: Final = (0.68, 0.95)
ONE_SIGMA: Final = NOMINAL[0]
LABELS: Final = "labels"
_SMALLEST_STD: Final = 1e-12


def calibrate(
    fitted: tuple[NDArray[np.float64], NDArray[np.float64]],
    tested: tuple[NDArray[np.float64], NDArray[np.float64]],
    members: int,
    against: str = LABELS,
) -> Calibration:
    """The card's calibration of one quantity.

    Args:
        fitted: errors and members' standard deviations of any shape that the scale is fitted to; no weight was.
        tested: likewise, of frames that neither the weights nor the scale have seen.
        members: of the committee.
        against: what the answers were compared with.
    """
    scale = calibration_scale(*fitted)
    error, std = tested
    return Calibration(
        scale=scale,
        half_width_95=half_width(0.95, members),
        against=against,
        fitted_to=fitted[0].size,
        coverage=[
            Coverage(nominal=level, observed=coverage(error, scale * std, level, members), count=error.size)
            for level in NOMINAL
        ],
        rank_correlation=rank_correlation(error, std),
    )


def conformal(
    fitted: tuple[NDArray[np.float64], NDArray[np.float64]],
    tested: tuple[NDArray[np.float64], NDArray[np.float64]],
    against: str = LABELS,
) -> Calibration:
    """A calibration that assumes no law, for errors that members may share: quantiles of held-out errors.

    The members' spread is joined with its median over the held-out data, so that members which agree by chance promise
    no exact answer. With n of them, the quantile of a share p is the ceil((n + 1) p)-th smallest score (split conformal
    prediction: Lei et al., J. Am. Stat. Assoc. 113, 1094 (2018)).

    Args:
        fitted: errors and members' standard deviations that the quantiles are taken of, as for `calibrate`.
        tested: likewise, as for `calibrate`.
        against: what the answers were compared with.
    """
    floor = float(np.median(fitted[1]))
    ranked = np.sort(np.abs(scores(fitted[0], np.hypot(fitted[1], floor))))
    one, two = (conformal_width(ranked, level) for level in NOMINAL)
    error, std = tested
    found = np.abs(scores(error, one * np.hypot(std, floor)))
    return Calibration(
        scale=one,
        floor=floor,
        half_width_95=two / one,
        against=against,
        fitted_to=ranked.size,
        coverage=[
            Coverage(nominal=level, observed=float(np.mean(found <= width)), count=error.size)
            for level, width in zip(NOMINAL, (1.0, two / one), strict=True)
        ],
        rank_correlation=rank_correlation(error, std),
    )


def conformal_width(ranked: NDArray[np.float64], nominal: float) -> float:
    """The half width that is to hold the share `nominal`: a quantile of sizes of held-out scores, in rising order."""
    return float(ranked[min(ranked.size, int(np.ceil((ranked.size + 1) * nominal))) - 1])


def calibration_scale(error: NDArray[np.float64], std: NDArray[np.float64]) -> float:
    """The c for which c * std holds 68 % of the errors (prediction minus reference, in the same unit)."""
    return float(np.quantile(np.abs(scores(error, std)), ONE_SIGMA))


def coverage(error: NDArray[np.float64], std: NDArray[np.float64], nominal: float, members: int) -> float:
    """Share of errors within the interval of the calibrated `std` that is to hold the share `nominal` of them."""
    return float(np.mean(np.abs(scores(error, std)) <= half_width(nominal, members)))


def half_width(nominal: float, members: int) -> float:
    """Half width of the interval that holds the share `nominal`, in calibrated standard deviations; 1 for 68 %."""
    law = student(members - 1)
    return float(law.ppf(0.5 + nominal / 2.0) / law.ppf(0.5 + ONE_SIGMA / 2.0))


def scores(error: NDArray[np.float64], std: NDArray[np.float64]) -> NDArray[np.float64]:
    """Errors in standard deviations, of any shape."""
    return np.asarray(error / np.maximum(std, _SMALLEST_STD), dtype=np.float64)


def rank_correlation(error: NDArray[np.float64], std: NDArray[np.float64]) -> float:
    """Spearman's correlation of the spread with the size of the error: does a larger spread mean a larger error?

    Not a number where all spreads, or all errors, are equal.
    """
    if np.ptp(std) == 0.0 or np.ptp(np.abs(error)) == 0.0:
        return float("nan")
    return float(spearmanr(std, np.abs(error), axis=None).statistic)
