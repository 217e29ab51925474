"""A finished coarse-graining run as a candidate for the gate: forces are its labels, and its energies are free ones."""

import json
from pathlib import Path
from typing import Any, Final

import numpy as np

from contract.card import Bead, Comparison, DataSource, Domain, Metric, ThermodynamicState, Training
from contract.card import Split as SplitRecord
from training.baselines import MEAN_PREDICTOR
from training.candidate import Candidate, ForceLabels, HeldOut
from training.checkpoint import Run
from training.coarse.frames import Part
from training.domain import closest_pairs
from training.environments import fit_environments
from training.evaluation import force_metrics
from training.out_of_domain import surroundings
from training.pipelines.coarse_graining import PREDICTIONS, CoarseGrainingConfig, Liquid, r_squared, read_liquid
from training.report.coarse import angular_figure, radial_figure, read_coarse

PAIR: Final = "pair spline, same frames and prior"
HALVES: Final = "two halves of the atoms' frames"
CITATION: Final = [
    "Coarse-graining with HIP-NN-TS: Shinkle et al., J. Chem. Theory Comput. 20, 10524 (2024)",
    "HIP-NN-TS: Chigaev et al., J. Chem. Phys. 158, 184108 (2023)",
    "Force matching: Noid et al., J. Chem. Phys. 128, 244114 (2008)",
]


def coarse_candidate(run: Run, folder: Path, licence: str) -> Candidate:
    """Everything the gate and the card need of a coarse-graining run."""
    config = CoarseGrainingConfig.model_validate(run.record["config"])
    liquid, finished = read_liquid(config), read_coarse(folder)
    cutoff = config.network.cutoff_angstrom
    train, held_out = liquid.parts["train"].structures, liquid.parts["valid"].structures
    environments = fit_environments(train, held_out, config.network.elements, cutoff)
    valid, test = (_held_out(liquid, folder, part) for part in ("valid", "test"))
    return Candidate(
        name=config.name,
        purpose=config.purpose,
        network=run.network,
        references=run.references,
        domain=Domain(
            elements=[config.bead.symbol],
            cutoff_angstrom=cutoff,
            min_distance_angstrom=closest_pairs(train, cutoff),
            surroundings=surroundings(environments, test.structures, cutoff),
            beads={config.bead.symbol: Bead(**config.bead.model_dump(exclude={"symbol"}))},
            states=[ThermodynamicState(kelvin=s.kelvin, density_g_cm3=s.density) for s in liquid.states],
            periodic=True,
            description=f"{len(train)} periodic frames of {config.bead.label} beads at {len(liquid.states)} states",
        ),
        data=[DataSource.model_validate(source) for source in run.record["data"]],
        split=SplitRecord.model_validate(run.record["split"]),
        metrics=_metrics(folder, "network", "forces"),
        comparisons=[_no_force(folder), _pair(folder), _halves(folder)],
        training=_training(run),
        valid=valid,
        test=test,
        licence=licence,
        citation=CITATION,
        environments=environments,
        energy_is="free energy",
        figures={"radial": radial_figure(finished), "angular": angular_figure(finished)},
    )


def _held_out(liquid: Liquid, folder: Path, part: Part) -> HeldOut:
    with np.load(folder / PREDICTIONS) as arrays:
        labels = ForceLabels(arrays[f"{part}/target_forces"], arrays[f"{part}/forces"])
        return HeldOut(liquid.parts[part].structures, None, arrays[f"{part}/energy"], None, labels)


def _metrics(folder: Path, field: str, forces: str | None) -> list[Metric]:
    """Force errors on the test part, and the arrangement at each state under dynamics, of one force field."""
    entries = _errors(folder)
    found = [] if forces is None else _force_metrics(folder, forces, entries)
    for entry in entries:
        if entry[field] is not None:
            found += [
                Metric(name=f"{name} ({_name(entry)})", value=entry[field][name], unit="1", count=entry["frames"])
                for name in ("E_RDF", "E_ADF")
            ]
    return found


def _force_metrics(folder: Path, forces: str, entries: list[dict[str, Any]]) -> list[Metric]:
    with np.load(folder / PREDICTIONS) as arrays:
        target, state = arrays["test/target_forces"], arrays["test/state"]
        predicted = np.zeros_like(target) if forces == "zero" else arrays[f"test/{forces}"]
        of_bead = np.repeat(state, arrays["test/beads"])
    metrics = force_metrics(predicted - target, len(state))
    for s, entry in enumerate(entries):
        value = r_squared(predicted[of_bead == s], target[of_bead == s])
        metrics.append(
            Metric(name=f"R2 of forces ({_name(entry)})", value=value, unit="1", count=int((state == s).sum()))
        )
    return metrics


def _no_force(folder: Path) -> Comparison:
    metrics = _force_metrics(folder, "zero", _errors(folder))
    return Comparison(name=MEAN_PREDICTOR, metrics=metrics, notes="No force at all, the mean of the labels.")


def _pair(folder: Path) -> Comparison:
    notes = "One force between two beads: least squares on the training frames, with the same cutoff and prior."
    return Comparison(name=PAIR, metrics=_metrics(folder, "pair", "pair_forces"), notes=notes)


def _halves(folder: Path) -> Comparison:
    notes = (
        "The atoms' frames at each state, first half against second half: the noise that no force field can be told to "
        "beat. E_RDF is the mean of |g - g'|, E_ADF the total variation of the angles; R2 ends far below 1, as the "
        "atoms that are left out make forces scatter about their mean."
    )
    return Comparison(name=HALVES, metrics=_metrics(folder, "noise", None), notes=notes)


def _errors(folder: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((folder / "errors.json").read_text())
    return entries


def _name(entry: dict[str, Any]) -> str:
    return f"{entry['state']['kelvin']:g} K, {entry['state']['density']:g} g/cm3"


def _training(run: Run) -> Training:
    record = run.record
    return Training(
        pipeline=record["config"]["pipeline"],
        config_sha256=record["config_sha256"],
        seed=record["config"]["fit"]["seed"],
        parameters=sum(p.numel() for p in run.network.parameters()),
        cpu_seconds=record["cpu_seconds"],
        epochs=record["epochs"],
        revision=record["revision"],
        versions=record["versions"],
    )
