"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A hidden file beside `path` to write into, which takes its place when the block ends without an error.

    A reader, and whoever comes after a crash, finds the file as it was before or as it is after, never a half.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a file of text, UTF-8."""
    with replaced(path) as part:
        part.write_text(text, encoding="utf-8")
