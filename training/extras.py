"""The optional extras of this project: which of them brings a package, and what is said when it is not installed."""

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

from contract.errors import UnderstudyError

_REQUIREMENT = re.compile(r"([\w.-]+).*; extra == ['\"](\w+)['\"]")


class MissingPackage(UnderstudyError):
    """A package of an optional extra that is not installed."""

    def __init__(self, package: str) -> None:
        extra = extras().get(package)
        where = f"extra `{extra}`" if extra else "it belongs to none of the extras"
        super().__init__(
            f"{package} is not installed: {where}. docs/training.md says how to install what training needs"
        )


def installed_version(package: str) -> str:
    """The version of a package that is installed.

    Raises:
        MissingPackage: naming the extra that brings it.
    """
    try:
        return version(package)
    except PackageNotFoundError:
        raise MissingPackage(package) from None


@cache
def extras() -> dict[str, str]:
    """The first extra that brings a package, by the package's name."""
    found: dict[str, str] = {}
    for requirement in requires("understudy-platform") or ():
        if match := _REQUIREMENT.match(requirement):
            found.setdefault(match[1], match[2])
    return found
