"""The surroundings of atoms in the training data as a compact reference set (contract/environments.py)."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from contract.elements import hill_formula
from contract.environments import Environments, descriptors
from contract.graphs import build_graph
from contract.structures import Structure

CENTRES: Final = 32
CENTRES_OF_MANY: Final = 128
MANY_FORMULAS: Final = 50
QUANTILE: Final = 0.99
OUT_BEYOND: Final = 1.5
_MOST_FRAMES: Final = 10_000
_MOST_ATOMS: Final = 4000
_ROUNDS: Final = 10
_LEAST_VARIANCE: Final = 0.1
_NOWHERE: Final = 1e6
_TINY: Final = 1e-6
_SEED: Final = 4

Floats = NDArray[np.float64]


def fit_environments(
    train: Sequence[Structure], held_out: Sequence[Structure], elements: Sequence[int], cutoff: float
) -> Environments:
    """The reference set of a model.

    Args:
        train: what the weights were fitted to; data of many formulas are summed up in more centres.
        held_out: frames of the same kind that no weight was fitted to; 99 % of them stay at distances below 1.
        elements: atomic numbers of the model.
        cutoff: angstrom.
    """
    known = np.array(elements, np.int64)
    generator = np.random.default_rng(_SEED)
    chosen = [train[i] for i in generator.permutation(len(train))[:_MOST_FRAMES]]
    count = CENTRES_OF_MANY if len({hill_formula(s.numbers) for s in chosen}) > MANY_FORMULAS else CENTRES
    kinds = [_kind(atoms, count, generator) for atoms in _by_element(chosen, known, cutoff)]
    mean, whitening, centres = (np.stack(each).astype(np.float32) for each in zip(*kinds, strict=True))
    made = Environments(known, mean, whitening, centres, np.ones(len(known), np.float32))
    return Environments(known, mean, whitening, centres, _reach(made, held_out, cutoff))


def largest_distances(environments: Environments, structures: Sequence[Structure], cutoff: float) -> Floats:
    """Distance of the least familiar atom of each structure, [n]."""
    return np.array([float(environments.distances(build_graph(s, cutoff)).max()) for s in structures])


def _by_element(structures: Sequence[Structure], elements: NDArray[np.int64], cutoff: float) -> list[Floats]:
    """Descriptors of all atoms of each element, float64 [atoms, D]."""
    described = np.concatenate([descriptors(build_graph(s, cutoff), elements) for s in structures])
    numbers = np.concatenate([s.numbers for s in structures])
    return [described[numbers == z].astype(np.float64) for z in elements]


def _kind(atoms: Floats, count: int, generator: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Mean [D], whitening [D, D] and centres [C, D] of one element; of an element without atoms nothing is near.

    Directions in which the data hardly vary count as if they varied a tenth of the average: rounding is no novelty.
    """
    width = atoms.shape[1]
    if len(atoms) < 2:
        return atoms.sum(axis=0), np.eye(width), np.full((count, width), _NOWHERE if not len(atoms) else 0.0)
    mean = atoms.mean(axis=0)
    variance, directions = np.linalg.eigh(np.cov(atoms.T))
    spread = np.sqrt(np.maximum(variance, 0.0) + _LEAST_VARIANCE * variance.mean() + _TINY)
    whitening = directions / spread
    few = generator.permutation(len(atoms))[:_MOST_ATOMS]
    return mean, whitening, _k_means((atoms[few] - mean) @ whitening, count, generator)


def _k_means(points: Floats, count: int, generator: np.random.Generator) -> Floats:
    """Lloyd's algorithm from random points; fewer points than centres are repeated."""
    centres = np.resize(points[generator.permutation(len(points))[:count]], (count, points.shape[1]))
    for _ in range(_ROUNDS):
        nearest = cdist(points, centres).argmin(axis=1)
        centres = np.stack(
            [points[nearest == c].mean(axis=0) if (nearest == c).any() else centre for c, centre in enumerate(centres)]
        )
    return centres


def _reach(made: Environments, held_out: Sequence[Structure], cutoff: float) -> NDArray[np.float32]:
    """By element what 99 % of held-out atoms stay below, times what makes 99 % of held-out frames stay below 1."""
    numbers = np.concatenate([s.numbers for s in held_out])
    apart = [made.distances(build_graph(s, cutoff)) for s in held_out]
    atoms = np.concatenate(apart)
    seen = [atoms[numbers == z] for z in made.elements]
    whole = float(np.quantile(atoms, QUANTILE))
    reach = np.array([np.quantile(each, QUANTILE) if len(each) else whole for each in seen])
    reach = np.maximum(reach, _TINY)
    place = np.searchsorted(np.sort(made.elements), numbers)
    relative = atoms / reach[np.argsort(made.elements)][place]
    ends = np.cumsum([len(s) for s in held_out])[:-1]
    frames = [float(part.max()) for part in np.split(relative, ends)]
    return np.asarray(reach * max(float(np.quantile(frames, QUANTILE)), _TINY), np.float32)
