"""The training commands of `understudy`, registered by entry points in pyproject.toml."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of training runs.")]
RepositoryOption = Annotated[Path, typer.Option("--model-repo", help="Folder of served models.")]

_console = Console(stderr=True)


def train(
    config: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="YAML, see training/configs.")],
    runs: RunsOption = Path("runs"),
    threads: Annotated[int, typer.Option(min=1, help="CPU threads; default: all cores.")] = 0,
) -> None:
    """Train a model from a configuration; an interrupted run goes on where it was. Writes a report.html."""
    import torch

    from training.pipelines.registry import read_config, train_run
    from training.report import write_report

    if threads:
        torch.set_num_threads(threads)
    settings = read_config(config)
    folder = runs / settings.name
    train_run(settings, folder)
    report = write_report(folder)
    _console.print(f"trained {settings.name}: {folder}\nreport: {report}")


def publish(
    name: Annotated[str, typer.Argument(help="Name of a training run.")],
    runs: RunsOption = Path("runs"),
    model_repo: RepositoryOption = Path("model_repo"),
) -> None:
    """Export a trained run, put it through the gate, and admit it to the model repository."""
    from training.pipelines.registry import candidate
    from training.publish import publish as admit

    folder = admit(candidate(runs / name), model_repo)
    _console.print(f"published {name}: {folder}")
