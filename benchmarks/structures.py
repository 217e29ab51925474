"""Structures to time with: random branched molecules and rattled aluminium."""

from typing import Any

import numpy as np
from ase.build import bulk

from contract.structures import Structure, checked_structure

BOND_ANGSTROM = (1.1, 1.6)
NON_BONDED_ANGSTROM = 1.8


def molecules(count: int = 64, atoms: int = 20, seed: int = 0) -> list[Structure]:
    """Random CHNO molecules of equal size."""
    generator = np.random.default_rng(seed)
    return [chain(atoms, generator, [1, 6, 7, 8]) for _ in range(count)]


def chain(atoms: int, generator: np.random.Generator, elements: list[int]) -> Structure:
    """A random branched chain of bonded atoms with the density of an organic molecule."""
    places, count = np.zeros((atoms, 3)), 1
    while count < atoms:
        step, parent = generator.normal(size=3), generator.integers(count)
        place = places[parent] + step / np.linalg.norm(step) * generator.uniform(*BOND_ANGSTROM)
        distance = np.linalg.norm(places[:count] - place, axis=1)
        distance[parent] = np.inf
        if distance.min() > NON_BONDED_ANGSTROM:
            places[count] = place
            count += 1
    return checked_structure(generator.choice(elements, atoms), places)


def aluminium(cells_per_edge: int = 5, seed: int = 0) -> Structure:
    """One rattled fcc cell, of 500 atoms by default."""
    cell: Any = bulk("Al", cubic=True)
    crystal = cell.repeat(cells_per_edge)
    crystal.rattle(0.1, seed=seed)
    return checked_structure(crystal.numbers, crystal.positions, crystal.cell.array, True)
