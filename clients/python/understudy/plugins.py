"""Commands that other distributions add to `understudy`, loaded only when they are used.

A distribution adds one by an entry point of the group `understudy.commands`: the entry's name is the command's, its
object a `typer.Typer` (one command, or a group of several) or a function that is the command itself. Help texts are
read from the source without importing it, so that `understudy --help` stays fast beside heavy plugins.
"""

import ast
from collections.abc import Callable
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import typer
from typer.core import TyperGroup
from typer.main import get_command

from understudy.errors import BrokenPlugin

GROUP: Final = "understudy.commands"


class PluginGroup(TyperGroup):
    """The built-in commands and those of the plugins."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Names of all commands; imports no plugin."""
        return [*super().list_commands(ctx), *(name for name in sorted(plugins()) if name not in self.commands)]

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        """A command, for the help page: a plugin's is a stand-in with its name and help."""
        if cmd_name in self.commands or cmd_name not in plugins():
            return super().get_command(ctx, cmd_name)
        return stand_in(plugins()[cmd_name])

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """The command to run: here, and only here, a plugin is imported."""
        if args and args[0] in plugins() and args[0] not in self.commands:
            self.add_command(load(plugins()[args[0]]), args[0])
        return super().resolve_command(ctx, args)


@cache
def plugins() -> dict[str, EntryPoint]:
    """Entry points by command name."""
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def load(entry: EntryPoint) -> Any:
    """Import a plugin and make a command of it.

    Raises:
        BrokenPlugin: it cannot be imported, with the reason and what to install.
    """
    try:
        loaded = entry.load()
    except ImportError as error:
        raise BrokenPlugin(f"'understudy {entry.name}' cannot start: {error}.", hint=_extra_hint(entry)) from error
    return _command(entry.name, loaded)


def stand_in(entry: EntryPoint) -> Any:
    """A command with the plugin's name and help and nothing behind it."""
    return _command(entry.name, _nothing, help_of(entry))


def help_of(entry: EntryPoint) -> str:
    """First paragraph of the plugin's help, read from its source without running it; empty where there is none."""
    tree = _source(entry.module)
    for node in tree.body if tree else []:
        if isinstance(node, ast.FunctionDef) and node.name == entry.attr:
            return ast.get_docstring(node) or ""
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == entry.attr for t in node.targets):
            return _help_argument(node.value)
    return ""


def _command(name: str, plugin: typer.Typer | Callable[..., Any], text: str | None = None) -> Any:
    app = plugin if isinstance(plugin, typer.Typer) else typer.Typer(add_completion=False)
    if app is not plugin:
        app.command(name, help=text)(plugin)
    command = get_command(app)
    command.params = [p for p in command.params if p.name not in ("install_completion", "show_completion")]
    command.name = name
    return command


def _nothing() -> None:
    """Stands in for a command that is not loaded."""


def _extra_hint(entry: EntryPoint) -> str:
    return f"Install what it needs: see the optional extras of '{entry.dist.name}'." if entry.dist else ""


def _source(module: str) -> ast.Module | None:
    try:
        spec = find_spec(module)
        return ast.parse(Path(spec.origin).read_text("utf-8")) if spec and spec.origin else None
    except (ImportError, OSError, SyntaxError):
        return None


def _help_argument(value: ast.expr) -> str:
    """The `help=` of `name = typer.Typer(help="...")`."""
    for keyword in value.keywords if isinstance(value, ast.Call) else []:
        if keyword.arg == "help" and isinstance(keyword.value, ast.Constant):
            return str(keyword.value.value)
    return ""
