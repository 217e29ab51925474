"""Predictions as an extended XYZ file that ASE, OVITO and the training side read back."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from understudy.errors import InvalidStructure
from understudy.predictions import Prediction
from understudy.structures import ASE_HINT

if TYPE_CHECKING:
    from ase import Atoms

_OURS = (
    "energy_std",
    "stress_std",
    "in_domain",
    "domain_verdict",
    "domain_reasons",
    "model",
    "model_version",
    "model_digest",
)
_LABELS = ("energy", "free_energy", "forces", "stress", "energies", "virial", "forces_std")


def write_extxyz(path: str | os.PathLike[str], frames: "Sequence[Atoms]", predictions: Sequence[Prediction]) -> None:
    """Write each frame with its prediction; labels that the frames carried are replaced.

    Per frame: energy, energy_std (eV), stress and, where asked for, stress_std (eV/angstrom^3), in_domain,
    domain_verdict, domain_reasons, model, model_version, model_digest. Per atom: forces and, where asked for,
    forces_std (eV/angstrom).

    Raises:
        InvalidStructure: ASE is missing.
        OSError: the file cannot be written.
    """
    try:
        from ase.io import write
    except ImportError as error:
        raise InvalidStructure(f"{path} was not written.", code="ase_missing", hint=ASE_HINT) from error
    labelled = [_labelled(atoms, prediction) for atoms, prediction in zip(frames, predictions, strict=True)]
    write(os.fspath(path), labelled, format="extxyz")


def _labelled(frame: "Atoms", prediction: Prediction) -> "Atoms":
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms: Atoms = frame.copy()  # type: ignore[no-untyped-call]
    for name in (*_OURS, *_LABELS):
        atoms.info.pop(name, None)
        atoms.arrays.pop(name, None)
    atoms.info.update(_info(prediction))
    if prediction.forces_std is not None:
        atoms.new_array("forces_std", prediction.forces_std)  # type: ignore[no-untyped-call]
    results = {"energy": prediction.energy, "forces": prediction.forces, "stress": prediction.stress}
    atoms.calc = SinglePointCalculator(atoms, **results)  # type: ignore[no-untyped-call]
    return atoms


def _info(prediction: Prediction) -> dict[str, object]:
    info = {
        "energy_std": prediction.energy_std,
        "stress_std": prediction.stress_std,
        "in_domain": prediction.domain.in_domain,
        "domain_verdict": prediction.domain.verdict,
        "domain_reasons": "; ".join(prediction.domain.reasons) or None,
        "model": prediction.model,
        "model_version": prediction.version,
        "model_digest": prediction.digest,
    }
    return {name: value for name, value in info.items() if value is not None}
