"""What is served: every loaded version, which of each name answers those who name none, and what is not loaded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

from service.errors import UnknownModel
from service.models.model import FieldModel, Model, Served

State = Literal["READY", "LOADING", "UNAVAILABLE"]
NOT_LOADED: Final = "not loaded"
Kind = TypeVar("Kind", bound=Served)


_KINDS: Final[dict[type[Served], str]] = {Served: "model", Model: "potential", FieldModel: "model of flow"}
_ROUTES: Final[dict[type[Served], str]] = {
    Model: "Ask it with structures: POST /v1/predict/{}.",
    FieldModel: "Ask it with an image of a rock: POST /v1/fields/{}.",
}


@dataclass(frozen=True, slots=True)
class Standing:
    """How it stands with one version of a model, loaded or not.

    Attributes:
        reason: why it cannot be asked; empty where it can.
        promoted: it answers those who name no version.
        digest: of the loaded weights; empty where none are.
        users: requests under way.
    """

    name: str
    version: str
    state: State
    reason: str = ""
    promoted: bool = False
    digest: str = ""
    users: int = 0


class Models:
    """The versions of every model that are loaded. To iterate is to see each model in its promoted version."""

    def __init__(self, promoted: Sequence[Served] = ()) -> None:
        self._loaded: dict[str, dict[str, Served]] = {}
        self._promoted: dict[str, str] = {}
        self._absent: dict[tuple[str, str], tuple[State, str]] = {}
        for model in promoted:
            self.put(model)
            self.promote(model.card.name, model.version)

    def __iter__(self) -> Iterator[Served]:
        return iter([self._loaded[name][version] for name, version in self._promoted.items()])

    @property
    def potentials(self) -> list[Model]:
        """Every potential in its promoted version."""
        return [model for model in self if isinstance(model, Model)]

    @property
    def fields(self) -> list[FieldModel]:
        """Every model of flow in its promoted version."""
        return [model for model in self if isinstance(model, FieldModel)]

    def get(self, name: str, version: str | None = None) -> Served:
        """A model of any family, in its promoted version or the one named.

        Raises:
            UnknownModel: naming what is served.
        """
        return self._get(Served, name, version)

    def potential(self, name: str, version: str | None = None) -> Model:
        """The same of a potential; another model is as unknown as one that is not there."""
        return self._get(Model, name, version)

    def field(self, name: str, version: str | None = None) -> FieldModel:
        """The same of a model of flow."""
        return self._get(FieldModel, name, version)

    def _get(self, kind: type[Kind], name: str, version: str | None) -> Kind:
        loaded = {number: m for number, m in self._loaded.get(name, {}).items() if isinstance(m, kind)}
        if not loaded and name in self._loaded:
            family = type(next(iter(self._loaded[name].values())))
            detail = f"'{name}' is a {_KINDS[family]}, and this asks for a {_KINDS[kind]}."
            raise UnknownModel(detail, hint=_ROUTES[family].format(name))
        if not loaded:
            served = [n for n, versions in self._loaded.items() if any(isinstance(m, kind) for m in versions.values())]
            raise UnknownModel(
                f"No {_KINDS[kind]} '{name[:64]}' is served here.",
                hint=f"There are: {', '.join(served) or 'none'}.",
                models=served,
            )
        chosen = self._promoted.get(name) if version is None else version
        if chosen not in loaded:
            asked = "without naming a version" if chosen is None else f"in version '{chosen[:20]}'"
            versions = sorted(loaded, key=int)
            raise UnknownModel(
                f"Model '{name}' is not served {asked}.",
                hint=f"It is served in version {', '.join(versions)}.",
                versions=versions,
            )
        return loaded[chosen]

    def refuse_unknown(self, name: str, kind: type[Served] = Served) -> None:
        """Refuse a name of which no version is loaded, or none of this kind.

        Raises:
            UnknownModel: naming what is served.
        """
        if not any(isinstance(model, kind) for model in self._loaded.get(name, {}).values()):
            self._get(kind, name, None)

    def promoted(self, name: str) -> Served | None:
        """The version that answers those who name none, if there is one."""
        version = self._promoted.get(name)
        return None if version is None else self._loaded[name][version]

    def loaded(self, name: str) -> list[Served]:
        """The loaded versions of a model, lowest first."""
        return sorted(self._loaded.get(name, {}).values(), key=lambda model: int(model.version))

    def every(self) -> Iterator[Served]:
        """Every loaded version of every model."""
        for name in self._loaded:
            yield from self.loaded(name)

    def index(self, name: str | None = None) -> list[Standing]:
        """How it stands with every version that is known, of one model or of all; lowest first."""
        standings = [self._ready(model) for model in self.every()]
        standings += [Standing(n, version, *why) for (n, version), why in self._absent.items()]
        return sorted((s for s in standings if name in (None, s.name)), key=lambda s: (s.name, int(s.version)))

    def put(self, model: Served) -> Served | None:
        """Serve a version; the one of that number that was served before, if any, is given back."""
        versions = self._loaded.setdefault(model.card.name, {})
        before = versions.get(model.version)
        versions[model.version] = model
        self._absent.pop((model.card.name, model.version), None)
        return before

    def promote(self, name: str, version: str) -> None:
        """Let a loaded version answer those who name none: from the next request on."""
        self._promoted[name] = self._loaded[name][version].version

    def take(self, name: str, version: str, reason: str) -> Served:
        """Serve a version no more; requests that have it already end as they would have."""
        model = self._loaded[name].pop(version)
        if self._promoted.get(name) == version:
            del self._promoted[name]
        if not self._loaded[name]:
            del self._loaded[name]
        self.note_absent(name, version, "UNAVAILABLE", reason)
        return model

    def note_absent(self, name: str, version: str, state: State, reason: str) -> None:
        """Say of a version that is not loaded why that is so."""
        if version not in self._loaded.get(name, {}):
            self._absent[name, version] = (state, reason)

    def forget(self, name: str, version: str) -> None:
        """Know nothing of a version that is not loaded."""
        self._absent.pop((name, version), None)

    def note_versions(self, name: str, versions: Sequence[str]) -> None:
        """Learn which versions lie in the repository; what was known of others that do not any more is forgotten."""
        for known in [key for key in self._absent if key[0] == name and key[1] not in versions]:
            del self._absent[known]
        for version in versions:
            if (name, version) not in self._absent:
                self.note_absent(name, version, "UNAVAILABLE", NOT_LOADED)

    def _ready(self, model: Served) -> Standing:
        promoted = self._promoted.get(model.card.name) == model.version
        return Standing(model.card.name, model.version, "READY", "", promoted, model.stored.digest, model.users)
