"""From a trained candidate to a served model: export, examine, describe, admit. What fails leaves no trace."""

import copy
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pydantic import TypeAdapter, ValidationError
from rich.console import Console
from rich.status import Status

from contract.card import (
    BatchingCurve,
    Check,
    Committee,
    Memory,
    ModelCard,
    Name,
    Teacher,
    Version,
    checked_card,
)
from contract.environments import ENVIRONMENTS
from contract.errors import InvalidCard
from contract.graphs import build_graph, collate
from contract.repository import ModelRepository, describe_files
from contract.structures import Structure
from contract.units import POTENTIAL_SIGNS, POTENTIAL_UNITS
from training.calibration import calibrate
from training.candidate import Candidate
from training.export.potential import OPSET, export_potential, write_reference
from training.gate.batching import batching_curve
from training.gate.engines import Arrays, onnx_engine
from training.gate.errors import OutdatedVersion
from training.gate.gate import admit, admit_files
from training.gate.memory import working_memory
from training.gate.samples import reference_structures
from training.gate.submission import EVERYDAY
from training.model_card import write_model_card
from training.networks.hipnn import HipNNConfig
from training.networks.potential import architecture
from training.record import versions
from training.teacher import teacher_of

MEMORY_PER_CALL: Final = 4e9
_EXPORTERS: Final = ("torch", "onnx", "onnxscript", "onnxruntime")


def publish(candidate: Candidate, repository: ModelRepository, version: str | None = None) -> Path:
    """Export a candidate, examine the exported files, and place them in the repository with their card.

    Args:
        candidate: a trained model and what is known of it.
        repository: where it is to be served from.
        version: default one above the highest that is there.

    Returns:
        The model's folder in the repository.

    Raises:
        Refused: naming each check that failed, what was measured and what is allowed.
        OutdatedVersion: a version that is not above those that are there.
        InvalidCard: a name, a version or a field of the card that no repository can hold.
    """
    version = next_version(repository, candidate.name, version)
    subject = f"{candidate.name} version {version}"
    with TemporaryDirectory() as name, _stages() as stage:
        root, folder = Path(name), Path(name) / version
        folder.mkdir()
        stage.update(f"exporting {subject}: minutes for a large committee")
        export_potential(copy.deepcopy(candidate.network), folder)
        if candidate.environments is not None:
            candidate.environments.save(folder / ENVIRONMENTS)
        write_reference(onnx_engine(folder / EVERYDAY), _reference_inputs(candidate), folder / "reference.npz")
        stage.update(f"examining {subject}")
        checks = admit_files(folder, subject)
        teacher = teacher_of(candidate, folder / EVERYDAY, repository)
        card = _card(candidate, version, root, _cost(candidate, folder), checks, teacher)
        checks += admit(card, folder, copy.deepcopy(candidate.network), candidate.test)
        card = card.model_copy(update={"checks": checks})
        write_model_card(card, candidate, root)
        return repository.publish(card, root)


def _stages() -> Status:
    return Console(stderr=True).status("")


def next_version(repository: ModelRepository, name: str, wanted: str | None = None) -> str:
    """The version's number; name and number are checked before minutes are spent on the export."""
    for what, kind, value in (("name", Name, name), ("version", Version, wanted or "1")):
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            raise InvalidCard(f"{what} '{value}' cannot be published: {error.errors()[0]['msg']}") from None
    highest = max(map(int, repository.versions(name)), default=0)
    if wanted is not None and int(wanted) <= highest:
        raise OutdatedVersion(f"{name} has a version {highest}: publish it as {highest + 1} or higher")
    return wanted or str(highest + 1)


def _typical(candidate: Candidate) -> Sequence[Structure]:
    """Test frames; without any, which the gate will say, shapes of its own."""
    return candidate.test.structures or reference_structures([], candidate.network.config.elements)


def _reference_inputs(candidate: Candidate) -> Arrays:
    structures = reference_structures(candidate.test.structures, candidate.network.config.elements)
    return collate([build_graph(s, candidate.domain.cutoff_angstrom) for s in structures])


def _cost(candidate: Candidate, folder: Path) -> BatchingCurve:
    """Time and memory of a call, on structures of the kind that the model is for."""
    typical, cutoff = _typical(candidate), candidate.domain.cutoff_angstrom
    memory = {graph.name: working_memory(graph, typical, cutoff) for graph in sorted(folder.glob("*.onnx"))}
    return batching_curve(folder / EVERYDAY, typical, cutoff).model_copy(update={"memory": memory})


def _card(
    candidate: Candidate, version: str, root: Path, curve: BatchingCurve, checks: list[Check], teacher: Teacher | None
) -> ModelCard:
    network = candidate.network.config
    return checked_card(
        name=candidate.name,
        version=version,
        family="potential",
        purpose=candidate.purpose,
        architecture=architecture(network),
        energy_is=candidate.energy_is,
        units=POTENTIAL_UNITS,
        signs=POTENTIAL_SIGNS,
        domain=candidate.domain,
        atomic_reference_ev=candidate.references,
        data=list(candidate.data),
        split=candidate.split,
        metrics=list(candidate.metrics),
        compared_with=list(candidate.comparisons),
        properties=list(candidate.properties),
        committee=committee(candidate),
        training=candidate.training,
        teacher=teacher,
        batching=curve,
        max_slots=max_slots(network) if isinstance(network, HipNNConfig) else measured_slots(curve.memory[EVERYDAY]),
        checks=checks,
        files=describe_files(root, version),
        exporter={"opset": str(OPSET)} | {k: v for k, v in versions().items() if k in _EXPORTERS},
        created=datetime.now(UTC).date(),
        licence=candidate.licence,
        citation=list(candidate.citation),
    )


def committee(candidate: Candidate) -> Committee:
    """How far the members' spread can be trusted: scales from the validation part, their coverage on the test part."""
    valid, test, references = candidate.valid, candidate.test, candidate.references
    members = candidate.network.config.members
    if valid.std is None or test.std is None or test.energy is None:
        return Committee(members=members)
    energy = calibrate((valid.error(references), valid.std), (test.error(references), test.std), members)
    if valid.forces is None or test.forces is None:
        return Committee(members=members, energy=energy)
    forces = calibrate(valid.forces, test.forces, members, candidate.forces_against)
    return Committee(members=members, energy=energy, forces=forces)


def measured_slots(memory: Memory) -> int:
    """Neighbour slots that fit into about 4 GB a call by what one was measured to take, at 8 slots an atom."""
    return int(MEMORY_PER_CALL / (memory.bytes_per_slot + memory.bytes_per_atom / 8.0))


def max_slots(network: HipNNConfig) -> int:
    """Neighbour slots that fit into about 4 GB a call.

    Measured with ONNX Runtime 1.31 on networks of 64 and 180 components (C times sensitivities), 1 to 8 members: 10
    float32 a slot and component, and 8.5 bytes an atom, component, feature and member, at 8 slots an atom.
    """
    components = {0: 1, 1: 4, 2: 9}[network.order] * network.sensitivities
    per_slot = 40.0 * components
    per_atom = 8.5 * components * network.features * network.members
    return int(MEMORY_PER_CALL / (per_slot + per_atom / 8.0))
