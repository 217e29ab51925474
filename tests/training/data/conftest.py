"""Small labelled data with a known potential."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from contract.card import DataSource
from training.data.dataset import Dataset, uniform
from training.data.provenance import Provenance


@pytest.fixture
def provenance() -> Provenance:
    return Provenance(
        name="springs", origin="https://example.org", licence="CC0-1.0", level_of_theory="none", citation="nobody"
    )


@pytest.fixture
def source() -> DataSource:
    return DataSource(
        name="springs",
        origin="https://example.org",
        licence="CC0-1.0",
        sha256="0" * 64,
        count=1,
        level_of_theory="none",
        citation="nobody",
    )


@pytest.fixture
def springs(source: DataSource) -> Callable[..., Dataset]:
    """Vibrating C-O-H-H held by springs between all atoms; energies and forces are exact."""

    def make(frames: int = 200, step: float = 0.03, seed: int = 0, spread: float = 0.1) -> Dataset:
        rng = np.random.default_rng(seed)
        home = np.array([[0.0, 0, 0], [1.3, 0, 0], [-0.6, 0.9, 0], [-0.6, -0.9, 0.3]])
        walk = np.zeros_like(home)
        positions = np.empty((frames, 4, 3))
        for i in range(frames):
            walk = (1 - (step / spread) ** 2 / 2) * walk + step * rng.normal(size=home.shape)
            positions[i] = (home + walk) @ Rotation.random(rng=rng).as_matrix() + rng.normal(size=3)
        energy, forces = spring_labels(positions, home)
        return uniform([6, 8, 1, 1], positions, energy, [source], forces)

    return make


def spring_labels(
    positions: NDArray[np.float64], home: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Energy (eV) and forces of 5 eV/angstrom^2 springs between all atoms."""
    i, j = np.triu_indices(len(home), 1)
    rest = np.linalg.norm(home[i] - home[j], axis=1)
    bond = positions[:, i] - positions[:, j]
    length = np.linalg.norm(bond, axis=2)
    pull = (5.0 * (length - rest) / length)[..., None] * bond
    forces = np.zeros_like(positions)
    for pair, (a, b) in enumerate(zip(i, j, strict=True)):
        forces[:, a] -= pull[:, pair]
        forces[:, b] += pull[:, pair]
    return 2.5 * ((length - rest) ** 2).sum(axis=1), forces
