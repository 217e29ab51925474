"""The family `potential`: a structure in, energy, forces, stress, their committee spread and a domain verdict out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from contract.card import ModelCard
from contract.elements import NUMBERS, SYMBOLS
from contract.errors import TooLarge
from contract.graphs import BRUTE_FORCE_ATOMS, BUCKETS, Graph, bucket, build_graph
from contract.graphs import collate as collate_graphs
from contract.structures import Structure, checked_structure
from service.errors import NonFiniteAnswer, UnsupportedElement
from service.trust import Domain, DomainJudge

Tensors = dict[str, NDArray[Any]]
_VOIGT: Final = ((0, 1, 2, 1, 0, 0), (0, 1, 2, 2, 2, 1))
_NAMED: Final = 10
_LONG: Final = BRUTE_FORCE_ATOMS + 1


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One structure, ready for a batch.

    Attributes:
        index: its place in the request, for error messages.
        structure: as it was asked.
        graph: its neighbours.
        rows: atoms, and
        width: standard number K of neighbour slots per atom; rows * width is what a batch is charged for.
    """

    index: int
    structure: Structure
    graph: Graph
    rows: int
    width: int


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The answer for one structure.

    Attributes:
        energy: eV, committee mean with the atomic references.
        energy_std: eV, sample standard deviation over the committee (ddof = 1); None for a single member.
        forces: float32 [n, 3], eV/angstrom.
        virial: float64 [3, 3], eV.
        stress: float64 [6], eV/angstrom^3, xx yy zz yz xz xy, tensile positive; None unless periodic in 3 directions.
        atomic_energies: float64 [n], eV, with the references: they add up to the energy.
        forces_std: float32 [n, 3], eV/angstrom; None unless the graph gives the forces of each member.
        domain: whether the model was trained for this.
    """

    energy: float
    energy_std: float | None
    forces: NDArray[np.float32]
    virial: NDArray[np.float64]
    stress: NDArray[np.float64] | None
    atomic_energies: NDArray[np.float64]
    forces_std: NDArray[np.float32] | None
    domain: Domain


@dataclass(frozen=True, slots=True, eq=False)
class Potential:
    """The pure functions of the family, for one model.

    Attributes:
        known: bool [119], by atomic number: whether the model knows the element.
        reference_ev: float64 [119], by atomic number, eV.
    """

    card: ModelCard
    judge: DomainJudge
    known: NDArray[np.bool_]
    reference_ev: NDArray[np.float64]

    @classmethod
    def of(cls, card: ModelCard) -> Self:
        """The family for a model's card."""
        known, reference = np.zeros(len(SYMBOLS), bool), np.zeros(len(SYMBOLS))
        known[[NUMBERS[element] for element in card.domain.elements]] = True
        for element, energy in card.atomic_reference_ev.items():
            reference[NUMBERS[element]] = energy
        return cls(card, DomainJudge.of(card), known, reference)

    def encode(self, structure: Structure, index: int = 0) -> Sample:
        """Find a structure's neighbours.

        Raises:
            UnsupportedElement: naming the atoms and the elements that the model knows.
            TooLarge: more neighbour slots than the model takes.
            CoincidentAtoms: naming the pair.
        """
        known = self.known[structure.numbers]
        if not known.all():
            raise self._unsupported(structure, np.flatnonzero(~known), index)
        graph = build_graph(structure, self.card.domain.cutoff_angstrom, self.card.max_slots, index)
        width = bucket(graph.degree)
        if graph.n_atoms * width > self.card.max_slots:
            raise self._too_large(graph.n_atoms * width, index)
        return Sample(index, structure, graph, graph.n_atoms, width)

    def collate(self, samples: Sequence[Sample]) -> Tensors:
        """The tensors of a batch, see contract/signatures.py."""
        return collate_graphs([sample.graph for sample in samples])

    def split(self, outputs: Mapping[str, NDArray[Any]], samples: Sequence[Sample]) -> list[Tensors]:
        """The outputs of a batch by position: per-structure tensors lose B, per-atom ones keep their rows.

        Raises:
            ValueError: the outputs are not those of these samples.
        """
        ends = np.cumsum([sample.rows for sample in samples]).tolist()
        sizes = {"energy": outputs["energy"].shape[1], "virial": len(outputs["virial"])}
        rows = {"forces": len(outputs["forces"]), "atomic_energy": outputs["atomic_energy"].shape[1]}
        if set(sizes.values()) != {len(samples)} or set(rows.values()) != {ends[-1]}:
            raise ValueError(f"a batch of {len(samples)} structures and {ends[-1]} atoms came back as {sizes}, {rows}")
        return [
            _part(outputs, place, slice(end - sample.rows, end))
            for place, (sample, end) in enumerate(zip(samples, ends, strict=True))
        ]

    def decode(self, part: Mapping[str, NDArray[Any]], sample: Sample) -> Prediction:
        """One structure's outputs as its prediction, with references, spread, stress and verdict.

        Raises:
            NonFiniteAnswer: the model gave NaN or infinity for this structure.
        """
        members, forces = part["energy"].astype(np.float64), part["forces"]
        virial = part["virial"].astype(np.float64)
        if not (np.isfinite(members).all() and np.isfinite(forces).all() and np.isfinite(virial).all()):
            raise _non_finite(sample.index, self.card.name)
        references = self.reference_ev[sample.structure.numbers]
        std = float(members.std(ddof=1)) if len(members) > 1 else None
        member_forces = part.get("member_forces")
        return Prediction(
            energy=float(members.mean() + references.sum()),
            energy_std=std,
            forces=forces,
            virial=virial,
            stress=_stress(virial, sample.structure),
            atomic_energies=part["atomic_energy"].mean(axis=0, dtype=np.float64) + references,
            forces_std=None if member_forces is None else member_forces.std(axis=0, ddof=1, dtype=np.float32),
            domain=self.judge.judge(sample.structure, sample.graph, std),
        )

    def warm_batches(self) -> Iterator[Tensors]:
        """Batches that touch every piece of compiled code and every usual K; run them before the first request."""
        numbers, spacing = np.full(_LONG, NUMBERS[self.card.domain.elements[0]]), 0.9 * self.card.domain.cutoff_angstrom
        line = np.arange(_LONG)[:, None] * np.array([spacing, 0.0, 0.0])
        pair, chain = (checked_structure(numbers[:n], line[:n]) for n in (2, _LONG))
        crystal = checked_structure(numbers[:1], line[:1], np.eye(3) * spacing, True)
        graphs = [build_graph(structure, self.card.domain.cutoff_angstrom) for structure in (pair, chain, crystal)]
        yield collate_graphs(graphs)
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


def _part(outputs: Mapping[str, NDArray[Any]], place: int, atoms: slice) -> Tensors:
    part = {
        "energy": outputs["energy"][:, place],
        "virial": outputs["virial"][place],
        "forces": outputs["forces"][atoms],
        "atomic_energy": outputs["atomic_energy"][:, atoms],
    }
    if "member_forces" in outputs:
        part["member_forces"] = outputs["member_forces"][:, atoms]
    return part


def _stress(virial: NDArray[np.float64], structure: Structure) -> NDArray[np.float64] | None:
    return virial[_VOIGT] / structure.volume if structure.fully_periodic else None


def _non_finite(index: int, model: str) -> NonFiniteAnswer:
    return NonFiniteAnswer(
        f"Model '{model}' gave NaN or infinity for structures[{index}].",
        hint="Check that its distances are physical; the other structures of the request are not to blame.",
        index=index,
    )
