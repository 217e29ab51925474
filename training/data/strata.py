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
        return _occupied(_windows(part.energy - part.energy.min(initial=np.inf)))
    kinds = {} if part.kinds is None else {str(kind): part.kinds == kind for kind in np.unique(part.kinds)}
    return _occupied({**_sizes(part.sizes), **kinds})


def _windows(above: NDArray[np.float64]) -> dict[str, NDArray[np.bool_]]:
    edges = (0.0, *EDGES_EV)
    found = {f"{low:g} to {high:g} eV": (above >= low) & (above < high) for low, high in pairwise(edges)}
    return {**found, f"above {edges[-1]:g} eV": above >= edges[-1]}


def _sizes(sizes: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    edges = (0, *EDGES_ATOMS)
    found = {f"{low + 1} to {high} atoms": (sizes > low) & (sizes <= high) for low, high in pairwise(edges)}
    return {**found, f"over {edges[-1]} atoms": sizes > edges[-1]}


def _occupied(strata: dict[str, NDArray[np.bool_]]) -> dict[str, NDArray[np.bool_]]:
    return {name: inside for name, inside in strata.items() if inside.any()}
