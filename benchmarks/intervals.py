"""How sure a mean over a few seeds is."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t


def half_width_95(values: Sequence[float] | NDArray[np.float64]) -> float:
    """Half of the 95 % interval of the mean of independent values, by Student's t; NaN for one value."""
    n = len(values)
    if n < 2:
        return float("nan")
    return float(student_t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
