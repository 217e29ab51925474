"""Liquids of the tests: random beads that keep apart, and a pair force that is known exactly."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from contract.graphs import build_graph
from contract.structures import Structure, checked_structure
from training.coarse.distributions import displacements

BEAD = 16
CUTOFF = 6.0


class Liquid(NamedTuple):
    """Frames and the exact forces of `force`, eV/angstrom, a function of r in angstrom."""

    frames: list[Structure]
    forces: list[NDArray[np.float64]]
    force: Callable[[NDArray[np.float64]], NDArray[np.float64]]


@pytest.fixture(scope="session")
def liquid() -> Liquid:
    """Forty frames of 32 beads, no two nearer than 2.4 angstrom, in a skewed cell."""
    rng = np.random.default_rng(3)
    cell = np.array([[13.0, 0.0, 0.0], [1.5, 12.5, 0.0], [-1.0, 0.8, 13.5]])
    frames = [_packed(32, cell, rng) for _ in range(40)]

    def force(r: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((2.0 * np.exp(-(r - 2.4)) - 0.15) * (1.0 - (r / CUTOFF) ** 2) ** 2)

    return Liquid(frames, [_pairwise(frame, force) for frame in frames], force)


def _packed(count: int, cell: NDArray[np.float64], rng: np.random.Generator) -> Structure:
    placed = np.empty((0, 3))
    while len(placed) < count:
        candidate = rng.random(3)
        away = placed - candidate
        away -= np.round(away)
        if (np.linalg.norm(away @ cell, axis=1) > 2.4).all():
            placed = np.vstack([placed, candidate])
    return checked_structure(np.full(count, BEAD), placed @ cell, cell, True)


def _pairwise(frame: Structure, force: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> NDArray[np.float64]:
    vectors = displacements(build_graph(frame, CUTOFF))
    r = np.linalg.norm(vectors, axis=2)
    along = np.where(r < CUTOFF, force(np.minimum(r, CUTOFF)), 0.0) / r
    return np.asarray(-np.einsum("nk,nkx->nx", along, vectors))
