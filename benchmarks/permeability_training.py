"""What makes the networks of permeability good: one MS-Net on the same images in many ways, three seeds each.

`python -m benchmarks.permeability_training` draws docs/permeability-training.svg from the record. UNDERSTUDY_SEEDS=0,1
and UNDERSTUDY_ARMS="conduction, 3 scales;width, 3 scales" take some of them.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.kept import folder_of, kept
from benchmarks.record import RECORDS, Finding
from contract.flow import FlowInputs, flow_inputs
from training.files import read_json
from training.flow_evaluation import baselines, network_permeability, permeability_metrics
from training.networks.msnet import MSNetConfig
from training.networks.permeability import PermeabilityCommittee
from training.pipelines.permeability import (
    FlowFitConfig,
    FlowImage,
    PermeabilityTraining,
    Scales,
    fit_member,
    fit_trend,
    labelled_image,
    part_labels,
    predicted,
)
from training.report.figures import MEMBER_COLOURS, drawn
from training.sampling.permeability import FLOW_AXIS, Label, read_label

RUN: Final = Path("runs/permeability")
LARGER: Final = Path("runs/permeability-media-larger")
FOLDER: Final = Path("runs/permeability-claims")
FIGURE: Final = Path("docs/permeability-training.svg")
SEEDS: Final = tuple(int(seed) for seed in os.environ.get("UNDERSTUDY_SEEDS", "0,1,2").split(","))
DIVISOR: Final = 8
"""Of every arm, so that all see the same voxels."""
NOTES: Final = """
One network an arm and seed, not a committee, on the training part of runs/permeability, 300 updates of the shipped
schedule. Errors on its test part and on media of 64^3 and 128^3 voxels (the training images have 24 to 48 a side), each
the mean over the seeds, which follow one by one. `conduction` arms correct the estimate by conduction, as the shipped
model does, and learn from cubes of 16^3, eight an update; `width` arms know nothing of it: they are the paper's
networks, whose answer is a velocity over the mean of (distance to the wall - 1/2)^2 of the image, and learn from cubes
of 32^3, one an update, or the image where it is smaller: the smaller a part, the less it tells how much flows through
it. Every arm has its trend fitted. The flux penalty is on the flow through each slice, which conservation of mass makes
constant; a divergence would need all three components of the velocity, and the networks answer one. Formulas are fitted
to the same training part.
"""
Start = Callable[[FlowInputs], FlowInputs]
Images = dict[str, list[FlowImage]]
Table = Mapping[str, NDArray[Any]]
_console = Console(stderr=True)


def by_conduction(inputs: FlowInputs) -> FlowInputs:
    """The network corrects the estimate."""
    return inputs


def by_width(inputs: FlowInputs) -> FlowInputs:
    """The network makes the velocity out of the pores, in units of the square of their width."""
    return replace(inputs, estimate=np.float32(inputs.length_scale**2) * inputs.pore)


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to train."""

    start: Start
    network: MSNetConfig
    fit: FlowFitConfig

    def said(self) -> list[Any]:
        """What its results follow from."""
        return [self.start.__name__, self.network.model_dump(mode="json"), self.fit.model_dump(mode="json")]


CUBES: Final = FlowFitConfig(updates=300, batch=8, crop=16)
LARGE: Final = FlowFitConfig(updates=300, batch=1, crop=32)
"""As many voxels an update."""
SINGLE: Final = MSNetConfig(scales=1, filters=33)
"""One scale with 120,000 parameters, as three scales of 2, 8 and 32 filters have."""


def _scales(number: int) -> MSNetConfig:
    return MSNetConfig(scales=number, filters=2)


ARMS: Final[dict[str, Arm]] = {
    "conduction, 1 scale": Arm(by_conduction, _scales(1), CUBES),
    "conduction, 2 scales": Arm(by_conduction, _scales(2), CUBES),
    "conduction, 3 scales": Arm(by_conduction, _scales(3), CUBES),
    "conduction, 4 scales": Arm(by_conduction, _scales(4), CUBES),
    "conduction, 3 scales, cubes of 32^3": Arm(by_conduction, _scales(3), LARGE),
    "conduction, 3 scales, no symmetries": Arm(by_conduction, _scales(3), CUBES.model_copy(update={"symmetries": 1})),
    "conduction, 3 scales, flux penalty": Arm(by_conduction, _scales(3), CUBES.model_copy(update={"flux_weight": 1.0})),
    "conduction, 1 wide scale": Arm(by_conduction, SINGLE, CUBES),
    "width, 1 scale": Arm(by_width, _scales(1), LARGE),
    "width, 2 scales": Arm(by_width, _scales(2), LARGE),
    "width, 3 scales": Arm(by_width, _scales(3), LARGE),
    "width, 4 scales": Arm(by_width, _scales(4), LARGE),
    "width, 1 wide scale": Arm(by_width, SINGLE, LARGE),
}


def run() -> Finding:
    """Every arm: about an hour; goes on where it was."""
    torch.set_num_threads(1)
    record = read_json(RUN / "run.json")
    config = PermeabilityTraining.model_validate(record["config"])
    inputs = {name: [(_inputs(label), label) for label in labels] for name, labels in _labels(config).items()}
    digests = {
        "images": record["campaign"]["images_sha256"],
        "larger images": read_json(LARGER / "sampling.json")["images_sha256"],
    }
    results = folder_of(FOLDER.name, digests, config.fit.learning_rate, [arm.said() for arm in ARMS.values()])
    arms: dict[str, Any] = {}
    wanted = os.environ.get("UNDERSTUDY_ARMS", ";".join(ARMS)).split(";")
    for start in (by_conduction, by_width):
        images = {n: [labelled_image(start(i), label, DIVISOR) for i, label in each] for n, each in inputs.items()}
        if start is by_conduction:
            formulas = _formulas(images)
        for name, arm in ARMS.items():
            if arm.start is start and name in wanted:
                arms[name] = _summary(
                    [
                        kept(results / f"{name}-{seed}.json", partial(_one, name, arm, seed, images, config))
                        for seed in SEEDS
                    ]
                )
    return Finding({"arms": arms, "formulas": formulas}, NOTES, seeds=list(SEEDS), digests=digests)


def _labels(config: PermeabilityTraining) -> dict[str, list[Label]]:
    parts = part_labels(config)
    larger = [read_label(path) for path in sorted(LARGER.glob("*.npz"))]
    steady = [label for label in larger if label.facts["converged"]]
    sizes = {length: [label for label in steady if label.image.shape[0] == length] for length in (64, 128)}
    return {
        "train": parts["train"],
        "valid": parts["valid"],
        "test": parts["test"],
        **{f"{length}^3": labels for length, labels in sizes.items()},
    }


def _inputs(label: Label) -> FlowInputs:
    return flow_inputs(label.image, FLOW_AXIS, DIVISOR)


def _one(name: str, arm: Arm, seed: int, images: Images, config: PermeabilityTraining) -> dict[str, Any]:
    """Train one network, and its errors."""
    how = arm.fit.model_copy(update={"seed": seed, "learning_rate": config.fit.learning_rate})
    scales = Scales.of(images["train"], how.variance_floor)
    torch.manual_seed(seed)
    committee = PermeabilityCommittee.of(arm.network, 1, scales.mean_distance, scales.factor)
    folder = FOLDER / f"{name.replace(', ', '-').replace(' ', '_')}-{seed}"
    history = fit_member(committee.networks[0], images["train"], scales, how, 0, folder)
    committee.eval()
    fit_trend(committee, images["train"])
    found = {part: _errors(_table(committee, images[part])) for part in images if part not in ("train", "valid")}
    _console.print(f"{name}, seed {seed}: " + ", ".join(f"{k} {v['rmse of log10 k']:.3f}" for k, v in found.items()))
    parameters = sum(p.numel() for p in committee.networks[0].parameters())
    return {"parameters": parameters, "cpu_seconds": history[-1].cpu_seconds, **found}


def _table(committee: PermeabilityCommittee, images: Sequence[FlowImage]) -> dict[str, NDArray[Any]]:
    rows = [predicted(committee, image) for image in images]
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def _errors(table: Table) -> dict[str, float]:
    """Of k over all images and of log k by family; medians over images of the errors of the field and its flux."""
    return {
        **_of_permeability(network_permeability(table), table),
        "sum |u - u_true| / sum |u_true|": float(np.median(table["field_error"])),
        "flux std over slices / mean": float(np.median(table["flux_std"])),
    }


def _of_permeability(k: NDArray[np.float64], table: Table) -> dict[str, float]:
    found = {metric.name: metric.value for metric in permeability_metrics(k, table["permeability"])[:3]}
    for family in sorted(set(table["family"].tolist())):
        at = table["family"] == family
        rmse = permeability_metrics(k[at], table["permeability"][at])[0]
        found[f"{rmse.name}, {family}"] = rmse.value
    return found


def _formulas(images: Images) -> dict[str, dict[str, dict[str, float]]]:
    """By set of images, then by formula."""
    silent = PermeabilityCommittee.of(_scales(1), 1, 1.0, 1.0).eval()
    tables = {part: _table(silent, each) for part, each in images.items()}
    parts = [part for part in images if part not in ("train", "valid")]
    return {part: {n: _of_permeability(k, tables[part]) for n, k in baselines(tables, part).items()} for part in parts}


def _summary(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds, and each of them."""
    first = seeds[0]
    return {
        "parameters": first["parameters"],
        "cpu_seconds": float(np.mean([seed["cpu_seconds"] for seed in seeds])),
        **{
            part: {name: float(np.mean([seed[part][name] for seed in seeds])) for name in first[part]}
            for part in first
            if isinstance(first[part], dict)
        },
        "seeds": [{part: each for part, each in seed.items() if isinstance(each, dict)} for seed in seeds],
    }


def figure(values: Mapping[str, Any]) -> str:
    """Rmse of log10 k of every arm, a point a seed, on the three sets of images; SVG."""
    arms, sets = values["arms"], ("test", "64^3", "128^3")

    def draw(canvas: Figure) -> None:
        panels = canvas.subplots(1, len(sets), sharey=True)
        for axes, part in zip(panels, sets, strict=True):
            for row, arm in enumerate(arms.values()):
                errors = [seed[part]["rmse of log10 k"] for seed in arm["seeds"]]
                axes.semilogx(errors, [row] * len(errors), "o", ms=5, alpha=0.7, color=MEMBER_COLOURS[0])
            formulas = {"conduction": "the estimate, fitted", "Kozeny-Carman": "Kozeny-Carman"}
            for colour, (name, label) in enumerate(formulas.items(), start=1):
                error = values["formulas"][part][name]["rmse of log10 k"]
                axes.axvline(error, color=MEMBER_COLOURS[colour], lw=1.2, label=label)
            axes.set(title="unseen, 24 to 48 a side" if part == "test" else part.replace("^3", " a side"))
            axes.set(xlabel="rmse of log10 k", yticks=range(len(arms)), yticklabels=[_told(name) for name in arms])
            axes.set_xlim(0.01, 1.0)
            axes.xaxis.set_minor_formatter("")
        panels[0].invert_yaxis()
        panels[1].legend(fontsize=8, loc="center")

    return drawn("permeability-training", 11.0, 4.6, draw)


def _told(arm: str) -> str:
    return arm.replace("conduction", "estimate").replace("width", "no estimate").replace("32^3", "32 a side")


if __name__ == "__main__":
    FIGURE.write_text(figure(json.loads((RECORDS / "permeability_training.json").read_text())["values"]))
