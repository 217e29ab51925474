"""A finished run as a candidate for the gate; its data are read again, so that the card says what made it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from contract.card import Comparison, DataSource, Domain, Metric, Property, Training
from contract.card import Split as SplitRecord
from contract.environments import Environments
from training.baselines import MEAN_PREDICTOR, mean_predictor
from training.calibration import LABELS, calibration_scale
from training.candidate import Candidate, ForceSpread, HeldOut, TaughtBy
from training.checkpoint import Run, load_any_run
from training.domain import training_domain
from training.environments import fit_environments
from training.errors import NotReady
from training.evaluation import (
    force_metrics_by_stratum,
    load_force_spread,
    load_predictions,
    load_strata,
    metrics_by_stratum,
)
from training.importers.ani import AniImport, imported_domain, parts_of
from training.importers.held_out import held_out_parts
from training.importers.hippynn import HippynnImport
from training.out_of_domain import surroundings
from training.pipelines.coarse_admission import coarse_candidate
from training.pipelines.committee import CommitteeConfig
from training.pipelines.distillation import STAND_IN
from training.pipelines.learning import PROPERTIES, learned_parts
from training.pipelines.metal import MetalConfig
from training.pipelines.preparation import Prepared, prepare
from training.pipelines.teacher_student import TeacherStudentConfig, taught_parts
from training.validation.against import properties_of

LICENCE: Final = "BSD-3-Clause"
_HIPNN: Final = [
    "HIP-NN: Lubbers, Smith, Barros, J. Chem. Phys. 148, 241715 (2018)",
    "HIP-NN-TS: Chigaev et al., J. Chem. Phys. 158, 184108 (2023)",
]
CITATIONS: Final = {
    "committee": _HIPNN,
    "distillation": ["Ensemble knowledge distillation: Matin et al., arXiv:2503.14293 (2025)", *_HIPNN],
    "metal": [
        "Active learning from disordered cells: Smith et al., Nat. Commun. 12, 1257 (2021)",
        *_HIPNN,
    ],
    "teacher_student": [
        "Teacher-student training: Matin et al., Digital Discovery (2025), doi:10.1039/D5DD00085H",
        *_HIPNN,
    ],
    "hippynn_import": ["hippynn: github.com/lanl/hippynn", *_HIPNN],
    "ani_import": [
        "ANI: Smith, Isayev, Roitberg, Chem. Sci. 8, 3192 (2017)",
        "ANI-1x: Smith, Nebgen, Lubbers, Isayev, Roitberg, J. Chem. Phys. 148, 241733 (2018)",
        "ANI-1ccx: Smith et al., Nat. Commun. 10, 2903 (2019)",
        "Weights in this form: TorchANI, Gao et al., J. Chem. Inf. Model. 60, 3408 (2020)",
    ],
}
Part = Literal["valid", "test"]


def candidate_of(folder: Path) -> Candidate:
    """Everything the gate and the card need of a run.

    Raises:
        NotReady: the run is not finished, or was imported without held-out labels.
        DataError: its data cannot be read again.
    """
    if not (folder / "predictions.npz").exists():
        raise NotReady(f"{folder} holds no finished run: run `understudy train`, or import with --held-out labels")
    run = load_any_run(folder)
    config = run.record["config"]
    if config["pipeline"] == "coarse_graining":
        return coarse_candidate(run, folder, LICENCE)
    prepared = _prepared(config, run, folder)
    valid, test = (_held_out(prepared, folder, part) for part in ("valid", "test"))
    domain, environments = _domain(config, run, prepared, valid, test)
    return Candidate(
        name=config["name"],
        purpose=config["purpose"],
        network=run.network,
        references=run.references,
        domain=domain,
        data=[DataSource.model_validate(source) for source in run.record["data"]],
        split=SplitRecord.model_validate(run.record["split"]),
        metrics=_metrics(folder, "test"),
        comparisons=_comparisons(prepared, folder),
        training=_training(run),
        valid=valid,
        test=test,
        licence=config.get("licence", LICENCE),
        citation=CITATIONS[config["pipeline"]],
        taught_by=_taught_by(config, folder),
        environments=environments,
        forces_against=LABELS if prepared.dataset.forces is not None else STAND_IN,
        properties=_properties(folder),
    )


def _domain(
    config: dict[str, Any], run: Run, prepared: Prepared, valid: HeldOut, test: HeldOut
) -> tuple[Domain, Environments | None]:
    """What a run was trained for, and the surroundings of its atoms."""
    if config["pipeline"] == "ani_import":
        return imported_domain(AniImport.model_validate(config), run, prepared, _scale(valid, run.references))
    trained_on = prepared.dataset if config["pipeline"] == "hippynn_import" else prepared.part("train")
    cutoff, held_out = run.network.config.cutoff_angstrom, list(valid.structures)
    environments = fit_environments(list(trained_on), held_out, run.network.config.elements, cutoff)
    around = surroundings(environments, test.structures, cutoff)
    std = None if valid.std is None else _scale(valid, run.references) * valid.std
    return training_domain(trained_on, cutoff, std, around), environments


def _taught_by(config: dict[str, Any], folder: Path) -> TaughtBy | None:
    """The teacher's run, which lies beside the student's."""
    if config["pipeline"] not in ("distillation", "teacher_student"):
        return None
    return TaughtBy(config["teacher"], load_any_run(folder.parent / config["teacher"]).record["config_sha256"])


def _prepared(config: dict[str, Any], run: Run, folder: Path) -> Prepared:
    """The data of a run, parted as it was trained."""
    sources: dict[str, Callable[[], Prepared | None]] = {
        "committee": lambda: _of_committee(config),
        "distillation": lambda: _of_committee(load_any_run(folder.parent / config["teacher"]).record["config"]),
        "hippynn_import": lambda: held_out_parts(HippynnImport.model_validate(config).held_out, run.references),
        "ani_import": lambda: parts_of(AniImport.model_validate(config), run),
        "metal": lambda: learned_parts(MetalConfig.model_validate(config), folder, run.references),
        "teacher_student": lambda: taught_parts(TeacherStudentConfig.model_validate(config), folder),
    }
    prepared = sources[config["pipeline"]]()
    if prepared is None:
        raise NotReady(f"{folder} was imported without labels to judge it by: import it again with --held-out")
    return prepared


def _of_committee(config: dict[str, Any]) -> Prepared:
    settings = CommitteeConfig.model_validate(config)
    return prepare(settings.data, settings.split)


def _held_out(prepared: Prepared, folder: Path, part: Part) -> HeldOut:
    frames = prepared.part(part)
    forces = load_force_spread(folder, part)
    return HeldOut(
        list(frames),
        frames.energy,
        load_predictions(folder, part).energy,
        None if forces is None else ForceSpread(*forces),
    )


def _scale(valid: HeldOut, references: dict[str, float]) -> float:
    """What turns the members' spread of the energy into a standard deviation, as the service will; 1 for one member."""
    return 1.0 if valid.std is None else calibration_scale(valid.error(references), valid.std)


def _metrics(folder: Path, part: Part) -> list[Metric]:
    """Errors of the committee mean by stratum: energies, and forces where the data have them."""
    strata = load_strata(folder, part)
    metrics = metrics_by_stratum(load_predictions(folder, part).error, strata)
    with np.load(folder / "predictions.npz") as arrays:
        if f"{part}/target_forces" in arrays:
            error = arrays[f"{part}/forces"] - arrays[f"{part}/target_forces"]
            metrics += force_metrics_by_stratum(error, arrays[f"{part}/sizes"], strata)
    return metrics


def _comparisons(prepared: Prepared, folder: Path) -> list[Comparison]:
    """The mean predictor, and what was trained for comparison on the same split."""
    path = folder / "comparisons.json"
    stored = json.loads(path.read_text()) if path.exists() else []
    others = [Comparison.model_validate(entry) for entry in stored]
    return [mean_predictor(prepared), *(c for c in others if c.name != MEAN_PREDICTOR)]


def _properties(folder: Path) -> list[Property]:
    """What training/validation found of the model and its reference; nothing where it was not computed."""
    path = folder / PROPERTIES
    return properties_of(json.loads(path.read_text())) if path.exists() else []


def _training(run: Run) -> Training:
    record = run.record
    return Training(
        pipeline=record["config"]["pipeline"],
        config_sha256=record["config_sha256"],
        seed=record["config"].get("fit", {}).get("seed", 0),
        parameters=sum(p.numel() for p in run.network.parameters()),
        cpu_seconds=record["cpu_seconds"],
        epochs=record["epochs"],
        revision=record["revision"],
        versions=record["versions"],
    )
