"""Whether a model was trained for what it was asked: composition, distances, surroundings, periodicity, spread."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from contract.card import Committee, ModelCard
from contract.elements import NUMBERS, SYMBOLS, hill_formula
from contract.graphs import Graph
from contract.structures import Structure
from contract.units import G_PER_CM3

Verdict = Literal["in", "edge", "out"]
SHORT_OF_LEAST_DISTANCE: Final = 0.9
DENSITY_EDGE, DENSITY_OUT = 0.02, 0.1
"""So far beyond the densities in training, as a share of them, a bulk system is at the edge of the domain, or out."""
LOOSE: Final = 1.7
"""Nearest neighbours so many times farther than the closest in training: a bohr is 0.53 angstrom."""
_NAMED: Final = 10
_REMEMBERED: Final = 1024
_SMALL: Final = 300
_RANK: Final[dict[Verdict, int]] = {"in": 0, "edge": 1, "out": 2}


@dataclass(frozen=True, slots=True)
class Domain:
    """The verdict on one structure.

    Attributes:
        in_domain: the verdict is not "out".
        verdict: in, at the edge of, or out of the training domain.
        reasons: one sentence each; empty when in the domain.
        atoms: indices of the first ten atoms that the reasons speak of.
    """

    in_domain: bool
    verdict: Verdict
    reasons: list[str]
    atoms: list[int]


_INSIDE: Final = Domain(True, "in", [], [])


@dataclass(slots=True)
class _Finding:
    verdict: Verdict = "in"
    reasons: list[str] = field(default_factory=list)
    atoms: list[int] = field(default_factory=list)

    def add(self, verdict: Verdict, reason: str, atoms: list[int]) -> None:
        self.verdict = max(self.verdict, verdict, key=_RANK.__getitem__)
        self.reasons.append(reason)
        self.atoms = sorted({*self.atoms, *atoms})[:_NAMED]


@dataclass(frozen=True, slots=True, eq=False)
class DomainJudge:
    """Judges structures by the domain on a model's card.

    Attributes:
        least_distance: float64 [119, 119], angstrom, smallest distance in training by atomic
            numbers (0: not known); None if the card names none.
    """

    card: ModelCard
    least_distance: NDArray[np.float64] | None

    @classmethod
    def of(cls, card: ModelCard) -> Self:
        """The judge for a card."""
        if not card.domain.min_distance_angstrom:
            return cls(card, None)
        least = np.zeros((len(SYMBOLS), len(SYMBOLS)))
        for pair, distance in card.domain.min_distance_angstrom.items():
            first, second = (NUMBERS[symbol] for symbol in pair.split("-"))
            least[first, second] = least[second, first] = distance
        return cls(card, least)

    def judge(
        self,
        structure: Structure,
        graph: Graph,
        energy_std_ev: float | None,
        unfamiliar: NDArray[np.float32] | None = None,
    ) -> Domain:
        """The verdict on a structure whose elements the model knows.

        Args:
            structure: as it was asked.
            graph: its neighbours.
            energy_std_ev: as in the answer; None for a single member.
            unfamiliar: float32 [n], distance of each atom's surroundings to the training data, if known.
        """
        finding = _Finding()
        self._composition(structure, finding)
        self._periodicity(structure, finding)
        self._density(structure, finding)
        self._distances(structure, graph, finding)
        self._surroundings(structure, unfamiliar, finding)
        self._spread(energy_std_ev, len(structure), finding)
        if finding.verdict == "in":
            return _INSIDE
        return Domain(finding.verdict != "out", finding.verdict, finding.reasons, finding.atoms)

    def _composition(self, structure: Structure, finding: _Finding) -> None:
        trained = self.card.domain.formulas
        if trained is None or (formula := _formula(structure.numbers)) in trained:
            return
        finding.add("out", f"The model was not trained on {formula}: the training data hold {_listed(trained)}.", [])

    def _periodicity(self, structure: Structure, finding: _Finding) -> None:
        periodic = structure.cell is not None and bool(structure.pbc.any())
        if periodic and not self.card.domain.periodic:
            finding.add("out", "The structure is periodic; the training data hold molecules in vacuum only.", [])
        elif self.card.domain.periodic and not periodic:
            finding.add("edge", "The structure is not periodic; the training data are.", [])

    def _density(self, structure: Structure, finding: _Finding) -> None:
        """Of beads in a periodic cell against the states that the card names; temperature is not in a structure."""
        states, beads = self.card.domain.states, self.card.domain.beads
        if not states or not structure.fully_periodic or not beads.keys() >= {SYMBOLS[z] for z in structure.numbers}:
            return
        density = G_PER_CM3 * sum(beads[SYMBOLS[z]].mass_u for z in structure.numbers) / structure.volume
        low, high = (bound(s.density_g_cm3 for s in states) for bound in (min, max))
        beyond = max(low / density, density / high) - 1.0
        if beyond > DENSITY_EDGE:
            finding.add(
                "out" if beyond > DENSITY_OUT else "edge",
                f"The density is {density:.3f} g/cm3; the training data reach from {low:g} to {high:g}.",
                [],
            )

    def _distances(self, structure: Structure, graph: Graph, finding: _Finding) -> None:
        """Each atom's nearest neighbour against the closest such pair in training."""
        if self.least_distance is None:
            return
        least = self.least_distance[structure.numbers, structure.numbers[graph.nearest]]
        short = graph.nearest_distance < least
        if not short.any():
            self._looseness(graph, least, finding)
            return
        atoms = np.flatnonzero(short)
        atom = int(atoms[np.argmin(graph.nearest_distance[atoms] / least[atoms])])
        mate, distance = int(graph.nearest[atom]), float(graph.nearest_distance[atom])
        pair = f"{SYMBOLS[structure.numbers[atom]]}-{SYMBOLS[structure.numbers[mate]]}"
        finding.add(
            "out" if distance < SHORT_OF_LEAST_DISTANCE * least[atom] else "edge",
            f"Atoms {atom} and {mate} ({pair}) are {distance:.3f} angstrom apart; "
            f"the closest in the training data are {least[atom]:.3f}.",
            atoms[:_NAMED].tolist(),
        )

    def _looseness(self, graph: Graph, least: NDArray[np.float64], finding: _Finding) -> None:
        """Whether most atoms are so far from their nearest neighbours that the unit of length may be another."""
        known = (graph.nearest >= 0) & (least > 0.0)
        loose = known & (graph.nearest_distance > LOOSE * least)
        lonely = graph.nearest < 0
        if graph.n_atoms > 2 and 2 * np.count_nonzero(loose | lonely) > graph.n_atoms:
            finding.add(
                "edge",
                "Most atoms are much farther from their nearest neighbours than in training: "
                "positions are in angstrom, not in bohr (0.529 angstrom) or any other unit.",
                np.flatnonzero(loose | lonely)[:_NAMED].tolist(),
            )

    def _surroundings(self, structure: Structure, unfamiliar: NDArray[np.float32] | None, finding: _Finding) -> None:
        """Each atom's surroundings against those of its element in training (contract/environments.py)."""
        trained = self.card.domain.surroundings
        if unfamiliar is None or trained is None or not (strange := unfamiliar > 1.0).any():
            return
        atoms = np.flatnonzero(strange)
        atom = int(unfamiliar.argmax())
        who = f"Atom {atom} ({SYMBOLS[structure.numbers[atom]]})"
        they = f"{who} and {len(atoms) - 1} more have" if len(atoms) > 1 else f"{who} has"
        finding.add(
            "out" if unfamiliar[atom] > trained.out_beyond else "edge",
            f"{they} surroundings unlike the training data: atom {atom} is {unfamiliar[atom]:.1f} times as far from "
            "them as held-out frames reach.",
            atoms[np.argsort(-unfamiliar[atoms], kind="stable")][:_NAMED].tolist(),
        )

    def _spread(self, energy_std_ev: float | None, atoms: int, finding: _Finding) -> None:
        inside, outside = self.card.domain.energy_std_limits(atoms)
        if energy_std_ev is None:
            return
        said = f"The committee's std of the energy is {energy_std_ev:.4f} eV;"
        if outside is not None and energy_std_ev > outside:
            finding.add("out", f"{said} above {outside:.4f} eV is out of the domain.", [])
        elif inside is not None and energy_std_ev > inside:
            finding.add("edge", f"{said} above {inside:.4f} eV is at the edge of the domain.", [])


def uncertainty_of(committee: Committee) -> dict[str, Any]:
    """How to read the standard deviations of an answer, as `understudy.wire.Uncertainty` has it."""
    known = {"energy": committee.energy, "forces": committee.forces}
    return {
        "members": committee.members,
        "ddof": committee.ddof,
        "calibrated": committee.energy is not None,
        "half_width_95": {name: each.half_width_95 for name, each in known.items() if each is not None},
    }


def _formula(numbers: NDArray[np.int64]) -> str:
    """Hill formula; that of a small structure is remembered, as a trajectory asks for the same atoms again."""
    return _remembered(numbers.tobytes()) if len(numbers) <= _SMALL else hill_formula(numbers)


@lru_cache(_REMEMBERED)
def _remembered(numbers: bytes) -> str:
    return hill_formula(np.frombuffer(numbers, np.int64))


def _listed(formulas: list[str]) -> str:
    shown = ", ".join(formulas[:_NAMED])
    return shown if len(formulas) <= _NAMED else f"{shown} and {len(formulas) - _NAMED} more"
