"""How far two answers to one question may be apart: the tolerance of the isolation contract, and of replays.

Answers are rounded to float32, so what they may differ by grows with what they say; and the gate allows a model whose
own rounding is larger as much as it measured.
"""

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from contract.card import ALONE_OR_BATCHED, ModelCard
from service.families.potential import Sample

_ENERGY: Final = 1e-6
_FORCES: Final = 1e-5
_FORCE_COMPONENT: Final = 1e-4


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Of one model.

    Attributes:
        energy: of the energy without atomic references, which counts as at least 1 eV an atom.
        forces: of the structure's largest force component, which counts as at least 1 eV/angstrom.
        force_component: or of the component itself, where that is more.
    """

    energy: float = _ENERGY
    forces: float = _FORCES
    force_component: float = _FORCE_COMPONENT

    @classmethod
    def of(cls, card: ModelCard) -> Self:
        """What the gate allowed this model, alone or batched, if that is more than usual."""
        return cls(max(_ENERGY, _allowed(card, "energy")), max(_FORCES, _allowed(card, "forces")))

    def energies_agree(self, one: float, other: float, sample: Sample) -> bool:
        """Whether two energies (eV) of a structure agree."""
        return abs(one - other) <= self.energy * max(sample.graph.n_atoms, abs(other - sample.reference_ev))

    def forces_agree(self, one: NDArray[np.floating], other: NDArray[np.floating]) -> bool:
        """Whether two sets of forces [n, 3] (eV/angstrom) of a structure agree."""
        largest = max(1.0, float(np.abs(other).max(initial=0.0)))
        return bool(np.allclose(one, other, rtol=self.force_component, atol=self.forces * largest))

    def said(self) -> dict[str, float]:
        """As a replay reports it."""
        return {
            "energy_ev_per_atom": self.energy,
            "energy_relative": self.energy,
            "forces_ev_angstrom": self.forces,
            "forces_relative_to_largest": self.forces,
            "forces_relative": self.force_component,
        }


def _allowed(card: ModelCard, tensor: str) -> float:
    """The largest bound of the gate's checks of this tensor over the graph files; 0 where there is none."""
    return max(
        (check.bound for check in card.checks if check.name.endswith(f"{ALONE_OR_BATCHED}: {tensor}")), default=0.0
    )
