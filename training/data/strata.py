"""Parts of a data set whose errors are told apart: heights above the lowest frame, or sizes and kinds of molecules."""

from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset

EDGES_EV: Final = (1.0, 2.0, 3.0)
EDGES_ATOMS: Final = (8, 16, 24)


def strata_of(part: Dataset) -> dict[str, NDArray[np.bool_]]:
    """Masks [n] by name: windows of the energy for one composition, else sizes, and kinds where the data name them."""
    if len(np.unique(part.compositions())) == 1:
        return _windows(part.energy - part.energy.min(initial=np.inf), (0.0, *EDGES_EV))
    kinds = {} if part.kinds is None else {str(kind): part.kinds == kind for kind in np.unique(part.kinds)}
    return {**_sizes(part.sizes), **kinds}


def _windows(above: NDArray[np.float64], edges: tuple[float, ...]) -> dict[str, NDArray[np.bool_]]:
    found = {f"{low:g} to {high:g} eV": (above >= low) & (above < high) for low, high in pairwise(edges)}
    found[f"above {edges[-1]:g} eV"] = above >= edges[-1]
    return {name: inside for name, inside in found.items() if inside.any()}


def _sizes(sizes: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    bounds = [0, *EDGES_ATOMS, int(sizes.max(initial=0)) + EDGES_ATOMS[-1]]
    found = {f"{low + 1} to {high} atoms": (sizes > low) & (sizes <= high) for low, high in pairwise(bounds[:-1])}
    found[f"over {EDGES_ATOMS[-1]} atoms"] = sizes > EDGES_ATOMS[-1]
    return {name: inside for name, inside in found.items() if inside.any()}
