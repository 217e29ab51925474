"""How far an atom's surroundings are from all that a model was trained on: a cheap descriptor and its reference set.

Descriptor of atom i, for each element e among its neighbours j, with the cosine cutoff f and radial bells b_n(r):

    q_(e,n)     = sum_j b_n(r_ij) f(r_ij)                                   how many neighbours, and how far
    p_(e,n,1)   = | sum_j b_n f u_ij |                                      whether they lie to one side
    p_(e,n,2)   = sqrt(3/2 | sum_j b_n f (u_ij u_ij^T - 1/3) |^2)           whether they lie in a line or a plane

u_ij is the unit vector and |.| the Frobenius norm. These are rotation invariants of the neighbour density of orders 0,
1 and 2 (Bartok, Kondor, Csanyi, Phys. Rev. B 87, 184115 (2013)), without the products that make a power spectrum.

The reference set holds, for each element, the mean and the whitening matrix of the training atoms and a few of them as
centres. An atom's distance is that to the nearest centre, divided by what held-out atoms of its element reach.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from contract.elements import SYMBOLS
from contract.graphs import Graph

ENVIRONMENTS: Final = "environments.npz"
CENTRES_ANGSTROM: Final = (0.75, 1.05, 1.35, 1.7, 2.1, 2.6, 3.3, 4.3)
WIDTHS_ANGSTROM: Final = (0.15, 0.15, 0.15, 0.2, 0.25, 0.35, 0.5, 0.7)
ANGULAR: Final = 6
ORDERS: Final = 2
_ELEMENTS: Final = len(SYMBOLS)

Floats = NDArray[np.float32]
_FAST: Final = {"reassoc", "contract", "arcp", "nsz"}


_CENTRES: Final = np.array(CENTRES_ANGSTROM, np.float32)
_SHARPNESS: Final = np.array([0.5 / width**2 for width in WIDTHS_ANGSTROM], np.float32)


def descriptors(graph: Graph, elements: NDArray[np.int64]) -> Floats:
    """Descriptor of every atom, float32 [n, D].

    Args:
        graph: a structure and its neighbours.
        elements: atomic numbers [E]; neighbours of other elements are not seen. D = E * (8 + 2 * 6).
    """
    return _described(graph, _places(graph, elements), len(elements))


@dataclass(frozen=True, slots=True, eq=False)
class Environments:
    """The surroundings that a model was trained on, E elements, D features, at most C centres each.

    Attributes:
        elements: int64 [E], atomic numbers.
        mean: float32 [E, D] of the training atoms.
        whitening: float32 [E, D, D]; (descriptor - mean) @ whitening has about unit variance in every direction.
        centres: float32 [E, C, D], training atoms, whitened; unused places repeat the first.
        reach: float32 [E], distance to the nearest centre that nearly all held-out atoms stay below.
    """

    elements: NDArray[np.int64]
    mean: Floats
    whitening: Floats
    centres: Floats
    reach: Floats

    def distances(self, graph: Graph) -> Floats:
        """How far each atom is from the training data, float32 [n]; 1 is the edge of what held-out frames reach.

        Infinite for an element that was not trained.
        """
        kind = _places(graph, self.elements)
        described = _described(graph, kind, len(self.elements))
        return np.asarray(_nearest(described, kind, self.mean, self.whitening, self.centres, self.reach))

    def save(self, path: Path) -> None:
        """Write an npz file of plain arrays."""
        np.savez_compressed(
            path,
            elements=self.elements,
            mean=self.mean,
            whitening=self.whitening,
            centres=self.centres,
            reach=self.reach,
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote; nothing in the file is executed."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls(*(arrays[name] for name in ("elements", "mean", "whitening", "centres", "reach")))


def _places(graph: Graph, elements: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each atom's element stands among `elements`, -1 for none, int64 [n]."""
    place = np.full(_ELEMENTS, -1, np.int64)
    place[elements] = np.arange(len(elements))
    return place[graph.species]


def _described(graph: Graph, kind: NDArray[np.int64], n_elements: int) -> Floats:
    return np.asarray(
        _describe(
            graph.positions,
            graph.neighbours,
            graph.shifts,
            kind,
            n_elements,
            np.float32(graph.cutoff),
            _CENTRES,
            _SHARPNESS,
        )
    )


@njit(cache=True, nogil=True, fastmath=_FAST)
def _describe(
    positions: Floats,
    neighbours: NDArray[np.int64],
    shifts: Floats,
    kind: NDArray[np.int64],
    n_elements: int,
    cutoff: np.float32,
    centres: Floats,
    sharpness: Floats,
) -> Floats:
    n, width = neighbours.shape
    radial = len(centres)
    block = radial + ORDERS * ANGULAR
    out = np.zeros((n, n_elements * block), np.float32)
    vector = np.empty((n_elements, ANGULAR, 3), np.float32)
    tensor = np.empty((n_elements, ANGULAR, 6), np.float32)
    for i in range(n):
        vector[:] = 0.0
        tensor[:] = 0.0
        for k in range(width):
            j = neighbours[i, k]
            e = kind[j]
            if e < 0:
                continue
            x = positions[j, 0] - positions[i, 0] + shifts[i, k, 0]
            y = positions[j, 1] - positions[i, 1] + shifts[i, k, 1]
            z = positions[j, 2] - positions[i, 2] + shifts[i, k, 2]
            r = np.sqrt(x * x + y * y + z * z)
            if r >= cutoff:
                continue
            x, y, z = x / r, y / r, z / r
            smooth = np.float32(0.5) * (np.float32(1.0) + np.cos(np.float32(np.pi) * r / cutoff))
            for b in range(radial):
                away = r - centres[b]
                exponent = away * away * sharpness[b]
                if exponent > 12.0:
                    continue
                weight = smooth * np.exp(-exponent)
                out[i, e * block + b] += weight
                if b < ANGULAR:
                    vector[e, b, 0] += weight * x
                    vector[e, b, 1] += weight * y
                    vector[e, b, 2] += weight * z
                    tensor[e, b, 0] += weight * x * x
                    tensor[e, b, 1] += weight * y * y
                    tensor[e, b, 2] += weight * z * z
                    tensor[e, b, 3] += weight * x * y
                    tensor[e, b, 4] += weight * x * z
                    tensor[e, b, 5] += weight * y * z
        for e in range(n_elements):
            for b in range(ANGULAR):
                at = e * block + radial + b
                v = vector[e, b]
                out[i, at] = np.sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2])
                t = tensor[e, b]
                third = (t[0] + t[1] + t[2]) / np.float32(3.0)
                square = (t[0] - third) ** 2 + (t[1] - third) ** 2 + (t[2] - third) ** 2
                square += np.float32(2.0) * (t[3] * t[3] + t[4] * t[4] + t[5] * t[5])
                out[i, at + ANGULAR] = np.sqrt(np.float32(1.5) * square)
    return out


@njit(cache=True, nogil=True, fastmath=_FAST)
def _nearest(
    described: Floats, kind: NDArray[np.int64], mean: Floats, whitening: Floats, centres: Floats, reach: Floats
) -> Floats:
    n, d = described.shape
    white_d = whitening.shape[2]
    out = np.empty(n, np.float32)
    white = np.empty(white_d, np.float32)
    for i in range(n):
        e = kind[i]
        if e < 0:
            out[i] = np.inf
            continue
        white[:] = 0.0
        for a in range(d):
            from_mean = described[i, a] - mean[e, a]
            for b in range(white_d):
                white[b] += from_mean * whitening[e, a, b]
        least = np.float32(np.inf)
        for c in range(centres.shape[1]):
            square = np.float32(0.0)
            for b in range(white_d):
                away = white[b] - centres[e, c, b]
                square += away * away
            if square < least:
                least = square
        out[i] = np.sqrt(least) / reach[e]
    return out
