"""A model to be judged: published in a repository, and then asked as it is served, or the folder of a run."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.elements import NUMBERS
from contract.errors import RepositoryError
from contract.graphs import Graph, build_graph, collate
from contract.repository import ModelRepository, StoredModel, sha256_of
from contract.structures import Structure
from training.assessment.errors import NoSuchModel
from training.candidate import reference_energies
from training.checkpoint import WEIGHTS, Run, load_any_run
from training.gate.engines import Engine, network_engine, onnx_engine

SLOTS_A_CALL: Final = 4_000
_TIMED: Final = 30
_ROUNDS: Final = 5

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A model that can be asked.

    Attributes:
        name: as it is named in tables.
        what: how it is asked, and its digest in short.
        digest: of a published model; of a run's weights, their sha256.
        elements: atomic numbers that it knows.
        cutoff: angstrom.
        references: eV per element.
        members: of its committee.
        scale: what turns the members' spread of the energy into a standard deviation; 1 where none was fitted.
        parameters: numbers in its weights.
        bytes: of the file that answers.
        run: tensors in, tensors out.
    """

    name: str
    what: str
    digest: str
    elements: frozenset[int]
    cutoff: float
    references: dict[str, float]
    members: int
    scale: float
    parameters: int
    bytes: int
    run: Engine

    def knows(self, structure: Structure) -> bool:
        """Whether it has all of its elements."""
        return set(structure.numbers.tolist()) <= self.elements


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a model said of n frames with A atoms in all.

    Attributes:
        energy: eV [n], of the mean, atomic references included.
        forces: eV/angstrom [A, 3], of the mean.
        std: eV [n], calibrated where the model's card has a scale; None for one member.
    """

    energy: Array
    forces: Array
    std: Array | None


def judged(name: str, repository: ModelRepository) -> Judged:
    """Open a model.

    Args:
        name: of a published model, of one of its versions as NAME:VERSION, or the folder of a run.
        repository: of published models.

    Raises:
        NoSuchModel: neither.
    """
    if (Path(name) / "run.json").is_file():
        return _of_run(name, load_any_run(Path(name)), Path(name) / WEIGHTS)
    model, _, version = name.partition(":")
    try:
        stored = repository.load(model, version or None)
    except RepositoryError as error:
        raise NoSuchModel(
            f"{name} is neither the folder of a run nor a model in {repository.root}: {error}. Published are: "
            f"{', '.join(repository.names()) or 'none'}"
        ) from None
    return _of_published(stored)


def ask(model: Judged, structures: Sequence[Structure]) -> Answers:
    """Energies and forces of structures whose elements the model knows; those of like degree share a call."""
    graphs = [build_graph(structure, model.cutoff, index=i) for i, structure in enumerate(structures)]
    energy = np.zeros((model.members, len(graphs)))
    forces: list[Array] = [np.zeros((0, 3))] * len(graphs)
    for lot in _lots(graphs):
        answer = model.run(collate([graphs[i] for i in lot]))
        energy[:, lot] = answer["energy"]
        ends = np.cumsum([graphs[i].n_atoms for i in lot])[:-1]
        for i, part in zip(lot, np.split(np.asarray(answer["forces"], np.float64), ends), strict=True):
            forces[i] = part
    mean = energy.mean(axis=0) + reference_energies(structures, model.references)
    std = model.scale * energy.std(axis=0, ddof=1) if model.members > 1 else None
    return Answers(mean, np.concatenate([np.zeros((0, 3)), *forces]), std)


def milliseconds(model: Judged, structures: Sequence[Structure]) -> float:
    """Wall time of energy and forces of one structure alone, neighbour list included: median over some, best of five.

    One thread, in this process.
    """
    chosen = [structures[i] for i in np.unique(np.linspace(0, len(structures) - 1, _TIMED).round().astype(int))]
    return 1e3 * float(np.median([min(_seconds(model, structure) for _ in range(_ROUNDS)) for structure in chosen]))


def _seconds(model: Judged, structure: Structure) -> float:
    start = time.perf_counter()
    model.run(collate([build_graph(structure, model.cutoff)]))
    return time.perf_counter() - start


def _of_run(name: str, run: Run, weights: Path) -> Judged:
    config, digest = run.network.config, sha256_of(weights)
    return Judged(
        name=Path(name).resolve().name,
        what=f"the folder of a run, weights {digest[:12]}, with PyTorch",
        digest=digest,
        elements=frozenset(config.elements),
        cutoff=config.cutoff_angstrom,
        references=run.references,
        members=config.members,
        scale=1.0,
        parameters=sum(p.numel() for p in run.network.parameters()),
        bytes=weights.stat().st_size,
        run=network_engine(run.network.eval()),
    )


def _of_published(stored: StoredModel) -> Judged:
    card, graph = stored.potential_card, stored.file("model.onnx")
    return Judged(
        name=f"{card.name} version {card.version}",
        what=f"published, digest {stored.digest[:12]}, with ONNX Runtime as it is served",
        digest=stored.digest,
        elements=frozenset(NUMBERS[symbol] for symbol in card.domain.elements),
        cutoff=card.domain.cutoff_angstrom,
        references=card.atomic_reference_ev,
        members=card.committee.members,
        scale=card.committee.energy_scale,
        parameters=card.training.parameters,
        bytes=graph.stat().st_size,
        run=onnx_engine(graph),
    )


def _lots(graphs: Sequence[Graph]) -> Iterator[list[int]]:
    """Indices in lots of about SLOTS_A_CALL neighbour slots, sorted by degree so that padding is not wasted."""
    lot, full = list[int](), 0
    for i in sorted(range(len(graphs)), key=lambda i: (graphs[i].degree, graphs[i].n_atoms)):
        lot.append(i)
        full += graphs[i].cost
        if full >= SLOTS_A_CALL:
            yield lot
            lot, full = [], 0
    if lot:
        yield lot
