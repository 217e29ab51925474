"""How a training command ends when it cannot go on: with a text for people, not with a traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from contract.errors import UnderstudyError
from training.extras import MissingPackage, extras


@contextmanager
def told() -> Iterator[None]:
    """Above a command, as a decorator: what was wrong goes to standard error, and the status is 1."""
    try:
        yield
    except (UnderstudyError, ValidationError) as error:
        raise _told(error) from None
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in extras():
            raise
        raise _told(MissingPackage(package)) from None


def _told(error: Exception) -> typer.Exit:
    Console(stderr=True).print(Text.assemble(("Error: ", "bold red"), str(error)), soft_wrap=True)
    return typer.Exit(1)
