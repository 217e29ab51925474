"""The version of this gateway."""

from importlib.metadata import PackageNotFoundError, version
from typing import Final


def _version() -> str:
    try:
        return version("understudy-platform")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0"


VERSION: Final = _version()
