"""Labels that an imported network is judged by, which it has not seen and which are parted at random; its record."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from pydantic import BaseModel

from contract.card import Metric
from training.checkpoint import Run, save_run
from training.data import DataSpec, load
from training.data.splits import Split
from training.evaluation import energy_metrics, force_metrics, predict_forces, save_predictions
from training.importers.errors import MissingSettings
from training.networks.potential import Potential
from training.pipelines.preparation import Prepared
from training.pipelines.resumption import write_config
from training.record import config_sha256, revision, versions

_METHOD: Final = "trained elsewhere on other labels; these are parted at random"
_FEWEST_FRAMES: Final = 2


def held_out_parts(data: DataSpec | None, references: dict[str, float]) -> Prepared | None:
    """A fifth of the labels as the valid part, the rest as the test part, nothing to train on.

    Args:
        data: of the import; None is returned if it names none.
        references: of the imported network, eV per element.

    Raises:
        MissingSettings: fewer than two frames.
        DataError: labels that cannot be read or are unsound.
    """
    if data is None:
        return None
    dataset = load(data)
    if len(dataset) < _FEWEST_FRAMES:
        raise MissingSettings(f"{len(dataset)} held-out frame; give at least {_FEWEST_FRAMES}")
    order = np.random.default_rng(0).permutation(len(dataset))
    count = max(1, len(dataset) // 5)
    valid, test = np.sort(order[:count]), np.sort(order[count:])
    nothing = np.zeros(0, np.int64)
    return Prepared(dataset, Split(nothing, valid, test, len(dataset), 1, 0, _METHOD), references)


def import_record(config: BaseModel, network: Potential, held_out: Prepared | None) -> dict[str, Any]:
    """What an import writes about itself, as a training run does; its data are the labels that it is judged by."""
    record: dict[str, Any] = {
        "config": config.model_dump(mode="json"),
        "config_sha256": config_sha256(config),
        "data": [],
        "metrics": [],
        "epochs": 0,
        "cpu_seconds": 0.0,
        "versions": versions(),
        "revision": revision(),
    }
    if held_out is None:
        return record
    return record | {
        "data": [source.model_dump() for source in held_out.dataset.sources],
        "split": held_out.split.record().model_dump(),
        "metrics": [metric.model_dump() for metric in held_out_metrics(network, held_out)],
    }


def save_import(folder: Path, config: BaseModel, run: Run, held_out: Prepared | None) -> None:
    """Write an imported run, its configuration, and its answers on the held-out labels where there are any."""
    write_config(config, folder)
    save_run(folder, run)
    if held_out is not None:
        save_predictions(folder, run.network, held_out)


def held_out_metrics(network: Potential, held_out: Prepared) -> list[Metric]:
    """Errors of energies, and of forces where there are any, on the test part."""
    graphs = held_out.graphs("test", network.config.cutoff_angstrom)
    answer, forces = predict_forces(network, graphs)
    metrics = energy_metrics(answer.error)
    if graphs.forces is None:
        return metrics
    return metrics + force_metrics(forces - np.concatenate(graphs.forces), len(graphs))
