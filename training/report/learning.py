"""report.html of active learning: what each generation found, held-out errors, properties beside the reference."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from contract.card import DataSource, Split
from training.evaluation import Predictions
from training.fit import Epoch
from training.pipelines.metal import survival
from training.report.errors import Table, short
from training.report.figures import BLUE, GREY, MEMBER_COLOURS, VERMILLION, Scatter, drawn, learning_curves, parity
from training.report.folder import IncompleteRun, histories
from training.report.page import template, write_page
from training.report.summary import duration
from training.report.trust import Trust, trust

USELESS: Final = 0.2
_NEEDED: Final = ("run.json", "config.yaml", "generations.json", "predictions.npz")
_REASONS: Final = ("energy", "force", "close", "survived", "not finite")


@dataclass(frozen=True, slots=True)
class Learnt:
    """What a finished loop left in its folder.

    Attributes:
        valid, test: what the committee says of both halves of the held-out frames.
        histories: learning curves of the last committee's members.
        properties: beside the reference's; None where they were not computed.
    """

    config_text: str
    record: dict[str, Any]
    ended: str
    thresholds: dict[str, float]
    generations: list[dict[str, Any]]
    valid: Mapping[str, np.ndarray]
    test: Mapping[str, np.ndarray]
    histories: list[list[Epoch]]
    properties: dict[str, Any] | None


def write_learning_report(folder: Path) -> Path:
    """Write report.html of a finished loop (training/pipelines/learning.py) into its folder, in one step.

    Raises:
        IncompleteRun: naming the files that are missing.
    """
    return write_page(render(read_learnt(folder)), folder / "report.html")


def read_learnt(folder: Path) -> Learnt:
    """Read the folder of a finished loop.

    Raises:
        IncompleteRun: naming the files that are missing.
    """
    if missing := [name for name in _NEEDED if not (folder / name).is_file()]:
        raise IncompleteRun(f"{folder} has no {', '.join(missing)}: not a finished loop. `understudy learn` goes on.")
    found = json.loads((folder / "generations.json").read_text())
    path = folder / "properties.json"
    last = sorted(folder.glob("generation-*"))[-1:]
    return Learnt(
        (folder / "config.yaml").read_text(),
        json.loads((folder / "run.json").read_text()),
        found["ended"],
        found["thresholds"],
        found["generations"],
        _part(folder, "valid"),
        _part(folder, "test"),
        histories(last[0]) if last else [],
        json.loads(path.read_text()) if path.exists() else None,
    )


def _part(folder: Path, name: str) -> dict[str, np.ndarray]:
    with np.load(folder / "predictions.npz") as arrays:
        return {key.removeprefix(f"{name}/"): arrays[key] for key in arrays.files if key.startswith(f"{name}/")}


def render(learnt: Learnt) -> str:
    """The page as HTML."""
    record, properties = learnt.record, learnt.properties
    config = record["config"]
    trusted = trust(*(Predictions(part["energy"], part["target"]) for part in (learnt.valid, learnt.test)))
    return template("learning.html").render(
        config=config,
        config_text=learnt.config_text,
        record=record,
        ended=learnt.ended,
        thresholds=learnt.thresholds,
        generations=learnt.generations,
        headline=_headline(learnt),
        by_generation=by_generation(learnt.generations),
        useless=sum(g.get("spearman", 1.0) < USELESS for g in learnt.generations),
        held_out=held_out(learnt),
        members=config["network"]["members"],
        trust=trusted,
        properties=None if properties is None else property_table(properties),
        curve_rms=None if properties is None else properties["cold_curve"]["rms_mev_an_atom"],
        melt=None if properties is None else properties["melt"],
        sources=[DataSource.model_validate(source) for source in record["data"]],
        split=Split.model_validate(record["split"]),
        cost=duration(record["cpu_seconds"]),
        commands=[f"understudy learn {config['name']}.yaml", f"understudy publish {config['name']}"],
        figures={name: Markup(svg) for name, svg in _figures(learnt, trusted).items()},
    )


def by_generation(generations: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each generation: labels, survival, reasons, errors of the new labels before they were learnt."""
    head = ["generation", "labels after it", "new", "survival (fs)", *(f"ended: {reason}" for reason in _REASONS)]
    head += ["force RMSE (meV/Å)", "energy RMSE (meV/atom)", "Spearman"]
    rows = []
    for g in generations:
        ends = [str(sum(wave.get(reason, 0) for wave in g["waves"])) for reason in _REASONS]
        errors = [1e3 * g.get(name, np.nan) for name in ("force_rmse", "energy_rmse_an_atom")]
        row = [str(g["generation"]), f"{g['labels']:,}", str(g["new_labels"]), short(survival(g)), *ends]
        rows.append([*row, *map(short, errors), f"{g.get('spearman', np.nan):.2f}"])
    return Table(head, rows)


def held_out(learnt: Learnt) -> Table:
    """Errors of the committee's mean on the test part."""
    energy = 1e3 * (learnt.test["energy"].mean(axis=0) - learnt.test["target"]) / _atoms(learnt)
    forces = 1e3 * (learnt.test["forces"] - learnt.test["target_forces"])
    rows = [
        [name, short(float(np.abs(error).mean())), short(float(np.sqrt((error**2).mean())))]
        for name, error in (("energy (meV/atom)", energy), ("force components (meV/Å)", forces))
    ]
    return Table(["held-out frames", "MAE", "RMSE"], rows)


def property_table(properties: Mapping[str, Any]) -> Table:
    """Committee and reference side by side."""
    rows = []
    for name, p in properties["scalars"].items():
        off = 100 * (p["model"] - p["reference"]) / abs(p["reference"])
        rows.append(
            [f"{name.replace('_', ' ')} ({p['unit']})", f"{p['model']:.4g}", f"{p['reference']:.4g}", f"{off:+.1f} %"]
        )
    return Table(["property", "committee", "reference", "difference"], rows)


def _atoms(learnt: Learnt) -> float:
    """Of one frame; all frames of a loop have the same number."""
    return float(len(learnt.test["forces"]) / len(learnt.test["target"]))


def _headline(learnt: Learnt) -> list[tuple[str, str]]:
    last = learnt.generations[-1]
    rows = held_out(learnt).rows
    return [
        (f"{last['labels']:,}", "labels in all"),
        (f"{short(survival(last))} fs", "mean survival in the last generation"),
        (f"{rows[1][2]} meV/Å", "force RMSE on held-out frames"),
        (f"{rows[0][2]} meV", "energy RMSE an atom on held-out frames"),
        (f"{last.get('spearman', np.nan):.2f}", "rank correlation of spread and error, last generation"),
    ]


def _figures(learnt: Learnt, trusted: Trust | None) -> dict[str, str]:
    points = Scatter(learnt.test["target_forces"].ravel(), learnt.test["forces"].ravel().astype(float))
    made = {
        "generations": drawn("generations", 8.0, 6.0, lambda figure: _generations(figure, learnt.generations)),
        "forces": parity({"test": points}, "force component", "eV/Å"),
    }
    if any(g.get("force_rmse_by_frame") for g in learnt.generations):
        made["spread"] = drawn("spread", 6.4, 4.2, lambda figure: _spread(figure.subplots(), learnt.generations))
    if trusted is not None:
        made["calibration"] = trusted.figure
    if learnt.histories:
        steps = learnt.record["config"]["fit"]["schedule"] == "plateau"
        made["curves"] = learning_curves(learnt.histories, steps=steps)
    if (properties := learnt.properties) is not None:
        made["properties"] = drawn("properties", 9.2, 3.8, lambda figure: _properties(figure, properties))
    return made


def _generations(figure: Figure, generations: Sequence[Mapping[str, Any]]) -> None:
    numbers = [g["generation"] for g in generations]
    rows = (
        ("survival (fs)", [survival(g) for g in generations], BLUE),
        ("force RMSE of\nnew labels (eV/Å)", [g.get("force_rmse", np.nan) for g in generations], VERMILLION),
        ("Spearman", [g.get("spearman", np.nan) for g in generations], GREY),
    )
    for axes, (label, values, colour) in zip(figure.subplots(3, 1, sharex=True), rows, strict=True):
        axes.plot(numbers, values, "o-", color=colour, lw=1.8, ms=6)
        axes.set(ylabel=label, ylim=(min(0.0, *_finite(values)), None))
    axes.set(xlabel="generation", ylim=(min(0.0, *_finite(rows[2][1])), 1.0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _finite(values: Sequence[float]) -> list[float]:
    return [0.0, *(float(v) for v in values if np.isfinite(v))]


def _spread(axes: Axes, generations: Sequence[Mapping[str, Any]]) -> None:
    for g in generations:
        colour = MEMBER_COLOURS[(g["generation"] - 1) % len(MEMBER_COLOURS)]
        spread, error = g.get("force_std_by_frame", []), g.get("force_rmse_by_frame", [])
        axes.plot(spread, error, "o", color=colour, ms=4, alpha=0.7, label=f"generation {g['generation']}")
    axes.set(
        xscale="log", yscale="log", xlabel="spread of the force components, mean (eV/Å)",
        ylabel="RMSE of the forces (eV/Å)",
    )  # fmt: skip
    axes.legend()


def _properties(figure: Figure, properties: Mapping[str, Any]) -> None:
    left, right = figure.subplots(1, 2)
    curve, melt = properties["cold_curve"], properties["melt"]
    for axes, x, both in ((left, curve["lattice_constant"], curve), (right, melt["r"], melt)):
        axes.plot(x, both["reference"], color=GREY, lw=3.5, alpha=0.6, label="reference")
        axes.plot(x, both["model"], color=BLUE, lw=1.6, label="committee")
        axes.legend()
    left.set(xlabel="lattice constant (Å)", ylabel="energy (eV/atom)", title="crystal")
    right.set(xlabel="distance (Å)", ylabel="g(r)", title=f"melt at {melt['kelvin']:.0f} K")
