"""From a trained candidate to a served model: export, examine, describe, admit. What fails leaves no trace."""

import copy
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from contract.card import BatchingCurve, Check, Committee, Coverage, ModelCard
from contract.errors import ModelNotFound
from contract.repository import ModelRepository, describe_files
from contract.units import POTENTIAL_SIGNS, POTENTIAL_UNITS
from training.calibration import NOMINAL, calibration_factor, coverage, rank_correlation
from training.candidate import Candidate
from training.export.potential import OPSET, export_potential, write_reference
from training.gate.batching import batching_curve
from training.gate.errors import OutdatedVersion
from training.gate.gate import admit, admit_files
from training.gate.submission import EVERYDAY, Submission
from training.model_card import write_model_card
from training.networks.hipnn import HipNNConfig
from training.record import versions

MEMORY_PER_CALL: Final = 4e9
_EXPORTERS: Final = ("torch", "onnx", "onnxscript", "onnxruntime")


def publish(candidate: Candidate, repository: ModelRepository, version: str | None = None) -> Path:
    """Export a candidate, examine the exported files, and place them in the repository with their card.

    Args:
        candidate: a trained model and what is known of it.
        repository: where it is to be served from.
        version: default one above the version that is there.

    Returns:
        The model's folder in the repository.

    Raises:
        Refused: naming each check that failed, what was measured and what is allowed.
        OutdatedVersion: a version that is not above the one that is served.
    """
    version = _next_version(repository, candidate.name, version)
    with TemporaryDirectory() as name:
        root, folder = Path(name), Path(name) / version
        folder.mkdir()
        export_potential(copy.deepcopy(candidate.network), folder)
        curve = batching_curve(folder / EVERYDAY, candidate.test.structures, candidate.domain.cutoff_angstrom)
        draft = _card(candidate, version, root, curve, [])
        opened = Submission.of(draft, folder, copy.deepcopy(candidate.network), candidate.test)
        write_reference(opened.everyday, opened.reference, folder / "reference.npz")
        checks = admit_files(folder, f"{candidate.name} version {version}")
        card = _card(candidate, version, root, curve, checks)
        checks += admit(card, folder, copy.deepcopy(candidate.network), candidate.test)
        card = card.model_copy(update={"checks": checks})
        write_model_card(card, candidate, root)
        return repository.publish(card, root)


def _next_version(repository: ModelRepository, name: str, wanted: str | None) -> str:
    try:
        served = int(repository.load(name).card.version)
    except ModelNotFound:
        served = 0
    if wanted is not None and int(wanted) <= served:
        raise OutdatedVersion(f"{name} is served in version {served}: publish it as {served + 1} or higher")
    return wanted or str(served + 1)


def _card(candidate: Candidate, version: str, root: Path, curve: BatchingCurve, checks: list[Check]) -> ModelCard:
    network = candidate.network.config
    return ModelCard.model_construct(
        name=candidate.name,
        version=version,
        family="potential",
        purpose=candidate.purpose,
        architecture={"network": "HIP-NN-TS" if network.order else "HIP-NN", **network.model_dump()},
        units=POTENTIAL_UNITS,
        signs=POTENTIAL_SIGNS,
        domain=candidate.domain,
        atomic_reference_ev=candidate.references,
        data=list(candidate.data),
        split=candidate.split,
        metrics=list(candidate.metrics),
        compared_with=list(candidate.comparisons),
        committee=committee(candidate),
        training=candidate.training,
        batching=curve,
        max_slots=max_slots(network),
        checks=checks,
        files=describe_files(root, version),
        exporter={"opset": str(OPSET)} | {k: v for k, v in versions().items() if k in _EXPORTERS},
        created=datetime.now(UTC).date(),
        licence=candidate.licence,
        citation=list(candidate.citation),
    )


def committee(candidate: Candidate) -> Committee:
    """How far the members' spread can be trusted: a factor from the validation part, its coverage on the test part."""
    valid, test, references = candidate.valid, candidate.test, candidate.references
    members = candidate.network.config.members
    if valid.std is None or test.std is None:
        return Committee(members=members)
    factor = calibration_factor(valid.error(references), valid.std)
    error, std = test.error(references), test.std
    held = [
        Coverage(nominal=level, observed=coverage(error, factor * std, level), count=len(test)) for level in NOMINAL
    ]
    return Committee(
        members=members, energy_calibration=factor, coverage=held, rank_correlation=rank_correlation(error, std)
    )


def max_slots(network: HipNNConfig) -> int:
    """Neighbour slots that fit into about 4 GB a call: 7 float32 a slot and component, and what each atom keeps."""
    components = {0: 1, 1: 4, 2: 9}[network.order] * network.sensitivities
    per_slot = 28.0 * components
    per_atom = 6.0 * components * network.features * network.members
    return int(MEMORY_PER_CALL / (per_slot + per_atom / 8.0))
