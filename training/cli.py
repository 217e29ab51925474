"""The training commands of `understudy`, registered by entry points in pyproject.toml. Import torch only when used."""

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from contract.repository import ModelRepository
from training.importers.command import import_ani_command, import_hippynn_command
from training.refusals import told

RunsOption = Annotated[Path, typer.Option("--runs", help="Folder of training runs.")]
RepositoryOption = Annotated[Path, typer.Option("--model-repo", help="Folder of served models.")]

_console = Console(stderr=True)

data = typer.Typer(help="Public training data: list it, fetch it.", no_args_is_help=True)
import_ = typer.Typer(help="Bring a model trained elsewhere into the folder of runs.", no_args_is_help=True)
import_.command("hippynn")(import_hippynn_command)
import_.command("ani")(import_ani_command)


@told()
def train(
    config: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="YAML, see training/configs.")],
    runs: RunsOption = Path("runs"),
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = os.cpu_count() or 1,
) -> None:
    """Train a model from a configuration and write a report; an interrupted run goes on where it was.

    On several GPUs or CPUs: torchrun --nproc-per-node 2 -m understudy train CONFIG.
    """
    import torch

    from training import processes
    from training.pipelines.registry import read_config
    from training.runs import train_and_report

    torch.set_num_threads(threads)
    with processes.joined():
        settings = read_config(config)
        folder = runs / settings.name
        report = train_and_report(settings, folder)
        if report is None:
            return
    _say(f"trained {settings.name}: {folder}")
    _say(f"report: {report}")
    _say(f"next: understudy publish {settings.name}")


@told()
def learn(
    config: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="YAML, see training/configs.")],
    runs: RunsOption = Path("runs"),
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of training and exploration.")] = os.cpu_count() or 1,
    workers: Annotated[int, typer.Option(min=1, help="Reference calculations at once.")] = 1,
    pool: Annotated[
        str, typer.Option(help="Where they run: threads, processes, or a Python file with a Parsl configuration.")
    ] = "threads",
) -> None:
    """Active learning: explore, label where the committee disagrees, train; a loop that was killed goes on.

    Leaves frames.extxyz, generations.json and report.html in the folder of the run, and a committee to publish.
    """
    import torch

    from training.active.pools import pool as workers_of
    from training.pipelines.registry import learn_run, read_learning_config
    from training.report.learning import write_learning_report

    torch.set_num_threads(threads)
    settings = read_learning_config(config)
    folder = runs / settings.name
    with workers_of(pool, workers) as executor:
        learn_run(settings, folder, executor)
    report = write_learning_report(folder)
    _say(f"learnt {settings.name}: {folder}")
    _say(f"report: {report}")
    _say(f"next: understudy publish {settings.name}")


@told()
def publish(
    name: Annotated[str, typer.Argument(help="Name of a training run.")],
    runs: RunsOption = Path("runs"),
    model_repo: RepositoryOption = Path("model_repo"),
    promote: Annotated[bool, typer.Option("--promote", help="Let it answer after the next start or reload.")] = False,
) -> None:
    """Export a trained run, put it through the admission checks, and place it in the model repository.

    The first version of a model is promoted; a later one waits beside it until an operator promotes it.
    """
    from training.runs import publish_run

    repository = ModelRepository(model_repo)
    folder = publish_run(runs / name, repository)
    model = folder.name
    version = repository.versions(model)[-1]
    if promote:
        repository.promote(model, version)
    promoted = repository.promoted(model)
    _say(f"published {model} version {version}: {folder}")
    if promoted != version:
        _say(f"version {promoted} stays promoted; next: understudy models shadow {model} {version}")


@told()
def sample(
    config: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="YAML, see `sampling:` in training/configs.")
    ],
    labeller: Annotated[
        Path | None,
        typer.Option(exists=True, help="Published ANI networks, where they label: folder or .tar.gz (NeuroChem)."),
    ] = None,
    runs: RunsOption = Path("runs"),
    threads: Annotated[int, typer.Option(min=1, help="CPU threads, or workers.")] = os.cpu_count() or 1,
    pool: Annotated[
        str,
        typer.Option(help="Where porous media are solved: processes, threads, or a Python file that configures Parsl."),
    ] = "processes",
) -> None:
    """Make structures, porous media or beads of a liquid with labels, ready to train on; goes on where it can."""
    import torch

    from training.active.pools import pool as workers_of
    from training.sampling.registry import read_sampling, run_sampling

    torch.set_num_threads(threads)
    settings = read_sampling(config)
    with workers_of(pool, threads) as workers:
        written = run_sampling(settings, runs / settings.name, labeller, workers)
    _say(f"sampled {settings.name}: {written}")


@data.command("list")
@told()
def list_data() -> None:
    """Public data sets that can be fetched, with their licence."""
    from training.data.fetch import cached
    from training.data.registry import REGISTRY

    table = Table("name", "level of theory", "licence", "size", "here")
    for name, entry in sorted(REGISTRY.items()):
        origin = entry.provenance
        here = "yes" if cached(name) else ""
        table.add_row(name, origin.level_of_theory, origin.licence, f"{entry.size_mb:g} MB", here)
    Console().print(table)


@data.command("fetch")
@told()
def fetch_data(
    name: Annotated[str, typer.Argument(help="Name, see `understudy data list`.")],
    cache: Annotated[Path | None, typer.Option(help="Folder to keep it in; default $UNDERSTUDY_DATA.")] = None,
) -> None:
    """Download a public data set and check its sha256."""
    from training.data.fetch import fetch

    path = fetch(name, cache)
    Console().print(path, soft_wrap=True)


def _say(text: str) -> None:
    _console.print(text, highlight=False, soft_wrap=True)
