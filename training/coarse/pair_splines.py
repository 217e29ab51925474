"""One force between two beads, by linear least squares on mapped forces: the baseline of a many-body force field.

    F_i = sum_j f(r_ij) (-u_ij),   f(r) = sum_k c_k B_k(r)        minimise sum |F - F_mapped|^2 / Var(F)

This is multiscale coarse-graining in its pair form: Noid et al., J. Chem. Phys. 128, 244114 (2008). f > 0 pushes apart;
u_ij points from i to j; B_k are B-splines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.sparse import csr_array

from contract.graphs import Graph, build_graph
from contract.structures import Structure
from training.coarse.distributions import displacements
from training.coarse.errors import Unresolved
from training.networks.repulsion import STEEPEST, RepulsionConfig

Array = NDArray[np.float64]
RIDGE: Final = 1e-6
_TABLE_ANGSTROM: Final = 2e-3


@dataclass(frozen=True, slots=True, eq=False)
class PairForce:
    """f(r) in eV/angstrom from `inner` to `cutoff` angstrom; below, the value at `inner`; beyond, zero.

    Attributes:
        spline: f without the prior.
        inner, cutoff: angstrom.
        prior: added to f.
    """

    spline: BSpline
    inner: float
    cutoff: float
    prior: RepulsionConfig | None = None

    def force(self, r: Array) -> Array:
        """F(r) in eV/angstrom, of any shape."""
        found = self.spline(np.clip(r, self.inner, self.cutoff)) + prior_force(self.prior, r)
        return np.where(r < self.cutoff, found, 0.0)

    def energy(self, r: Array) -> Array:
        """U(r) in eV, of any shape; zero at the cutoff."""
        table = np.arange(min(self.inner, float(r.min())), self.cutoff + _TABLE_ANGSTROM, _TABLE_ANGSTROM)
        f = self.force(table)
        inwards = np.concatenate([[0.0], np.cumsum(0.5 * (f[1:] + f[:-1]) * np.diff(table))])
        return np.asarray(np.interp(r, table, inwards[-1] - inwards))

    def forces(self, graph: Graph) -> Array:
        """Force on each bead, eV/angstrom [n, 3]."""
        vectors = displacements(graph)
        lengths = np.linalg.norm(vectors, axis=2)
        return np.asarray(-np.einsum("nk,nkx->nx", self._tabulated(lengths) / lengths, vectors))

    def _tabulated(self, r: Array) -> Array:
        start = max(0.1, (self.inner if self.prior is None else self.prior.onset_angstrom) - 1.0)
        table = np.arange(start, self.cutoff, _TABLE_ANGSTROM)
        return np.interp(r, table, self.force(table), right=0.0)


def prior_force(prior: RepulsionConfig | None, r: Array) -> Array:
    """-U'(r) of the prior in eV/angstrom, of any shape; zero without one."""
    if prior is None:
        return np.zeros_like(r)
    exponent = np.minimum(prior.steepness * (prior.onset_angstrom - r), STEEPEST)
    return np.asarray(prior.ratio * prior.force_ev_angstrom * np.exp(exponent))


def fit_pair_force(
    frames: Sequence[Structure],
    forces: Sequence[Array],
    cutoff: float,
    *,
    spacing: float,
    degree: int = 3,
    weight: Array | None = None,
    prior: RepulsionConfig | None = None,
    vanishing: bool = True,
    ridge: float = RIDGE,
) -> PairForce:
    """Fit f(r) to mapped forces.

    Args:
        frames: m periodic frames.
        forces: eV/angstrom, [n_i, 3] each.
        cutoff: angstrom.
        spacing: angstrom between knots.
        degree: of the polynomials between knots.
        weight: [m], how much a frame counts; default one.
        prior: a fixed repulsion that f comes on top of.
        vanishing: let f go to zero at the cutoff.
        ridge: of the coefficients, as a part of the mean diagonal of the normal equations.

    Raises:
        Unresolved: no pair within the cutoff.
    """
    graphs = [build_graph(frame, cutoff) for frame in frames]
    inner = min((float(graph.nearest_distance.min()) for graph in graphs), default=np.inf)
    if not inner < cutoff:
        raise Unresolved(f"no two beads are nearer than the cutoff, {cutoff:g} angstrom.")
    knots = _knots(inner, cutoff, spacing, degree)
    size = len(knots) - degree - 1
    normal, right = np.zeros((size, size)), np.zeros(size)
    counts = np.ones(len(graphs)) if weight is None else weight
    for graph, target, w in zip(graphs, forces, counts, strict=True):
        design = _design(graph, knots, degree)
        beside = (target - _of_prior(graph, prior)).T.ravel()
        normal += w * design.T @ design
        right += w * design.T @ beside
    kept = slice(0, size - 1 if vanishing else size)
    coefficients = np.zeros(size)
    damped = normal[kept, kept] + ridge * np.trace(normal) / size * np.eye(len(right[kept]))
    coefficients[kept] = np.linalg.solve(damped, right[kept])
    return PairForce(BSpline(knots, coefficients, degree), inner, cutoff, prior)


def _knots(inner: float, cutoff: float, spacing: float, degree: int) -> Array:
    pieces = max(1, round((cutoff - inner) / spacing))
    inside = np.linspace(inner, cutoff, pieces + 1)
    return np.concatenate([np.full(degree, inner), inside, np.full(degree, cutoff)])


def _design(graph: Graph, knots: Array, degree: int) -> Array:
    """What each coefficient adds to each force component, [3 n, size]: all x, then all y, then all z."""
    vectors = displacements(graph)
    lengths = np.linalg.norm(vectors, axis=2)
    inside = lengths < graph.cutoff
    r = np.clip(lengths[inside], knots[0], knots[-1])
    splines = BSpline.design_matrix(r, knots, degree).tocsr()
    bead = np.repeat(np.arange(graph.n_atoms), inside.sum(axis=1))
    rows = []
    for axis in range(3):
        along = -vectors[..., axis][inside] / lengths[inside]
        gather = csr_array((along, (bead, np.arange(len(bead)))), shape=(graph.n_atoms, len(bead)))
        rows.append((gather @ splines).toarray())
    return np.concatenate(rows)


def _of_prior(graph: Graph, prior: RepulsionConfig | None) -> Array:
    vectors = displacements(graph)
    lengths = np.linalg.norm(vectors, axis=2)
    f = np.where(lengths < graph.cutoff, prior_force(prior, lengths), 0.0)
    return np.asarray(-np.einsum("nk,nkx->nx", f / lengths, vectors))
