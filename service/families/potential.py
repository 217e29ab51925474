"""The family `potential`: a structure in, energy, forces, stress, their committee spread and a domain verdict out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.elements import NUMBERS, SYMBOLS
from contract.environments import Environments
from contract.errors import TooLarge
from contract.graphs import BRUTE_FORCE_ATOMS, Graph, bucket, build_graph
from contract.graphs import collate as collate_graphs
from contract.signatures import BUCKETS
from contract.structures import Structure, checked_structure
from service.errors import NonFiniteAnswer, UnsupportedElement
from service.trust import Domain, DomainJudge

Tensors = dict[str, NDArray[Any]]
_VOIGT: Final = ((0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1))
_NAMED: Final = 10
_REMEMBERED: Final = 1024
_REMEMBERED_ATOMS: Final = 300
_LONG: Final = BRUTE_FORCE_ATOMS + 1


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One structure, ready for a batch.

    Attributes:
        index: its place in the request, for error messages.
        structure: as it was asked.
        graph: its neighbours.
        references: float64 [n], eV, atomic reference of each atom, and reference_ev, their sum.
        rows: atoms, and
        width: standard number K of neighbour slots per atom; rows * width is what a batch is charged for.
        unfamiliar: float32 [n], distance of each atom's surroundings to the training data; None if not known.
    """

    index: int
    structure: Structure
    graph: Graph
    references: NDArray[np.float64]
    reference_ev: float
    rows: int
    width: int
    unfamiliar: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What a batch's outputs say of one structure: views of them, M committee members.

    Attributes:
        members: eV, each member's energy without references.
        forces: float32 [n, 3], eV/angstrom.
        virial: float32 [3, 3], eV.
        atomic: float32 [M, n], eV, without references.
        member_forces: float32 [M, n, 3], eV/angstrom, or None.
        member_virial: float32 [M, 3, 3], eV, or None.
        batch: structures in the engine call.
    """

    members: list[float]
    forces: NDArray[np.float32]
    virial: NDArray[np.float32]
    atomic: NDArray[np.float32]
    member_forces: NDArray[np.float32] | None
    member_virial: NDArray[np.float32] | None
    batch: int


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer for one structure.

    Attributes:
        energy: eV, committee mean with the atomic references.
        energy_std: eV, standard deviation over the committee (ddof = 1) times the scale of the card; None for a single
            member.
        stress: float64 [6], eV/angstrom^3, xx yy zz yz xz xy, tensile positive; None unless periodic in 3 directions.
        domain: whether the model was trained for this.
        part, sample: what it was made of.
        force_scale: what turns the members' spread of forces and stress into a standard deviation.
    """

    energy: float
    energy_std: float | None
    stress: NDArray[np.float64] | None
    domain: Domain
    part: Part
    sample: Sample
    force_scale: float = 1.0

    @property
    def forces(self) -> NDArray[np.float32]:
        """[n, 3], eV/angstrom."""
        return self.part.forces

    @property
    def virial(self) -> NDArray[np.float32]:
        """[3, 3], eV."""
        return self.part.virial

    @property
    def atomic_energies(self) -> NDArray[np.float64]:
        """[n], eV, with the references: they add up to the energy."""
        mean: NDArray[np.float64] = self.part.atomic.mean(axis=0, dtype=np.float64)
        return mean + self.sample.references

    @property
    def forces_std(self) -> NDArray[np.float32] | None:
        """[n, 3], eV/angstrom; None unless the graph gives the forces of each member."""
        members = self.part.member_forces
        return None if members is None else np.float32(self.force_scale) * members.std(axis=0, ddof=1, dtype=np.float32)

    @property
    def stress_std(self) -> NDArray[np.float64] | None:
        """[6], eV/angstrom^3, as the stress; None unless there is one and the graph gives the virial of each member."""
        members = self.part.member_virial
        if members is None or self.stress is None:
            return None
        each = members.astype(np.float64)[:, *_VOIGT] / self.sample.structure.volume
        return np.asarray(self.force_scale * each.std(axis=0, ddof=1))


@dataclass(frozen=True, slots=True, eq=False)
class Potential:
    """The pure functions of the family, for one model.

    Attributes:
        reference_ev: float64 [119], eV, by atomic number; NaN for elements that the model does not know.
        environments: the surroundings that the model was trained on; None if they were not published with it.
        remembered: references of small structures by their atomic numbers.
    """

    card: ModelCard
    judge: DomainJudge
    reference_ev: NDArray[np.float64]
    environments: Environments | None = None
    remembered: dict[bytes, tuple[NDArray[np.float64], float]] = field(default_factory=dict)

    @classmethod
    def of(cls, card: ModelCard, environments: Environments | None = None) -> Self:
        """The family for a model's card."""
        reference = np.full(len(SYMBOLS), np.nan)
        for element in card.domain.elements:
            reference[NUMBERS[element]] = card.atomic_reference_ev.get(element, 0.0)
        return cls(card, DomainJudge.of(card), reference, environments)

    def encode(self, structure: Structure, index: int = 0) -> Sample:
        """Find a structure's neighbours.

        Raises:
            UnsupportedElement: naming the atoms and the elements that the model knows.
            TooLarge: more neighbour slots than the model takes.
            CoincidentAtoms: naming the pair.
        """
        references, reference_ev = self._references(structure.numbers)
        if math.isnan(reference_ev):
            raise self._unsupported(structure, np.flatnonzero(np.isnan(references)), index)
        graph = build_graph(structure, self.card.domain.cutoff_angstrom, self.card.max_slots, index)
        rows, width = graph.n_atoms, bucket(graph.degree)
        if rows * width > self.card.max_slots:
            raise self._too_large(rows * width, index)
        unfamiliar = None if self.environments is None else self.environments.distances(graph)
        return Sample(index, structure, graph, references, reference_ev, rows, width, unfamiliar)

    def _references(self, numbers: NDArray[np.int64]) -> tuple[NDArray[np.float64], float]:
        """Reference of each atom and their sum, remembered: a trajectory asks for the same atoms again and again."""
        if len(numbers) > _REMEMBERED_ATOMS:
            references = self.reference_ev[numbers]
            return references, float(references.sum())
        key = numbers.tobytes()
        if key not in self.remembered:
            if len(self.remembered) >= _REMEMBERED:
                self.remembered.clear()
            references = self.reference_ev[numbers]
            self.remembered[key] = references, float(references.sum())
        return self.remembered[key]

    def collate(self, samples: Sequence[Sample]) -> Tensors:
        """The tensors of a batch, see contract/signatures.py."""
        return collate_graphs([sample.graph for sample in samples])

    def split(self, outputs: Mapping[str, NDArray[Any]], samples: Sequence[Sample]) -> list[Part]:
        """The outputs of a batch by structure, by position.

        Raises:
            ValueError: the outputs are not those of these samples.
            NonFiniteAnswer: the model gave NaN or infinity, naming the first structure for which it did.
        """
        energy, forces, virial = outputs["energy"], outputs["forces"], outputs["virial"]
        atomic = outputs["atomic_energy"]
        member_forces, member_virial = outputs.get("member_forces"), outputs.get("member_virial")
        structures, atoms = len(samples), sum(sample.rows for sample in samples)
        if (energy.shape[1], len(virial), len(forces), atomic.shape[1]) != (structures, structures, atoms, atoms):
            raise ValueError(f"{structures} structures of {atoms} atoms came back as {energy.shape}, {forces.shape}")
        members, parts, end = energy.T.tolist(), [], 0
        for place, sample in enumerate(samples):
            start, end = end, end + sample.rows
            each_forces = None if member_forces is None else member_forces[:, start:end]
            each_virial = None if member_virial is None else member_virial[:, place]
            own = forces[start:end], virial[place], atomic[:, start:end]
            parts.append(Part(members[place], *own, each_forces, each_virial, structures))
        if not math.isfinite(np.vdot(forces, forces) + np.vdot(virial, virial) + sum(map(sum, members))):
            _refuse_non_finite(parts, samples, self.card.name)
        return parts

    def decode(self, part: Part, sample: Sample) -> Prediction:
        """One structure's outputs as its prediction, with references, spread, stress and verdict."""
        mean, spread = _mean_and_std(part.members)
        committee, stress = self.card.committee, _stress(part.virial, sample.structure)
        std = None if spread is None else committee.energy_scale * spread
        domain = self.judge.judge(sample.structure, sample.graph, std, sample.unfamiliar)
        return Prediction(mean + sample.reference_ev, std, stress, domain, part, sample, committee.force_scale)

    def warm_batches(self) -> Iterator[Tensors]:
        """Batches that touch every piece of compiled code and every usual K; run them before the first request."""
        numbers, spacing = np.full(_LONG, NUMBERS[self.card.domain.elements[0]]), 0.9 * self.card.domain.cutoff_angstrom
        line = np.arange(_LONG)[:, None] * np.array([spacing, 0.0, 0.0])
        pair, chain = (checked_structure(numbers[:n], line[:n]) for n in (2, _LONG))
        crystal = checked_structure(numbers[:1], line[:1], np.eye(3) * spacing, True)
        graphs = [build_graph(structure, self.card.domain.cutoff_angstrom) for structure in (pair, chain, crystal)]
        yield collate_graphs(graphs)
        if self.environments is not None:
            self.environments.distances(graphs[0])
        for width in BUCKETS:
            if width >= graphs[0].degree and 2 * width <= self.card.max_slots:
                yield collate_graphs(graphs[:1], width)

    def _unsupported(self, structure: Structure, atoms: NDArray[np.intp], index: int) -> UnsupportedElement:
        symbol = SYMBOLS[structure.numbers[atoms[0]]]
        elements = self.card.domain.elements
        return UnsupportedElement(
            f"structures[{index}]: atom {int(atoms[0])} is {symbol}, which model '{self.card.name}' does not know.",
            hint=f"It knows {', '.join(elements)}; GET /v1/models lists the elements of every model.",
            field="numbers",
            index=index,
            atoms=atoms[:_NAMED].tolist(),
            count=int(atoms.size),
            elements=elements,
        )

    def _too_large(self, slots: int, index: int) -> TooLarge:
        limit = self.card.max_slots
        return TooLarge(
            f"structures[{index}] needs {slots:,} neighbour slots; model '{self.card.name}' takes {limit:,}.",
            hint="Split the system, or check that positions and cell are in angstrom.",
            field="positions",
            index=index,
            limit=limit,
            got=slots,
            unit="neighbour slots",
        )


def _mean_and_std(values: list[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation (ddof = 1) of a few numbers; no deviation of a single one."""
    mean = sum(values) / len(values)
    if len(values) == 1:
        return mean, None
    return mean, math.sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _stress(virial: NDArray[np.float32], structure: Structure) -> NDArray[np.float64] | None:
    if structure.cell is None or not structure.fully_periodic:
        return None
    return virial.astype(np.float64)[_VOIGT] / structure.volume


def _refuse_non_finite(parts: Sequence[Part], samples: Sequence[Sample], model: str) -> None:
    for part, sample in zip(parts, samples, strict=True):
        if not all(np.isfinite(values).all() for values in (part.members, part.forces, part.virial)):
            raise _non_finite(sample.index, model)


def _non_finite(index: int, model: str) -> NonFiniteAnswer:
    return NonFiniteAnswer(
        f"Model '{model}' gave NaN or infinity for structures[{index}].",
        hint="Check that its distances are physical; the other structures of the request are not to blame.",
        index=index,
    )
