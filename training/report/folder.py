"""What a finished training run left in its folder."""

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.card import Comparison, Metric
from contract.errors import UnderstudyError
from training.baselines import MEAN_PREDICTOR, mean_predictor_of
from training.checkpoint import HipNNRun, load_run
from training.evaluation import Predictions, Strata, energy_metrics, force_metrics, load_strata
from training.fit import Epoch

Array = NDArray[np.float64]

_NEEDED: Final = (
    "run.json",
    "config.yaml",
    "network.json",
    "references.json",
    "weights.safetensors",
    "predictions.npz",
)


class IncompleteRun(UnderstudyError):
    """A folder that does not hold a finished training run."""


@dataclass(frozen=True, slots=True)
class Part:
    """What the run answered on one part of the data.

    Attributes:
        energies: of all members, atomic references subtracted.
        reference: eV [n], as the data have them.
        forces: eV/angstrom [A, 3], of the mean; None where the data have none.
        target_forces: likewise, of the data.
        sizes: atoms of each frame [n].
        strata: frames whose errors are told apart, masks [n] by name.
    """

    energies: Predictions
    reference: Array
    forces: Array | None
    target_forces: Array | None
    sizes: NDArray[np.int64]
    strata: Strata

    @property
    def above(self) -> Array:
        """Reference energies beside the atomic references, above the lowest frame, eV [n]."""
        return np.asarray(self.energies.target - self.energies.target.min())

    @property
    def force_error(self) -> Array | None:
        """Error of the forces of the mean, eV/angstrom [A, 3]; None where the data have none."""
        if self.forces is None or self.target_forces is None:
            return None
        return np.asarray(self.forces - self.target_forces, np.float64)

    def metrics(self) -> list[Metric]:
        """Errors of the mean energy and of its forces."""
        found = energy_metrics(self.energies.error)
        return found if self.force_error is None else found + force_metrics(self.force_error, len(self.reference))


@dataclass(frozen=True, slots=True)
class Finished:
    """A finished run.

    Attributes:
        run: weights, references and record.
        config: the text of config.yaml.
        histories: a learning curve for every network that was fitted by itself: one for a committee, one for each
            member of a student.
        valid: the part that chose the weights.
        test: the part that nothing saw.
        comparisons: what others achieve on the test part, the mean predictor first.
    """

    run: HipNNRun
    config: str
    histories: list[list[Epoch]]
    valid: Part
    test: Part
    comparisons: list[Comparison]

    @property
    def members(self) -> int:
        """Networks whose spread is the uncertainty."""
        return self.run.network.config.members

    @property
    def parts(self) -> dict[str, Part]:
        """The parts by name."""
        return {"valid": self.valid, "test": self.test}


def read_finished(folder: Path) -> Finished:
    """Read a run's folder.

    Raises:
        IncompleteRun: naming the files that are missing.
    """
    require_files(folder, _NEEDED)
    test = _part(folder, "test")
    return Finished(
        load_run(folder),
        (folder / "config.yaml").read_text(),
        histories(folder),
        _part(folder, "valid"),
        test,
        _comparisons(folder / "comparisons.json", test),
    )


def require_files(folder: Path, needed: Sequence[str]) -> None:
    """Files of a finished run, and a learning curve.

    Raises:
        IncompleteRun: naming the files that are missing.
    """
    missing = [name for name in needed if not (folder / name).is_file()]
    if not _history_paths(folder):
        missing.append("history.csv")
    if missing:
        raise IncompleteRun(
            f"{folder} has no {', '.join(missing)}: not a finished training run. `understudy train` with its "
            "configuration goes on where it was."
        )


def histories(folder: Path) -> list[list[Epoch]]:
    """A learning curve for every network that was fitted by itself."""
    return [_history(path) for path in _history_paths(folder)]


def _part(folder: Path, name: str) -> Part:
    with np.load(folder / "predictions.npz") as arrays:
        energies = Predictions(arrays[f"{name}/energy"], arrays[f"{name}/target"])
        return Part(
            energies,
            arrays[f"{name}/reference"],
            arrays.get(f"{name}/forces"),
            arrays.get(f"{name}/target_forces"),
            arrays[f"{name}/sizes"],
            load_strata(folder, name),
        )


def _comparisons(path: Path, test: Part) -> list[Comparison]:
    stored = [Comparison.model_validate(entry) for entry in json.loads(path.read_text())] if path.exists() else []
    if all(entry.name != MEAN_PREDICTOR for entry in stored):
        stored.append(mean_predictor_of(-test.energies.target, test.target_forces, test.sizes, test.strata))
    return sorted(stored, key=lambda entry: entry.name != MEAN_PREDICTOR)


def _history_paths(folder: Path) -> list[Path]:
    together = folder / "history.csv"
    return [together] if together.exists() else sorted(folder.glob("member-*/history.csv"), key=_member_number)


def _member_number(path: Path) -> int:
    return int(path.parent.name.rpartition("-")[2])


def _history(path: Path) -> list[Epoch]:
    with path.open(newline="") as stream:
        return [
            Epoch(
                epoch=int(line["epoch"]),
                train=float(line["train"]),
                valid=float(line["valid"]),
                batch_size=int(line["batch_size"]),
                learning_rate=float(line["learning_rate"]),
                cpu_seconds=float(line["cpu_seconds"]),
                wall_seconds=float(line["wall_seconds"]),
            )
            for line in csv.DictReader(stream)
        ]
