"""Structures that several benchmarks time on: organic molecules and bulk aluminium."""

import numpy as np
from ase.build import bulk

from contract.structures import Structure, checked_structure


def molecules(count: int = 64, atoms: int = 20, seed: int = 0) -> list[Structure]:
    """Random CHNO chains with bond lengths of 1.1 to 1.6 angstrom."""
    generator = np.random.default_rng(seed)
    return [_chain(atoms, generator) for _ in range(count)]


def aluminium(cells_per_edge: int = 5, seed: int = 0) -> Structure:
    """One rattled fcc cell; 5 cells an edge are 500 atoms."""
    crystal = bulk("Al", cubic=True).repeat(cells_per_edge)
    crystal.rattle(0.1, seed=seed)
    return checked_structure(crystal.numbers, crystal.positions, crystal.cell.array, True)


def _chain(atoms: int, generator: np.random.Generator) -> Structure:
    places = [np.zeros(3)]
    while len(places) < atoms:
        step = generator.normal(size=3)
        place = places[generator.integers(len(places))] + step / np.linalg.norm(step) * generator.uniform(1.1, 1.6)
        if min(np.linalg.norm(place - other) for other in places) > 1.0:
            places.append(place)
    return checked_structure(generator.choice([1, 6, 7, 8], atoms), np.array(places))
