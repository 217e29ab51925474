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
    text = _settings(error) if isinstance(error, ValidationError) else str(error)
    Console(stderr=True).print(Text.assemble(("Error: ", "bold red"), text), soft_wrap=True)
    return typer.Exit(1)


def _settings(error: ValidationError) -> str:
    """Each setting of a configuration that is wrong, on a line; the first name may be the kind of configuration."""
    found = [f"{'.'.join(map(str, each['loc'])) or 'the whole'}: {each['msg']}" for each in error.errors()]
    return "\n  ".join(["the configuration cannot be used:", *found])
