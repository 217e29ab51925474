"""What a model was trained on, measured from its training data: the card's domain, and so every verdict."""

from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.card import Domain, Surroundings
from contract.elements import SYMBOLS, symbols
from contract.graphs import build_graph
from contract.structures import Structure
from training.data.dataset import Dataset
from training.environments import MANY_FORMULAS

INSIDE_QUANTILE: Final = 0.95
OUTSIDE_FACTOR: Final = 2.0


def training_domain(
    train: Dataset, cutoff: float, held_out_std: NDArray[np.float64] | None, surroundings: Surroundings | None = None
) -> Domain:
    """The domain of a potential.

    Args:
        train: what the weights were fitted to.
        cutoff: angstrom.
        held_out_std: calibrated committee std in eV on frames that no weight was fitted to, or None for one member. An
            answer is inside up to their 95 % quantile, and outside beyond twice that: in between it is at the edge.
        surroundings: of its atoms (training/out_of_domain.py).

    Periodic data stand for a material, of which a cell may hold any number of atoms: no formula is named, and the
    limits on the std, which are for the atoms of the training cells, grow with their number.
    """
    inside = None if held_out_std is None else float(np.quantile(held_out_std, INSIDE_QUANTILE))
    formulas, material = train.formulas(), bool(train.pbc.all())
    return Domain(
        elements=symbols(np.unique(train.numbers).tolist()),
        cutoff_angstrom=cutoff,
        formulas=formulas if len(formulas) <= MANY_FORMULAS and not material else None,
        min_distance_angstrom=closest_pairs(train, cutoff),
        energy_std_in_ev=inside,
        energy_std_out_ev=None if inside is None else OUTSIDE_FACTOR * inside,
        energy_std_atoms=round(float(train.sizes.mean())) if material and inside is not None else None,
        surroundings=surroundings,
        periodic=bool(train.pbc.any()),
        description=_description(train, formulas),
    )


def closest_pairs(train: Iterable[Structure], cutoff: float) -> dict[str, float]:
    """Smallest distance in angstrom of each sorted pair of elements, such as C-H, among nearest neighbours.

    The service compares each atom's nearest neighbour with it, so other pairs need not be kept.
    """
    closest: dict[str, float] = {}
    for structure in train:
        graph = build_graph(structure, cutoff)
        near = np.flatnonzero(graph.nearest >= 0)
        pairs = np.sort(np.stack([structure.numbers[near], structure.numbers[graph.nearest[near]]]), axis=0)
        for first, second, distance in zip(*pairs, graph.nearest_distance[near], strict=True):
            name = "-".join(sorted((SYMBOLS[first], SYMBOLS[second])))
            closest[name] = min(closest.get(name, np.inf), float(distance))
    return {name: round(distance, 4) for name, distance in sorted(closest.items())}


def _description(train: Dataset, formulas: list[str]) -> str:
    what = ", ".join(formulas[:5]) + (f" and {len(formulas) - 5} more formulas" if len(formulas) > 5 else "")
    above = train.energy - train.energy.min()
    where = "periodic cells" if train.pbc.all() else "molecules in vacuum"
    span = f", up to {above.max():.1f} eV above the lowest" if len(formulas) == 1 else ""
    return f"{len(train)} configurations of {what} ({where}{span})"
