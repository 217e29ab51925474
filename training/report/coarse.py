"""A coarse-graining run in tables and figures: the arrangement of its beads, and the forces on them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.checkpoint import HipNNRun, load_run
from training.fit import Epoch
from training.pipelines.coarse_graining import DISTRIBUTIONS, PREDICTIONS, r_squared
from training.report import figures
from training.report.errors import Table, short
from training.report.folder import histories, require_files
from training.report.summary import duration

Array = NDArray[np.float64]
_FIELDS: Final = {"network": "this force field", "pair": "pair force"}
_NEEDED: Final = ("run.json", "config.yaml", "network.json", "weights.safetensors", PREDICTIONS, "errors.json")


@dataclass(frozen=True, slots=True, eq=False)
class CoarseGrained:
    """A finished coarse-graining run.

    Attributes:
        run: weights and record.
        config: the text of config.yaml.
        histories: the learning curve of each member.
        errors: of each state, as the pipeline wrote them.
        curves: distributions.npz.
        predictions: predictions.npz.
    """

    run: HipNNRun
    config: str
    histories: list[list[Epoch]]
    errors: list[dict[str, Any]]
    curves: Mapping[str, Array]
    predictions: Mapping[str, NDArray[Any]]

    @property
    def states(self) -> list[str]:
        """Names of the states."""
        return [f"{e['state']['kelvin']:g} K, {e['state']['density']:g} g/cm³" for e in self.errors]


def read_coarse(folder: Path) -> CoarseGrained:
    """Read a run's folder.

    Raises:
        IncompleteRun: naming the files that are missing.
    """
    require_files(folder, (*_NEEDED, DISTRIBUTIONS))
    with np.load(folder / DISTRIBUTIONS) as curves, np.load(folder / PREDICTIONS) as predictions:
        return CoarseGrained(
            load_run(folder),
            (folder / "config.yaml").read_text(),
            histories(folder),
            json.loads((folder / "errors.json").read_text()),
            dict(curves),
            dict(predictions),
        )


def headline(finished: CoarseGrained) -> list[tuple[str, str]]:
    """The numbers to know, each with what it is."""
    found = {name: _mean(finished, name, "E_RDF") for name in ("network", "pair", "noise")}
    return [
        (found["network"], "E_RDF of this force field, mean over states"),
        (found["pair"], "E_RDF of the pair force"),
        (found["noise"], "E_RDF between halves of the atoms' frames"),
        (duration(finished.run.record["cpu_seconds"]), "CPU time of the training"),
    ]


def arrangement(finished: CoarseGrained) -> Table:
    """E_RDF, E_ADF and the first peak at each state: noise, pair force, this force field."""
    head = ["state", "E_RDF: noise", "pair force", "this force field", "E_ADF: noise", "pair force", "this force field"]
    rows = [
        [name, *(_error(entry[field], error) for error in ("E_RDF", "E_ADF") for field in ("noise", "pair", "network"))]
        for name, entry in zip(finished.states, finished.errors, strict=True)
    ]
    return Table(head, rows)


def forces(finished: CoarseGrained) -> Table:
    """RMSE and R2 of force components on the test part at each state."""
    p = finished.predictions
    of_bead = np.repeat(p["test/state"], p["test/beads"])
    rows = []
    for s, name in enumerate(finished.states):
        target = p["test/target_forces"][of_bead == s]
        row = [name, short(1e3 * float(np.sqrt(np.mean(target**2))))]
        for field in ("pair_forces", "forces"):
            predicted = p[f"test/{field}"][of_bead == s]
            row += [
                short(1e3 * float(np.sqrt(np.mean((predicted - target) ** 2)))),
                f"{r_squared(predicted, target):.4f}",
            ]
        rows.append(row)
    head = ["state", "size of the labels (meV/Å)", "pair force: RMSE", "R²", "this force field: RMSE", "R²"]
    return Table(head, rows)


def drawn(finished: CoarseGrained) -> dict[str, str]:
    """Every figure of the page as SVG."""
    p, stepwise = finished.predictions, finished.run.record["config"]["fit"]["schedule"] == "plateau"
    points = {
        part: figures.Scatter(
            p[f"{part}/target_forces"].astype(float).ravel(), p[f"{part}/forces"].astype(float).ravel()
        )
        for part in ("valid", "test")
    }
    return {
        "radial": radial_figure(finished),
        "angular": angular_figure(finished),
        "parity": figures.parity(points, "force component", "eV/Å"),
        "curves": figures.learning_curves(finished.histories, steps=stepwise),
    }


def radial_figure(finished: CoarseGrained) -> str:
    """g(r) of atoms, network and pair force, a panel for each state."""
    panels = {name: _curves(finished, s, "g", finished.curves["r"]) for s, name in enumerate(finished.states)}
    return figures.overlaid("radial", panels, "r (Å)", "g(r)")


def angular_figure(finished: CoarseGrained) -> str:
    """Share of angles in each degree, likewise."""
    degrees = np.asarray(np.arange(180) + 0.5, np.float64)
    panels = {name: _curves(finished, s, "p", degrees) for s, name in enumerate(finished.states)}
    return figures.overlaid("angular", panels, "angle (degrees)", "share in a degree")


def commands(config: Mapping[str, Any]) -> list[str]:
    """What to type to make the run again."""
    name = config["name"]
    return [
        f"understudy sample {config['data']['provenance']['name']}.yaml",
        f"understudy train {name}.yaml",
        f"understudy publish {name}",
    ]


def _curves(finished: CoarseGrained, state: int, kind: str, x: Array) -> dict[str, tuple[Array, Array]]:
    labels = {"atoms": "all atoms", **_FIELDS}
    known = {label: finished.curves.get(f"{state}/{field}/{kind}") for field, label in labels.items()}
    return {label: (x, y) for label, y in known.items() if y is not None}


def _error(errors: Mapping[str, float] | None, name: str) -> str:
    return "broke" if errors is None else f"{errors[name]:.4f}"


def _mean(finished: CoarseGrained, field: str, name: str) -> str:
    found = [entry[field] for entry in finished.errors]
    return "broke" if None in found else f"{np.mean([e[name] for e in found]):.4f}"
