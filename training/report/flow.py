"""The report of a run that predicts flow through porous media: parity of permeabilities, slices of fields, errors."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray

from training.calibration import conformal, scores
from training.files import read_json
from training.flow_evaluation import (
    MEAN,
    baselines,
    comparisons,
    load_tables,
    log_error,
    log_spread,
    network_permeability,
    permeability_metrics,
    test_metrics,
)
from training.pipelines.permeability import FlowImage, PermeabilityTraining, flow_image, load_committee, part_labels
from training.report.errors import Table, short
from training.report.figures import GREY, MEMBER_COLOURS, Spread, calibration, drawn
from training.report.page import template, write_page
from training.report.summary import duration

Array = NDArray[np.float64]
_MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
_SHOWN: Final = 3


def write_flow_report(folder: Path) -> Path:
    """Write report.html, parity.svg and slices.png of a finished run into its folder."""
    config, committee = load_committee(folder)
    tables = load_tables(folder)
    (folder / "parity.svg").write_text(parity_figure(tables))
    first = {label.facts["family"]: label for label in reversed(part_labels(config)["test"])}
    shown = [flow_image(first[family], config.network.divisor) for family in sorted(first)[:_SHOWN]]
    (folder / "slices.png").write_bytes(slices_figure([(image, _velocity(committee, image)) for image in shown]))
    return write_page(_page(folder, config, tables), folder / "report.html")


def parity_figure(tables: Mapping[str, Mapping[str, NDArray[Any]]]) -> str:
    """Predicted against solved permeability of the test part, by family, beside the best simple formula; SVG."""
    test = tables["test"]
    simple = {name: k for name, k in baselines(tables).items() if name != MEAN}
    best = min(simple, key=lambda name: permeability_metrics(simple[name], test["permeability"])[0].value)
    panels = {"committee of MS-Nets": network_permeability(test), best: simple[best]}

    def draw(figure: Figure) -> None:
        for axes, (name, predicted) in zip(
            figure.subplots(1, 2, sharex=True, sharey=True), panels.items(), strict=True
        ):
            _parity(axes, test["permeability"], predicted, test["family"])
            error = permeability_metrics(predicted, test["permeability"])[0].value
            axes.set(title=f"{name}: rmse of log10 k {error:.3f}", xlabel="solved k (voxel$^2$)")
            axes.set_aspect("equal", adjustable="box")
            axes.xaxis.set_minor_formatter(NullFormatter())  # of less than a decade they would overlap
        figure.axes[0].set_ylabel("predicted k (voxel$^2$)")
        figure.axes[0].legend(fontsize=8)

    return drawn("parity", 9.2, 4.4, draw)


def slices_figure(fields: list[tuple[FlowImage, Array]]) -> bytes:
    """Middle slice of image, solved and predicted velocity of some images, flow upwards; PNG."""
    figure = Figure(figsize=(8.4, 2.6 * len(fields)), layout="constrained", dpi=110)
    rows = figure.subplots(len(fields), 3, squeeze=False)
    for row, (image, velocity) in zip(rows, fields, strict=True):
        middle = image.label.image.shape[0] // 2
        solved = image.label.velocity[middle].T
        top = float(np.quantile(solved[solved > 0], 0.99)) if (solved > 0).any() else 1.0
        row[0].imshow(image.label.image[middle].T, origin="lower", cmap="gray")
        row[1].imshow(solved, origin="lower", vmin=0.0, vmax=top, cmap="viridis")
        last = row[2].imshow(velocity[middle].T, origin="lower", vmin=0.0, vmax=top, cmap="viridis")
        figure.colorbar(last, ax=row[2], label="voxel$^2$")
        for axes, title in zip(row, (f"{image.family}, pores white", "lattice Boltzmann", "committee"), strict=True):
            axes.set(title=title, xticks=[], yticks=[])
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _velocity(committee: Any, image: FlowImage) -> Array:
    import torch

    with torch.no_grad():
        velocity, _ = committee(*map(torch.from_numpy, image.inputs.tensors().values()))
    return np.asarray(image.inputs.field(velocity.numpy()), np.float64)


def _parity(axes: Any, true: Array, predicted: Array, family: NDArray[np.str_]) -> None:
    ends = np.array([min(true.min(), predicted.min()) / 1.5, 1.5 * max(true.max(), predicted.max())])
    axes.loglog(ends, ends, color=GREY, lw=1.0)
    axes.loglog(ends, 2 * ends, ends, 0.5 * ends, color=GREY, lw=0.7, ls=":")
    for i, name in enumerate(sorted(set(family.tolist()))):
        at = family == name
        axes.loglog(true[at], predicted[at], _MARKERS[i % 7], color=MEMBER_COLOURS[i % 8], ms=5, label=name, alpha=0.85)


def calibration_figure(tables: Mapping[str, Mapping[str, NDArray[Any]]]) -> str:
    """Intervals of log k, whose scale is fitted to the validation part, on the test part; SVG."""
    valid, test = ((log_error(tables[part]), log_spread(tables[part])) for part in ("valid", "test"))
    fitted = conformal(valid, test)
    ranked = np.sort(np.abs(scores(valid[0], fitted.scale * np.hypot(valid[1], fitted.floor))))
    spread = Spread("log permeability", "1", test[0], np.hypot(test[1], fitted.floor), fitted.scale, ranked)
    return calibration([spread], tables["test"]["members"].shape[1])


def learning_figure(folder: Path) -> str:
    """Loss of every member against its updates; SVG."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for m, path in enumerate(sorted(folder.glob("member-*/history.csv"))):
            lines = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
            axes.semilogy(lines[:, 0], lines[:, 1], color=MEMBER_COLOURS[m % 8], label=f"member {m}")
        axes.set(xlabel="updates", ylabel="loss (training, mean of 50)")
        axes.legend()

    return drawn("learning", 7.0, 3.2, draw)


def _page(folder: Path, config: PermeabilityTraining, tables: Mapping[str, Mapping[str, NDArray[Any]]]) -> str:
    record, metrics = read_json(folder / "run.json"), test_metrics(tables)
    others = comparisons(tables)
    return template("flow.html").render(
        config=record["config"],
        config_text=(folder / "config.yaml").read_text(),
        record=record,
        headline=[
            (short(metrics[0].value), metrics[0].name),
            (f"{sum(record['split'].values()):,}", "labelled images"),
            (duration(record["cpu_seconds"]), "CPU time of the training"),
        ],
        test_errors=Table(["metric", "value", "images"], [[m.name, short(m.value), f"{m.count:,}"] for m in metrics]),
        formulas=Table(
            ["formula", *(m.name for m in others[0].metrics)],
            [[other.name, *(short(m.value) for m in other.metrics)] for other in others],
        ),
        slices=base64.b64encode((folder / "slices.png").read_bytes()).decode(),
        figures={
            "parity": Markup((folder / "parity.svg").read_text()),
            "calibration": Markup(calibration_figure(tables)),
            "learning": Markup(learning_figure(folder)),
        },
        commands=[f"understudy train {config.name}.yaml", f"understudy publish {config.name}"],
    )
