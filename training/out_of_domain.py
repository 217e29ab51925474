"""Structures that the training data do not hold, made from held-out frames, and how well they are told from those.

Every kind is judged by the surroundings of its atoms alone; formula, periodicity, least distances and the committee's
spread come on top in the service.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import ase.build
import numpy as np
from ase.collections import g2
from ase.data import covalent_radii
from numpy.typing import NDArray
from scipy.stats import rankdata

from contract.card import Detection, Surroundings
from contract.elements import hill_formula
from contract.environments import Environments
from contract.errors import InvalidInput
from contract.graphs import build_graph
from contract.structures import Structure, checked_structure
from training.environments import MANY_FORMULAS, OUT_BEYOND, largest_distances

STRETCHED: Final = 1.5
COMPRESSED: Final = 0.7
RATTLED_ANGSTROM: Final = 0.3
APART_ANGSTROM: Final = 3.0
WALL_ANGSTROM: Final = 1.6
_BONDED: Final = 1.3
_MADE, _LEAST_MADE, _MADE_ATOMS = 300, 50, 20_000
_SEED: Final = 5

Made = Structure | None
Maker = Callable[[Structure, np.random.Generator], Made]


def surroundings(environments: Environments, test: Sequence[Structure], cutoff: float) -> Surroundings:
    """The card's entry: what is kept, and how well it tells other structures from test frames.

    Args:
        environments: fitted to training and validation frames.
        test: frames that neither weights nor environments have seen.
        cutoff: angstrom.
    """
    inside = largest_distances(environments, test, cutoff)
    return Surroundings(
        centres=environments.centres.shape[1],
        out_beyond=OUT_BEYOND,
        held_out_flagged=float((inside > 1.0).mean()),
        detection=[
            _detection(kind, inside, largest_distances(environments, structures, cutoff))
            for kind, structures in unfamiliar(test, environments.elements, cutoff).items()
        ],
    )


def unfamiliar(test: Sequence[Structure], elements: NDArray[np.int64], cutoff: float) -> dict[str, list[Structure]]:
    """Structures out of the domain by kind; kinds that cannot be made of these frames are left out."""
    generator = np.random.default_rng(_SEED)
    frames = [test[i] for i in generator.integers(0, len(test), _count(test))]
    kinds: dict[str, list[Structure]] = {
        kind: [s for frame in frames if (s := make(frame, generator)) is not None and _possible(s, cutoff)]
        for kind, make in _MAKERS.items()
    }
    known = {hill_formula(frame.numbers) for frame in test}
    if len(known) <= MANY_FORMULAS:  # a model of many molecules is made for others too
        kinds["other molecules of these elements"] = list(_other_molecules(known, elements))
    return {kind: structures for kind, structures in kinds.items() if structures}


def _count(test: Sequence[Structure]) -> int:
    """How many are made of each kind: fewer of large structures, each of which has many atoms to be seen by."""
    return min(_MADE, max(_LEAST_MADE, _MADE_ATOMS // max(len(frame) for frame in test)))


def auroc(inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
    """Probability that something outside lies farther than something inside: the Mann-Whitney statistic."""
    ranks = rankdata(np.concatenate([inside, outside]))[len(inside) :]
    return float((ranks.sum() - len(outside) * (len(outside) + 1) / 2.0) / (len(inside) * len(outside)))


def _detection(kind: str, inside: NDArray[np.float64], outside: NDArray[np.float64]) -> Detection:
    flagged = float((outside > 1.0).mean())
    return Detection(kind=kind, auroc=auroc(inside, outside), flagged=flagged, count=len(outside))


def _stretched(frame: Structure, generator: np.random.Generator) -> Made:
    return _bond_times(frame, STRETCHED, generator)


def _compressed(frame: Structure, generator: np.random.Generator) -> Made:
    return _bond_times(frame, COMPRESSED, generator)


def _bond_times(frame: Structure, factor: float, generator: np.random.Generator) -> Made:
    """One bond of another length; what hangs on its far end moves with it."""
    return _moved(frame, generator, lambda bond: (factor - 1.0) * bond)


def _broken(frame: Structure, generator: np.random.Generator) -> Made:
    """Cut at one bond, the pieces 3 angstrom further apart."""
    return _moved(frame, generator, lambda bond: APART_ANGSTROM * bond / np.linalg.norm(bond))


def _rattled(frame: Structure, generator: np.random.Generator) -> Made:
    return _with(frame, frame.positions + generator.normal(scale=RATTLED_ANGSTROM, size=(len(frame), 3)))


def _dense(frame: Structure, generator: np.random.Generator) -> Made:
    """A box that ends 0.8 angstrom from the molecule on every side, repeated for ever."""
    if frame.pbc.any():
        return checked_structure(frame.numbers, 0.8 * frame.positions, 0.8 * np.asarray(frame.cell), frame.pbc)
    box = np.ptp(frame.positions, axis=0) + WALL_ANGSTROM
    return checked_structure(frame.numbers, frame.positions, np.diag(box), True)


_MAKERS: Final[dict[str, Maker]] = {
    f"one bond times {STRETCHED:g}": _stretched,
    f"one bond times {COMPRESSED:g}": _compressed,
    f"rattled by {RATTLED_ANGSTROM:g} angstrom": _rattled,
    "broken into two": _broken,
    "dense cell": _dense,
}


def _moved(
    frame: Structure, generator: np.random.Generator, by: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> Made:
    """Move the far side of a random bond by a vector that depends on the bond; None where no bond parts the frame."""
    bonds = _bonds(frame)
    for start, end in generator.permutation(np.concatenate([bonds, bonds[:, ::-1]])) if len(bonds) else ():
        side = _side(bonds, int(start), int(end))
        if int(start) not in side:
            positions = frame.positions.copy()
            positions[list(side)] += by(frame.positions[end] - frame.positions[start])
            return _with(frame, positions)
    return None


def _with(frame: Structure, positions: NDArray[np.float64]) -> Structure:
    return checked_structure(frame.numbers, positions, frame.cell, frame.pbc)


def _bonds(frame: Structure) -> NDArray[np.int64]:
    """Pairs nearer than 1.3 times the sum of their covalent radii, [b, 2]; none in a crystal, where nothing hangs."""
    if frame.pbc.any():
        return np.empty((0, 2), np.int64)
    first, second = np.triu_indices(len(frame), 1)
    radii = covalent_radii[frame.numbers]
    apart = np.linalg.norm(frame.positions[first] - frame.positions[second], axis=1)
    near = apart < _BONDED * (radii[first] + radii[second])
    return np.stack([first[near], second[near]], axis=1)


def _side(bonds: NDArray[np.int64], start: int, end: int) -> set[int]:
    """Atoms reached from `end` without the bond start-end; they hold `start` if it lies in a ring."""
    mates: dict[int, set[int]] = {}
    for a, b in bonds.tolist():
        if {a, b} != {start, end}:
            mates.setdefault(a, set()).add(b)
            mates.setdefault(b, set()).add(a)
    found, ahead = {end}, [end]
    while ahead:
        new = mates.get(ahead.pop(), set()) - found
        found |= new
        ahead += new
    return found


def _other_molecules(known: set[str], elements: NDArray[np.int64]) -> Iterator[Structure]:
    """Molecules of these elements and another formula from the G2 set, J. Chem. Phys. 106, 1063 (1997), in ASE."""
    for name in g2.names:
        atoms = ase.build.molecule(name)  # type: ignore[no-untyped-call]
        if len(atoms) > 1 and set(atoms.numbers) <= set(elements.tolist()) and hill_formula(atoms.numbers) not in known:
            yield checked_structure(atoms.numbers, atoms.positions)


def _possible(structure: Structure, cutoff: float) -> bool:
    """Not refused before it is judged, as coincident atoms are."""
    try:
        build_graph(structure, cutoff)
    except InvalidInput:
        return False
    return True
