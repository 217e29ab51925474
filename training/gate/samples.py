"""Structures that every version is examined on: some of its own test data, and shapes that no data set holds."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.structures import Structure, checked_structure

NEAREST_ANGSTROM: Final = 2.5
STEP_ANGSTROM: Final = 1.4
APART_ANGSTROM: Final = 1.1
_RATTLE_ANGSTROM: Final = 0.08
_SEED: Final = 20


def spread(structures: Sequence[Structure], count: int) -> list[Structure]:
    """At most `count` structures, evenly spaced over the sequence."""
    chosen = np.unique(np.linspace(0, len(structures) - 1, min(count, len(structures))).round().astype(int))
    return [structures[i] for i in chosen]


def reference_structures(test: Sequence[Structure], elements: Sequence[int]) -> list[Structure]:
    """What reference.npz holds answers for: test frames, chains, an atom alone, a cell smaller than any cutoff."""
    return [*spread(test, 2), lone_atoms(elements)[0], *chains(elements)[1:], small_cells(elements)[1]]


def lone_atoms(elements: Sequence[int]) -> list[Structure]:
    """One atom of each element, by itself in vacuum."""
    return [checked_structure([z], [[0.0, 0.0, 0.0]]) for z in elements]


def chains(elements: Sequence[int], sizes: Sequence[int] = (2, 5, 12, 30)) -> list[Structure]:
    """Random chains in vacuum; the elements take turns, so that each occurs."""
    generator = np.random.default_rng(_SEED)
    return [checked_structure(_in_turn(elements, n), _walk(n, generator)) for n in sizes]


def small_cells(elements: Sequence[int]) -> list[Structure]:
    """Periodic cells far smaller than any cutoff: four atoms, and two in a skewed left-handed cell."""
    a = NEAREST_ANGSTROM
    skewed = a * np.array([[0.1, 1.1, 0.0], [1.2, 0.1, 0.15], [0.2, 0.05, 1.3]])
    return [
        crystal(elements, 1),
        checked_structure(_in_turn(elements, 2), [[0, 0, 0], [a, 0.4 * a, 0.5 * a]], skewed, True),
    ]


def crystal(elements: Sequence[int], cells: int) -> Structure:
    """A rattled face-centred cubic crystal of 4 cells^3 atoms."""
    lattice = np.sqrt(2.0) * NEAREST_ANGSTROM
    grid = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    positions = lattice * (grid + basis).reshape(-1, 3)
    positions += np.random.default_rng(_SEED).normal(scale=_RATTLE_ANGSTROM, size=positions.shape)
    return checked_structure(_in_turn(elements, len(positions)), positions, lattice * cells * np.eye(3), True)


def _in_turn(elements: Sequence[int], count: int) -> NDArray[np.int64]:
    return np.resize(np.asarray(elements, np.int64), count)


def _walk(n_atoms: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """A random walk whose places keep apart."""
    positions = np.zeros((1, 3))
    while len(positions) < n_atoms:
        step = generator.normal(size=3)
        candidate = positions[-1] + STEP_ANGSTROM * step / np.linalg.norm(step)
        if np.linalg.norm(positions - candidate, axis=1).min() > APART_ANGSTROM:
            positions = np.vstack([positions, candidate])
    return positions
