"""`understudy models`: the list of models, and an operator's commands to a running gateway."""

import sys
from collections.abc import Sequence
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from understudy.client import DEFAULT_URL, Client
from understudy.retries import Retries
from understudy.wire import Command, ModelList, ModelVersions

AT_A_TERMINAL: Final = Retries(connections=0)  # a gateway that is not there is news, not a reason to wait
NO_WIDTH: Final = 1000
LOADING_S: Final = 600.0
Url = Annotated[
    str, typer.Option(envvar="UNDERSTUDY_URL", help="Address of the gateway.", show_default=True, metavar="URL")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Name = Annotated[str, typer.Argument(help="Name of a model.")]
Version = Annotated[str, typer.Argument(help="Version, such as 2.")]
OptionalVersion = Annotated[str, typer.Argument(help="Version, such as 2.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Without a good record as a shadow, or to a lower version.")]

models = typer.Typer(help="List the models that the gateway serves, or tell it what to do with their versions.")


@models.callback(invoke_without_command=True)
def list_models(context: typer.Context, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """List the models that the gateway serves, or tell it what to do with their versions."""
    if context.invoked_subcommand is not None:
        return
    with Client(url, retries=AT_A_TERMINAL) as client:
        served = client.models()
    if as_json:
        typer.echo(ModelList(models=served).model_dump_json())
        return
    from understudy.tables import models_table

    console().print(models_table(served) if served else "The gateway serves no models.")


@models.command()
def versions(url: Url = DEFAULT_URL) -> None:
    """Every version that the gateway knows: loaded or not, promoted, following."""
    with Client(url, retries=AT_A_TERMINAL) as client:
        known = client.versions()
    _show(known)


@models.command()
def load(name: Name, version: OptionalVersion = "", url: Url = DEFAULT_URL) -> None:
    """Load a version that was published while the gateway runs; by default the newest. It answers who names it."""
    _tell(url, name, "load", version)


@models.command()
def unload(name: Name, version: OptionalVersion = "", url: Url = DEFAULT_URL) -> None:
    """Serve a version, by default the whole model, no more; what it has begun it ends."""
    _tell(url, name, "unload", version)


@models.command()
def reload(name: Name, force: Force = False, url: Url = DEFAULT_URL) -> None:
    """Read the loaded versions again from disk, and follow what is promoted there."""
    _tell(url, name, "reload", force=force)


@models.command()
def promote(name: Name, version: Version, force: Force = False, url: Url = DEFAULT_URL) -> None:
    """Let a version answer those who name none, from the next request on and after every restart."""
    _tell(url, name, "promote", version, force)


@models.command()
def rollback(name: Name, url: Url = DEFAULT_URL) -> None:
    """Go back to the version that was promoted before."""
    _tell(url, name, "rollback")


@models.command()
def shadow(name: Name, version: OptionalVersion = "", url: Url = DEFAULT_URL) -> None:
    """Let a version follow live traffic, its answers compared and given to nobody; without VERSION none follows."""
    _tell(url, name, "shadow", version)


def console() -> Console:
    """Standard output; a pipe or a file has no width to fit into."""
    return Console() if sys.stdout.isatty() else Console(width=NO_WIDTH, soft_wrap=True)


def _tell(url: str, name: str, command: Command, version: str = "", force: bool = False) -> None:
    with Client(url, timeout_s=LOADING_S, retries=AT_A_TERMINAL) as client:
        answer = client.command(name, command, version or None, force=force)
    console().print(Text(f"{answer.done[:1].upper()}{answer.done[1:]}."))
    _show([answer])


def _show(models: Sequence[ModelVersions]) -> None:
    from understudy.tables import versions_table

    console().print(versions_table(models))
