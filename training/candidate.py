"""A trained model that asks to be admitted: what a pipeline knows of it, before anything is exported."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contract.card import Comparison, DataSource, Domain, Metric, Property, Split, Training
from contract.elements import SYMBOLS
from contract.environments import Environments
from contract.structures import Structure
from training.networks.potential import Potential


class ForceSpread(NamedTuple):
    """Force components of held-out frames, [A, 3] in eV/angstrom: error of the mean, and std over members."""

    error: NDArray[np.float64]
    std: NDArray[np.float64]


class ForceLabels(NamedTuple):
    """Force components of held-out frames, [A, 3] in eV/angstrom: the labels, and those of the members' mean."""

    target: NDArray[np.float64]
    predicted: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class HeldOut:
    """Frames that no weight was fitted to, and what the trained run answered.

    Attributes:
        structures: n frames.
        energy: float64 [n], eV, the labels as the data have them, atomic references included; None where forces are all
            that is known.
        predicted: float64 [M, n], eV, of every member, atomic references not included.
        forces: where there is something to compare them with, and several members.
        force_labels: where there are no energies.
    """

    structures: Sequence[Structure]
    energy: NDArray[np.float64] | None
    predicted: NDArray[np.float64]
    forces: ForceSpread | None = None
    force_labels: ForceLabels | None = None

    def __len__(self) -> int:
        return len(self.structures)

    def some(self, most: int) -> "HeldOut":
        """At most so many frames, evenly spaced; without the spread of forces."""
        chosen = np.unique(np.linspace(0, len(self) - 1, min(most, len(self))).round().astype(int))
        energy = None if self.energy is None else self.energy[chosen]
        return HeldOut(
            [self.structures[i] for i in chosen], energy, self.predicted[:, chosen], None, self._labels(chosen)
        )

    def _labels(self, chosen: NDArray[np.int64]) -> ForceLabels | None:
        if self.force_labels is None:
            return None
        kept = np.repeat(np.isin(np.arange(len(self)), chosen), [len(s) for s in self.structures])
        return ForceLabels(*(each[kept] for each in self.force_labels))

    @property
    def std(self) -> NDArray[np.float64] | None:
        """Sample standard deviation over members (ddof = 1), eV [n]; None for one member."""
        return np.asarray(self.predicted.std(axis=0, ddof=1)) if len(self.predicted) > 1 else None

    def answer(self, references: dict[str, float]) -> NDArray[np.float64]:
        """Mean energy with atomic references (eV per element), eV [n]."""
        return np.asarray(self.predicted.mean(axis=0) + reference_energies(self.structures, references))

    def error(self, references: dict[str, float]) -> NDArray[np.float64]:
        """Error of the mean energy, eV [n].

        Raises:
            ValueError: the data have no energies.
        """
        if self.energy is None:
            raise ValueError("the data have no energies to compare with")
        return self.answer(references) - self.energy


@dataclass(frozen=True, slots=True)
class TaughtBy:
    """The run that a student was distilled from.

    Attributes:
        name: of its model.
        config_sha256: of its configuration, as its card has it too.
    """

    name: str
    config_sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """Everything that `publish` needs.

    Attributes:
        name: of the model, [a-z0-9][a-z0-9._-]*.
        purpose: one sentence for the card.
        network: trained, in any dtype; it is not changed.
        references: eV per element, added outside the graph.
        domain: what it was trained on (training/domain.py).
        data: where its labels came from.
        split: how they were parted.
        metrics: its errors on the test part.
        comparisons: the same for others on the same split, at least the mean predictor.
        training: how its weights were made.
        valid: the part that chose the weights; uncertainty is calibrated on it.
        test: the part that nothing saw.
        licence: of the weights, an SPDX identifier where there is one.
        citation: what to cite beside the data.
        taught_by: the run that it was distilled from; None for most.
        environments: surroundings of the training atoms; None for no verdict on surroundings.
        forces_against: what held-out forces were compared with.
        energy_is: what the energy means, as on the card.
        figures: SVG by name, for the card beside its own plots.
        properties: of matter, beside those of the reference.
    """

    name: str
    purpose: str
    network: Potential
    references: dict[str, float]
    domain: Domain
    data: Sequence[DataSource]
    split: Split
    metrics: Sequence[Metric]
    comparisons: Sequence[Comparison]
    training: Training
    valid: HeldOut
    test: HeldOut
    licence: str
    citation: Sequence[str]
    taught_by: TaughtBy | None = None
    environments: Environments | None = None
    forces_against: str = "labels"
    energy_is: Literal["potential energy", "free energy"] = "potential energy"
    figures: Mapping[str, str] = field(default_factory=dict)
    properties: Sequence[Property] = ()


def reference_energies(structures: Sequence[Structure], references: dict[str, float]) -> NDArray[np.float64]:
    """Sum of the atomic references (eV per element) of each structure, eV [n]."""
    table = np.full(len(SYMBOLS), np.nan)
    for symbol, energy in references.items():
        table[SYMBOLS.index(symbol)] = energy
    return np.array([table[structure.numbers].sum() for structure in structures])
