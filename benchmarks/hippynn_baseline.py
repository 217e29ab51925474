"""A run of ours beside hippynn 0.1.3 on the same split: for the CPU time of one of its networks, and for its epochs.

`python -m benchmarks.hippynn_baseline runs/NAME` writes comparisons.json into the run and a record; `python -m
benchmarks.run hippynn_baseline` does it for every run in runs/ that hippynn can train beside. How it trains:
benchmarks/hippynn_training.py.
"""

import argparse
import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console

from benchmarks.hippynn_training import Budget, Task, Trained, train, version
from benchmarks.hippynn_twin import CLASSES
from benchmarks.intervals import half_width_95
from benchmarks.record import Finding, write_record
from contract.card import Comparison, Metric
from training.baselines import mean_predictor
from training.evaluation import energy_metrics, load_predictions
from training.files import write_json
from training.pipelines.committee import CommitteeConfig
from training.pipelines.distillation import DistillationConfig
from training.pipelines.preparation import prepare
from training.pipelines.registry import read_config
from training.report import write_report

RUNS: Final = Path("runs")
EQUAL_CPU, EQUAL_EPOCHS = "equal CPU time", "equal epochs"
SEEDS: Final[dict[str, tuple[int, ...]]] = {EQUAL_CPU: (0, 1, 2), EQUAL_EPOCHS: (0, 1, 2)}
NOTES = """
Errors on the test part of the run's own split. `equal CPU time`: a hippynn network trains for the CPU seconds of the
run divided by its members, to the end of the epoch that passes them. `equal epochs`: for as many epochs as a member
saw. One thread, float32, Adam; loss, batch, learning rate and schedule of the run; the cosine follows the share of the
budget that is spent. What hippynn has not: a running average of weights, clipping of gradients, folds (its network
sees the whole training part). Setting up, compiling and the search for the fastest kernel are not counted. Members of
our committee share distances and sensitivities and are trained together, which is part of what is compared. CPU
seconds of the run and of hippynn are comparable only from one kind of machine, as idle.
"""

_console = Console(stderr=True)


def run() -> Finding:
    """Every finished run in runs/ that hippynn can train beside."""
    folders = comparable_runs(RUNS)
    if not folders:
        raise FileNotFoundError(
            f"no finished run of a committee or a student of energies in {RUNS.resolve()}: "
            "train one, such as understudy train training/configs/malonaldehyde-committee-small.yaml"
        )
    found = [compare(folder) for folder in folders]
    digests = {name: digest for finding in found for name, digest in finding.digests.items()}
    values = {folder.name: finding.values for folder, finding in zip(folders, found, strict=True)}
    return Finding(values, found[0].notes, found[0].seeds, digests)


def comparable_runs(runs: Path) -> list[Path]:
    """Folders of finished runs whose labels a hippynn network can learn: no beads, rocks, metals, imports."""
    return [
        path.parent
        for path in sorted(runs.glob("*/run.json"))
        if (path.parent / "predictions.npz").exists()
        and json.loads(path.read_text()).get("config", {}).get("pipeline") in ("committee", "distillation")
    ]


def compare(folder: Path, seeds: Mapping[str, Sequence[int]] = SEEDS, kernel: str | None = None) -> Finding:
    """Train hippynn beside one run, and write comparisons.json and a new report into its folder.

    Args:
        folder: of a finished run.
        seeds: of each budget: EQUAL_CPU, EQUAL_EPOCHS, or CPU seconds such as "60 CPU s".
        kernel: of hippynn; default the one that is measured to be the fastest.
    """
    torch.set_num_threads(1)
    task = read_task(folder)
    comparisons, arms = [mean_predictor(task.prepared)], {}
    for arm, of_arm in seeds.items():
        arms[arm] = [train(task, budget_of(task, arm), seed, kernel) for seed in of_arm]
        comparisons.append(comparison(task, arm, arms[arm]))
        write_json(folder / "comparisons.json", [entry.model_dump() for entry in comparisons])
    write_report(folder)
    return Finding(
        _values(folder, task, comparisons, arms),
        NOTES,
        sorted(set(itertools.chain(*seeds.values()))),
        {source.name: source.sha256 for source in task.prepared.dataset.sources},
    )


def budget_of(task: Task, arm: str) -> Budget:
    """The budget by its name."""
    if arm == EQUAL_EPOCHS:
        return Budget(epochs=task.epochs)
    if arm == EQUAL_CPU:
        return Budget(cpu_seconds=task.cpu_seconds / task.members)
    return Budget(cpu_seconds=float(arm.removesuffix(" CPU s")))


def read_task(folder: Path) -> Task:
    """What one network of the run in a folder learned, and what that took.

    A student's data and split are its teacher's; here it has no teacher and learns the energies alone.
    """
    config, record = read_config(folder / "config.yaml"), json.loads((folder / "run.json").read_text())
    if not isinstance(config, CommitteeConfig | DistillationConfig):
        raise ValueError(f"{folder}: hippynn learns what a committee or a student of one has learnt")
    apart = isinstance(config, DistillationConfig)
    taught = _teacher(folder.parent / config.teacher) if isinstance(config, DistillationConfig) else config
    members = config.network.members
    return Task(
        name=config.name,
        network=config.network.model_copy(update={"members": 1}),
        prepared=prepare(taught.data, taught.split),
        fit=config.fit,
        forces=None if apart else config.forces,
        energy_scale_ev=taught.energy_scale_ev,
        members=members,
        cpu_seconds=record["cpu_seconds"],
        epochs=record["epochs"] // members if apart else record["epochs"],
    )


def _teacher(folder: Path) -> CommitteeConfig:
    config = read_config(folder / "config.yaml")
    if not isinstance(config, CommitteeConfig):
        raise ValueError(f"{folder} is not a committee: a student has data and split from one")
    return config


def comparison(task: Task, arm: str, trained: Sequence[Trained]) -> Comparison:
    """The card's entry: means over seeds."""
    cpu, epochs = (np.mean([getattr(t, name) for t in trained]) for name in ("cpu_seconds", "epochs"))
    return Comparison(
        name=f"hippynn {version()}, {arm}",
        metrics=[_over_seeds(each) for each in zip(*(t.metrics for t in trained), strict=True)],
        notes=(
            f"One {CLASSES[task.network.order]} of the same shape on the same split; mean of {len(trained)} trained, "
            f"each {cpu:.0f} CPU s and {epochs:.0f} epochs, {trained[0].kernel} kernel. One network of this run: "
            f"{task.cpu_seconds / task.members:.0f} CPU s and {task.epochs} epochs."
        ),
    )


def _over_seeds(metrics: Sequence[Metric]) -> Metric:
    """Mean over seeds, with the 95 % interval of the mean by Student's t."""
    if len(metrics) == 1:
        return metrics[0]
    values = [metric.value for metric in metrics]
    mean, half = float(np.mean(values)), half_width_95(values)
    return metrics[0].model_copy(update={"value": mean, "interval_95": (mean - half, mean + half)})


def _values(
    folder: Path, task: Task, comparisons: Sequence[Comparison], arms: Mapping[str, Sequence[Trained]]
) -> dict[str, Any]:
    test = load_predictions(folder, "test")
    each = [_by_name(energy_metrics(energy - test.target)) for energy in test.energy]
    return {
        "test frames": len(test.target),
        "members": task.members,
        "CPU s of one network of the run": task.cpu_seconds / task.members,
        "epochs of one network of the run": task.epochs,
        "this run, mean of its members": _by_name(energy_metrics(test.error)),
        "this run, one member (mean over members)": {k: float(np.mean([e[k] for e in each])) for k in each[0]},
        "this run, each member": each,
        **{entry.name: _by_name(entry.metrics) for entry in comparisons},
        "hippynn, each seed": {
            arm: [
                {"CPU s": t.cpu_seconds, "epochs": t.epochs, "kernel": t.kernel, **_by_name(t.metrics)} for t in trained
            ]
            for arm, trained in arms.items()
        },
    }


def _by_name(metrics: Sequence[Metric]) -> dict[str, float]:
    return {f"{metric.name} {metric.unit}": metric.value for metric in metrics}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hippynn_baseline",
        description="A finished run beside hippynn: comparisons.json, report and record.",
    )
    parser.add_argument("folder", type=Path, help="of a finished run")
    parser.add_argument("--seeds", type=int, default=len(SEEDS[EQUAL_CPU]), help="networks for each budget")
    parser.add_argument("--cpu-seconds", type=float, help="this budget, instead of the two of the run")
    return parser.parse_args()


def main() -> None:
    """Compare one run and write its record."""
    given, start = _arguments(), time.perf_counter()
    arms = list(SEEDS) if given.cpu_seconds is None else [f"{given.cpu_seconds:g} CPU s"]
    finding = compare(given.folder, dict.fromkeys(arms, range(given.seeds)))
    path = write_record(f"hippynn_baseline_{given.folder.name}", finding, time.perf_counter() - start)
    _console.print(f"record: {path}")


if __name__ == "__main__":
    main()
