"""Download a public data set once, check it against its pinned sha256, and keep it."""

import os
from pathlib import Path
from types import TracebackType
from typing import Final

import pooch
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from contract.repository import sha256_of
from training.data.errors import HashMismatch, UnknownDataset, Unreachable
from training.data.registry import REGISTRY, PublicData

CACHE_VARIABLE: Final = "UNDERSTUDY_DATA"
_TIMEOUT_S: Final = 30


def fetch(name: str, cache: Path | None = None) -> Path:
    """The file of a public data set, downloaded if it is not in the cache; shows a progress bar.

    Args:
        name: key of `training.data.registry.REGISTRY`, such as `qm22-malonaldehyde`.
        cache: folder; default the environment variable UNDERSTUDY_DATA, else the user's cache folder.

    Raises:
        UnknownDataset: listing the names there are.
        Unreachable: not in the cache and not downloadable; says which file to put where.
        HashMismatch: the file in the cache or at its origin is not the pinned one.
    """
    data = public_data(name)
    path = (cache or cache_folder()) / data.filename
    if path.exists():
        _require_pinned(path, data)
        return path
    _download(data, path)
    return path


def cached(name: str, cache: Path | None = None) -> Path | None:
    """The file if it is in the cache, without any download and without a look at its contents."""
    path = (cache or cache_folder()) / public_data(name).filename
    return path if path.exists() else None


def public_data(name: str) -> PublicData:
    """The registry's entry.

    Raises:
        UnknownDataset: listing the names there are.
    """
    if name not in REGISTRY:
        raise UnknownDataset(f"no public data set is called {name!r}. There are: {', '.join(sorted(REGISTRY))}.")
    return REGISTRY[name]


def cache_folder() -> Path:
    """Where fetched files are kept: $UNDERSTUDY_DATA, else the user's cache folder."""
    folder = os.environ.get(CACHE_VARIABLE)
    return Path(folder) if folder else Path(pooch.os_cache("understudy"))


def _download(data: PublicData, path: Path) -> None:
    """Pooch writes beside the target and renames at the end, so that no partial file is ever taken for the whole."""
    try:
        with _Bar(data.filename) as bar:
            pooch.retrieve(
                url=data.url,
                known_hash=f"sha256:{data.sha256}",
                fname=path.name,
                path=path.parent,
                downloader=pooch.HTTPDownloader(progressbar=bar, chunk_size=65536, timeout=_TIMEOUT_S),
            )
    except OSError as error:  # requests' exceptions are among them, and a folder that cannot be written
        raise Unreachable(
            f"{data.filename} is not in {path.parent} and {_reason(error)}. {_by_hand(data, path)}"
        ) from None
    except ValueError as error:
        raise HashMismatch(f"{data.url} did not give the pinned file: {error} {_by_hand(data, path)}") from None


def _require_pinned(path: Path, data: PublicData) -> None:
    found = sha256_of(path)
    if found != data.sha256:
        raise HashMismatch(f"{path} has sha256 {found}, not the pinned {data.sha256}. Delete it and fetch it again.")


def _reason(error: OSError) -> str:
    response = getattr(error, "response", None)
    if response is not None:
        return f"{response.url} answered {response.status_code}"
    return f"could not be downloaded ({type(error).__name__})"


def _by_hand(data: PublicData, path: Path) -> str:
    return (
        f"On a machine with network access download {data.url} ({data.size_mb:g} MB, sha256 {data.sha256}) and save it "
        f"as {path}; another folder can be named in {CACHE_VARIABLE}."
    )


class _Bar:
    """What pooch wants of a progress bar (total, update, reset, close), drawn by rich."""

    def __init__(self, label: str) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(), transient=True
        )
        self._task = self._progress.add_task(label, total=None)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def total(self) -> int:
        """Bytes expected; 0 if the server did not say."""
        return int(self._progress.tasks[0].total or 0)

    @total.setter
    def total(self, size: int) -> None:
        self._progress.update(self._task, total=size or None)

    def update(self, size: int) -> None:
        """More bytes have come."""
        self._progress.advance(self._task, size)

    def reset(self) -> None:
        """Count from 0 again."""
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        """Take the bar off the screen."""
        self._progress.stop()
