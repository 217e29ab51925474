"""How beads are arranged: radial and angular distributions, and how far two of them are apart.

    g_k = <n_k> / [ N (N - 1) / 2 * (4 pi / 3) (r_(k+1)^3 - r_k^3) / V ],   n_k the pairs in shell k
    E_RDF = 1/r_max * integral of |g - g'|,   E_ADF = 1/2 sum |p - p'|      (total variation)

g is normalised by the density of the box, so it goes to 1 where beads do not see each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from contract.graphs import Graph, build_graph
from contract.structures import Structure
from training.coarse.errors import Unresolved

Array = NDArray[np.float64]
DEGREES: Final = 180
_SMOOTHING: Final = 5


@dataclass(frozen=True, slots=True, eq=False)
class RadialDistribution:
    """r in the middle of each shell, angstrom [b], and g [b]."""

    r: Array
    g: Array

    def error(self, other: "RadialDistribution") -> float:
        """E_RDF: mean of |g - g'| over r up to r_max."""
        return float(np.abs(self.g - other.g).mean())

    def weighted_error(self, other: "RadialDistribution") -> float:
        """The same mean weighted by r^2: as each shell has beads."""
        return float(np.average(np.abs(self.g - other.g), weights=self.r**2))

    def first_peak(self) -> tuple[float, float]:
        """Position in angstrom and height of the highest peak."""
        smooth = _smoothed(self.g)
        at = int(smooth.argmax())
        return float(self.r[at]), float(smooth[at])

    def first_minimum(self) -> float:
        """Position of the first minimum after the highest peak, angstrom: the edge of the first shell."""
        smooth = _smoothed(self.g)
        peak = int(smooth.argmax())
        rising = np.flatnonzero(
            (smooth[peak + 1 : -1] <= smooth[peak:-2]) & (smooth[peak + 1 : -1] < smooth[peak + 2 :])
        )
        if not rising.size:
            raise Unresolved("g(r) has no minimum after its peak: more frames or a larger r_max are needed.")
        return float(self.r[peak + 1 + rising[0]])


@dataclass(frozen=True, slots=True, eq=False)
class AngularDistribution:
    """Share of the angles j-i-k in each degree, [180], with both arms shorter than `arm` angstrom."""

    p: Array
    arm: float

    @property
    def degrees(self) -> Array:
        """Middle of each bin."""
        return np.asarray(np.arange(DEGREES) + 0.5, np.float64)

    def error(self, other: "AngularDistribution") -> float:
        """E_ADF: total variation distance, 0 for equal ones, 1 for such that share no angle."""
        return float(0.5 * np.abs(self.p - other.p).sum())


def radial_distribution(frames: Sequence[Structure], r_max: float, bins: int = 200) -> RadialDistribution:
    """g(r) of periodic frames with equally many beads.

    Args:
        frames: at least one.
        r_max: angstrom, at most half of the smallest height of a cell: beyond it a bead meets its own image.
        bins: shells of equal width.

    Raises:
        Unresolved: r_max beyond half of a cell.
    """
    _require_room(frames, r_max)
    edges = np.linspace(0.0, r_max, bins + 1)
    shells = 4.0 * np.pi / 3.0 * np.diff(edges**3)
    counted, expected = np.zeros(bins), np.zeros(bins)
    for frame in frames:
        distance, _ = _slots(build_graph(frame, r_max))
        counted += np.histogram(distance, edges)[0]
        expected += len(frame) * (len(frame) - 1) * shells / frame.volume  # each pair has two slots
    return RadialDistribution(0.5 * (edges[1:] + edges[:-1]), counted / expected)


def angular_distribution(frames: Sequence[Structure], arm: float) -> AngularDistribution:
    """Angles between neighbours of each bead nearer than `arm` angstrom.

    Raises:
        Unresolved: no bead has two such neighbours.
    """
    counts = np.zeros(DEGREES)
    for frame in frames:
        graph = build_graph(frame, arm)
        distance, vector = _slots(graph)
        first = np.repeat(np.arange(graph.n_atoms), (_lengths(graph) < arm).sum(axis=1))
        _count_angles(vector / distance[:, None], np.searchsorted(first, np.arange(graph.n_atoms + 1)), counts)
    if not counts.any():
        raise Unresolved(f"no bead has two neighbours nearer than {arm:g} angstrom.")
    return AngularDistribution(counts / counts.sum(), arm)


def displacements(graph: Graph) -> Array:
    """Vectors of all slots, angstrom [n, K, 3]; those of padding are twice the cutoff long."""
    positions = graph.positions.astype(np.float64)
    return np.asarray(positions[graph.neighbours] - positions[:, None] + graph.shifts)


def _slots(graph: Graph) -> tuple[Array, Array]:
    """Distances [P] and vectors [P, 3] of all directed pairs, bead by bead."""
    vectors = displacements(graph)
    lengths = np.linalg.norm(vectors, axis=2)
    inside = lengths < graph.cutoff
    return lengths[inside], vectors[inside]


def _lengths(graph: Graph) -> Array:
    return np.asarray(np.linalg.norm(displacements(graph), axis=2))


@njit(cache=True)
def _count_angles(unit: Array, starts: NDArray[np.int64], counts: Array) -> None:
    """Add the angles between unit vectors [P, 3] of the same bead, whose rows are starts[i] to starts[i + 1]."""
    for i in range(len(starts) - 1):
        for j in range(starts[i], starts[i + 1]):
            for k in range(j + 1, starts[i + 1]):
                cosine = unit[j, 0] * unit[k, 0] + unit[j, 1] * unit[k, 1] + unit[j, 2] * unit[k, 2]
                cosine = min(1.0, max(-1.0, cosine))
                counts[min(int(np.degrees(np.arccos(cosine))), len(counts) - 1)] += 1.0


def _smoothed(g: Array) -> Array:
    """A running mean, so that a minimum is one of the curve and not of its noise."""
    kernel = np.ones(_SMOOTHING) / _SMOOTHING
    padded = np.pad(g, _SMOOTHING // 2, mode="edge")
    return np.convolve(padded, kernel, mode="valid")


def _require_room(frames: Sequence[Structure], r_max: float) -> None:
    for number, frame in enumerate(frames):
        if frame.cell is None or not frame.fully_periodic:
            raise Unresolved(f"frame {number} is not periodic in three directions: it has no density.")
        half = 0.5 / np.linalg.norm(np.linalg.inv(frame.cell), axis=0).max()
        if r_max > half * (1.0 + 1e-9):
            raise Unresolved(f"r_max is {r_max:g} angstrom, but half of the cell of frame {number} is {half:.3f}.")
