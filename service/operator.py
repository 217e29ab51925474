"""What an operator may tell a running gateway: load, unload, reload, promote, roll back, shadow.

One command at a time. What is new is verified, opened, compared with its reference and warm before it is asked, on a
thread of its own; what is old answers meanwhile. A command that fails changes nothing and says why.
"""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Self, cast

import structlog

from contract.errors import ModelNotFound, RepositoryError
from contract.repository import ModelRepository, StoredModel
from service.errors import LoadFailed, NotPromoted, UnknownModel
from service.followers.shadow import Shadows
from service.models.model import FieldModel, Model, Served
from service.models.served import NOT_LOADED, Models

UNLOADED: Final = "unloaded by the operator"
Opener = Callable[[StoredModel], Served]
_log: Final = structlog.get_logger("operator")


class Operator:
    """Carries out the commands.

    Args:
        repository: where versions lie, and where a promotion is written down.
        models: what is served; changed here and nowhere else after the start.
        open_model: opens and warms a verified version; takes seconds.
        shadows: the versions that follow live traffic.

    Attributes:
        loads: of versions, by model and outcome (ok, failed).
    """

    def __init__(self, repository: ModelRepository, models: Models, open_model: Opener, shadows: Shadows) -> None:
        self.models = models
        self.shadows = shadows
        self.loads: Counter[tuple[str, str]] = Counter()
        self._repository = repository
        self._open = open_model
        self._turn = asyncio.Lock()
        self._loader = ThreadPoolExecutor(1, "understudy-loader")

    async def load(self, name: str, version: str | None = None) -> str:
        """Load a version, by default the promoted one, or if that is loaded the newest; nobody is moved to it.

        Raises:
            UnknownModel: there is no such version in the repository.
            LoadFailed: it must not be served, and why.
        """
        async with self._turn:
            promoted = await self._look(name)
            served = self.models.promoted(name)
            chosen = version or (self._newest(name) if served else promoted)
            started = time.monotonic()
            await self._load(name, chosen)
            if chosen == promoted and served is None:
                self.models.promote(name, chosen)
            return f"version {chosen} of '{name}' is loaded and warm after {time.monotonic() - started:.1f} s"

    async def unload(self, name: str, version: str | None = None) -> str:
        """Serve a version, by default every version, no more; returns when the last request on it has ended.

        Raises:
            UnknownModel: it is not loaded.
        """
        async with self._turn:
            going = self.models.loaded(name) if version is None else [self.models.get(name, version)]
            if not going:
                self.models.refuse_unknown(name)
            numbers, users = _listed(going), sum(model.users for model in going)
            going = [self._take(name, model.version, UNLOADED) for model in going]
            await _release(going)
            return f"{numbers} of '{name}' is unloaded; {users} requests under way were answered"

    async def reload(self, name: str, force: bool = False) -> str:
        """Read every loaded version of a model again from disk, and follow what is promoted there.

        Raises:
            UnknownModel: it is not loaded.
            LoadFailed: a version must not be served as it is now, and why; what was loaded goes on.
            NotPromoted: the repository names a lower version than is served, and that is not forced.
        """
        async with self._turn:
            self.models.refuse_unknown(name)
            served, promoted = self.models.promoted(name), await self._look(name)
            if served and int(promoted) < int(served.version) and not force:
                raise NotPromoted(
                    f"The repository promotes version {promoted} of '{name}', lower than the served {served.version}.",
                    hint="If that is meant, say so with --force; to go back one promotion there is rollback.",
                    served=served.version,
                    got=promoted,
                )
            wanted = {model.version for model in self.models.loaded(name)} | {promoted}
            fresh = [await self._opened(name, number) for number in sorted(wanted, key=int)]
            replaced = [before for model in fresh if (before := self.models.put(model))]
            self.models.promote(name, promoted)
            for model in fresh:
                if isinstance(model, Model):
                    self.shadows.replace(model)
            numbers = _listed(fresh)
            fresh.clear()
            await _release(replaced)
            return f"{numbers} of '{name}' is read again; version {promoted} is promoted"

    async def promote(self, name: str, version: str, force: bool = False) -> str:
        """Let a version answer those who name none; it is loaded if need be, and the one before stays the way back.

        Raises:
            NotPromoted: it is lower than the one served, or has not shadowed it well and long enough, or the
                promotion cannot be written down; nothing has changed.
            UnknownModel, LoadFailed
        """
        async with self._turn:
            promoted = await self._look(name)
            served = self.models.promoted(name)
            if served and served.version == version:
                return f"version {version} of '{name}' is promoted already"
            self._refuse_missing(name, version)
            if not force and version != (current := served.version if served else promoted):
                self._refuse_untried(name, current, version)
            older = self._repository.previous(name)
            await self._load(name, version)
            await self._write_down(self._repository.promote, name, version)
            self.models.promote(name, version)
            self.shadows.stop(name)
            kept = {version, served.version if served else version}
            gone = [self._take(name, v, NOT_LOADED) for v in self._numbers(name) if v == older and v not in kept]
            await _release(gone)
            _log.warning("promoted", model=name, version=version, before=served and served.version, forced=force)
            return f"version {version} of '{name}' answers now" + (f", {served.version} before" if served else "")

    async def rollback(self, name: str) -> str:
        """Go back to the version that was promoted before; the one that is left is unloaded when it has ended its work.

        Raises:
            NotPromoted: there was none before, or the promotion cannot be written down.
            UnknownModel, LoadFailed
        """
        async with self._turn:
            await self._look(name)
            left, version = self.models.promoted(name), self._repository.previous(name)
            if version is None:
                raise NotPromoted(
                    f"No version of '{name}' was promoted before.", hint="There is nothing to go back to."
                )
            await self._load(name, version)
            await self._write_down(self._repository.roll_back, name)
            self.models.promote(name, version)
            self.shadows.stop(name)
            if left is None:
                return f"version {version} of '{name}' answers again"
            number = left.version
            left = None
            await _release([self._take(name, number, "rolled back")])
            _log.warning("rolled back", model=name, version=version, left=number)
            return f"version {version} of '{name}' answers again; {number} is unloaded"

    async def shadow(self, name: str, version: str | None) -> str:
        """Let a version follow the live traffic of the promoted one, or with None let none follow it.

        Raises:
            NotPromoted: it is the promoted one itself, or none is promoted.
            UnknownModel, LoadFailed
        """
        async with self._turn:
            if isinstance(self.models.promoted(name), FieldModel):
                raise NotPromoted(
                    f"'{name}' is a model of flow; only potentials have shadows.",
                    hint="Promote a version of it directly: none is asked for a shadow's record.",
                )
            if version is None:
                self.models.refuse_unknown(name)
                self.shadows.stop(name)
                return f"nothing follows '{name}'"
            await self._look(name)
            served = self.models.promoted(name)
            if served is None or served.version == version:
                raise NotPromoted(
                    f"Version {version} of '{name}' has nothing to follow: {_promoted(served)}.",
                    hint="A shadow is another version than the promoted one.",
                )
            await self._load(name, version)
            self.shadows.start(self.models.potential(name, version))
            return f"version {version} of '{name}' follows version {served.version}"

    def close(self) -> None:
        """End the loading thread."""
        self._loader.shutdown(cancel_futures=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    async def _look(self, name: str) -> str:
        """Learn which versions lie on disk; the one that is promoted there.

        Raises:
            UnknownModel, LoadFailed
        """
        try:
            versions, promoted = await self._apart(self._on_disk, name)
        except ModelNotFound as error:
            raise _unknown(error) from None
        except RepositoryError as error:
            raise _failed(error) from None
        self.models.note_versions(name, versions)
        return str(promoted)

    def _on_disk(self, name: str) -> tuple[list[str], str]:
        self._repository.settle(name)
        return self._repository.versions(name), self._repository.promoted(name)

    async def _load(self, name: str, version: str) -> None:
        """Load a version that is not loaded yet."""
        if version not in self._numbers(name):
            self.models.put(await self._opened(name, version))

    async def _opened(self, name: str, version: str) -> Served:
        """A version, verified and warm.

        Raises:
            UnknownModel, LoadFailed
        """
        self.models.note_absent(name, version, "LOADING", "")
        try:
            model = await self._apart(lambda: self._open(self._repository.load(name, version)))
        except ModelNotFound as error:
            self.models.forget(name, version)
            raise _unknown(error) from None
        except Exception as error:
            self.loads[name, "failed"] += 1
            self.models.note_absent(name, version, "UNAVAILABLE", f"load failed: {type(error).__name__}")
            _log.error("load failed", model=name, version=version, reason=str(error))
            if isinstance(error, RepositoryError):
                raise _failed(error) from None
            raise
        self.loads[name, "ok"] += 1
        return cast(Served, model)

    async def _write_down(self, step: Callable[..., Any], *arguments: str) -> None:
        try:
            await self._apart(step, *arguments)
        except OSError as error:
            raise NotPromoted(
                f"The promotion cannot be written into the model repository ({error.strerror}).",
                hint="Give the gateway a repository that it may write; nothing has changed.",
            ) from None
        except RepositoryError as error:
            raise _failed(error) from None

    async def _apart(self, work: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._loader, work, *arguments)

    def _numbers(self, name: str) -> list[str]:
        return [model.version for model in self.models.loaded(name)]

    def _newest(self, name: str) -> str:
        return self.models.index(name)[-1].version

    def _take(self, name: str, version: str, reason: str) -> Served:
        self.shadows.stop(name, version)
        return self.models.take(name, version, reason)

    def _refuse_missing(self, name: str, version: str) -> None:
        known = [standing.version for standing in self.models.index(name)]
        if version not in known:
            raise UnknownModel(
                f"There is no version '{version[:20]}' of '{name}'.", hint=f"There are: {', '.join(known)}."
            )

    def _refuse_untried(self, name: str, current: str, version: str) -> None:
        """Refuse a step down, and a version that the shadow does not speak for.

        Raises:
            NotPromoted: naming what is missing.
        """
        if int(version) < int(current):
            raise NotPromoted(
                f"Version {version} of '{name}' is lower than {current}, which is promoted.",
                hint="Go back with rollback; if another step down is meant, say so with --force.",
                served=current,
                got=version,
            )
        faults = [] if isinstance(self.models.promoted(name), FieldModel) else self.shadows.faults(name, version)
        if faults:
            raise NotPromoted(
                f"Version {version} of '{name}' is not promoted: {' '.join(faults)}",
                hint="Let it follow live traffic with shadow, or promote it all the same with --force.",
                reasons=faults,
            )


async def _release(models: list[Served]) -> None:
    """Wait for the last requests of versions that are served no more, then let go of their sessions."""
    for model in models:
        await model.drained()
    models.clear()
    gc.collect()  # a request that failed may hold its model in a cycle


def _listed(models: list[Served]) -> str:
    return "version " + ", ".join(model.version for model in models)


def _promoted(served: Served | None) -> str:
    return "no version is promoted" if served is None else "it is the promoted one"


def _unknown(error: ModelNotFound) -> UnknownModel:
    return UnknownModel(f"{error}.", hint="Publish it into the gateway's model repository first.")


def _failed(error: RepositoryError) -> LoadFailed:
    return LoadFailed(f"{error}.", hint="What was served before is served on.", reason=type(error).__name__)
