"""The model repository on disk: one folder a model, checked by sha256, safe to open.

    <name>/<version>/card.json, MODEL_CARD.md, plots, model.onnx, model.pt, reference.npz, ...
    <name>/card.json, MODEL_CARD.md, config.pbtxt       of the promoted version
    <name>/history.json                                 the versions that were promoted before, if any
    <name>-members/config.pbtxt, <version>/model.onnx   a further graph of the same versions (contract/layout.py)

A version is written once: publishing writes it completely elsewhere and renames it into place, so that a reader never
sees half of one. The card on top says which version is promoted: it is replaced by one rename, and what else lies there
is made from it.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from contract.card import AnyCard, FieldCard, ModelCard, ModelFile, read_card
from contract.errors import (
    DigestMismatch,
    InvalidCard,
    ModelNotFound,
    RepositoryError,
    UnsafeArtefact,
    VersionExists,
)
from contract.files import write_text
from contract.layout import companions_of, place_of
from contract.triton_config import triton_config

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}\Z")
_VERSION = re.compile(r"[1-9][0-9]{0,8}\Z")
_HISTORY = "history.json"
_RELATIVE_LINK = re.compile(r"\]\((?![a-z]+:|[/#])")


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A verified version of a model.

    Attributes:
        card: its model card.
        folder: the version's folder, holding model.onnx.
        digest: sha256 over the digests of all its files and its card's science (see `model_digest`).
    """

    card: AnyCard
    folder: Path
    digest: str

    @property
    def potential_card(self) -> ModelCard:
        """The card of a potential.

        Raises:
            InvalidCard: the model is of another family.
        """
        if not isinstance(self.card, ModelCard):
            raise InvalidCard(f"model '{self.card.name}' is of the family '{self.card.family}', not a potential")
        return self.card

    @property
    def field_card(self) -> FieldCard:
        """The card of a model of flow.

        Raises:
            InvalidCard: the model is of another family.
        """
        if not isinstance(self.card, FieldCard):
            raise InvalidCard(f"model '{self.card.name}' is of the family '{self.card.family}', not of flow")
        return self.card

    def file(self, name: str) -> Path:
        """Path of one of the files on the card, such as "model.onnx".

        Raises:
            ModelNotFound: the card lists no such file.
        """
        if not self.has(name):
            raise ModelNotFound(f"model '{self.card.name}' version {self.card.version} has no file {name}")
        return self.folder.parents[1] / place_of(self.card.name, f"{self.card.version}/{name}")

    def has(self, name: str) -> bool:
        """Whether the card lists this file."""
        return any(f.path == f"{self.card.version}/{name}" for f in self.card.files)


class ModelRepository:
    """Read and write a folder of models."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> list[str]:
        """Names of the folders that hold a card, sorted."""
        return sorted(p.parent.name for p in self.root.glob("*/card.json") if _NAME.match(p.parent.name))

    def versions(self, name: str) -> list[str]:
        """Versions of a model, promoted or not, lowest first; none if there is no such model."""
        if not _NAME.match(name):
            return []
        folders = (path.parent.name for path in (self.root / name).glob("*/card.json"))
        return sorted((version for version in folders if _VERSION.match(version)), key=int)

    def promoted(self, name: str) -> str:
        """The version that answers those who name none: that of the card on top of the model's folder.

        Raises:
            ModelNotFound, InvalidCard
        """
        return self._on_top(name).version

    def family(self, name: str) -> str:
        """Family of the promoted version, by its card alone: no other file is read.

        Raises:
            ModelNotFound, InvalidCard
        """
        return self._on_top(name).family

    def load(self, name: str, version: str | None = None) -> StoredModel:
        """Read the card of a version, by default the promoted one, and verify every file on it.

        Raises:
            ModelNotFound: no such model, or no such version of it.
            InvalidCard: the card is missing, incomplete or of another model.
            UnsafeArtefact: a file is a link or not a plain file.
            DigestMismatch: a file is missing or differs from its sha256.
        """
        chosen, versions = version or self.promoted(name), self.versions(name)
        if chosen not in versions:
            raise ModelNotFound(f"no version '{chosen[:20]}' of model '{name[:64]}'; there are: {_listed(versions)}")
        folder = self.root / name
        card = read_card(folder / chosen / "card.json")
        if (card.name, card.version) != (name, chosen):
            raise InvalidCard(f"{folder / chosen}/card.json is that of '{card.name}' version {card.version}")
        for entry in card.files:
            _verify(self.root / place_of(name, entry.path), entry)
        return StoredModel(card, folder / chosen, model_digest(card))

    def publish(self, card: AnyCard, artefacts: Path) -> Path:
        """Put a version into the repository in one step. It is promoted if the model has none that can be served.

        Args:
            card: complete card; its `files` describe what lies in `artefacts`.
            artefacts: <version>/model.onnx and its other files, and beside that folder MODEL_CARD.md and plots.

        Returns:
            The model's folder.

        Raises:
            VersionExists: a version is written once.
            DigestMismatch, UnsafeArtefact: the artefacts are not what the card says.
        """
        for entry in card.files:
            _verify(artefacts / entry.path, entry)
        versions, target = self.versions(card.name), self.root / card.name
        if card.version in versions:
            raise VersionExists(f"model '{card.name}' has a version {card.version}; publish under a higher number")
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{card.name}-", dir=self.root) as name:
            staged = Path(name)
            _stage(card, artefacts, staged)
            for companion in companions_of(card.name):
                _add(staged / companion, self.root / companion, card.version)
            if versions:
                _swap(staged / card.name / card.version, target / card.version)
            else:
                _put_on_top(staged, card)
                _swap(staged / card.name, target)
        if not self._can_be_served(card.name):
            self.promote(card.name, card.version)
        return target

    def promote(self, name: str, version: str) -> None:
        """Let a version answer those who name none. The step is one rename: that of the card on top of the folder.

        Raises:
            RepositoryError: the version must not be served; nothing has changed.
        """
        card = self.load(name, version).card
        with suppress(InvalidCard):  # where the card on top is damaged there is nothing to go back to
            if version != (before := self.promoted(name)):
                self._write_history(name, [*self._history(name), before])
        _put_on_top(self.root, card)

    def previous(self, name: str) -> str | None:
        """The version that was promoted before the one that is now; None if there was none, or it is gone."""
        history = self._history(name)
        return history[-1] if history else None

    def roll_back(self, name: str) -> None:
        """Promote the version that was promoted before.

        Raises:
            ModelNotFound: there is none.
            RepositoryError: it must not be served; nothing has changed.
        """
        history = self._history(name)
        if not history:
            raise ModelNotFound(f"no version of model '{name}' was promoted before")
        _put_on_top(self.root, self.load(name, history[-1]).card)
        self._write_history(name, history[:-1])

    def settle(self, name: str) -> None:
        """Finish a promotion that was cut off after its one step: what is made from the card on top follows it.

        Where the repository cannot be written, whoever wrote into it has to.
        """
        with suppress(OSError, RepositoryError):
            _follow(self.root, self._on_top(name))

    def _on_top(self, name: str) -> AnyCard:
        """The card of the promoted version."""
        if not _NAME.match(name) or not (self.root / name / "card.json").is_file():
            raise ModelNotFound(f"no model '{name[:64]}' in the repository; it holds: {_listed(self.names())}")
        return read_card(self.root / name / "card.json")

    def _can_be_served(self, name: str) -> bool:
        try:
            self.load(name)
        except RepositoryError:
            return False
        return True

    def _history(self, name: str) -> list[str]:
        """Versions that were promoted before the one that is now, oldest first; those that are gone left out.

        The promoted one itself may be last, where a promotion was cut off before or after its one step.
        """
        try:
            listed = json.loads((self.root / name / _HISTORY).read_text())
        except (FileNotFoundError, ValueError):
            return []
        known, promoted = self.versions(name), self.promoted(name)
        history = [version for version in listed if version in known]
        while history and history[-1] == promoted:
            history.pop()
        return history

    def _write_history(self, name: str, history: list[str]) -> None:
        write_text(self.root / name / _HISTORY, json.dumps(history) + "\n")


def model_digest(card: AnyCard) -> str:
    """One sha256 for a version: its files in order of path, and what else its answers depend on."""
    sha = hashlib.sha256()
    for entry in sorted(card.files, key=lambda f: f.path):
        sha.update(f"{entry.path} {entry.sha256}\n".encode())
    for line in card.science:
        sha.update(f"{line}\n".encode())
    return sha.hexdigest()


def describe_files(folder: Path, version: str) -> list[ModelFile]:
    """The card entries of every file in a version's folder."""
    return [
        ModelFile(path=f"{version}/{path.name}", sha256=sha256_of(path), bytes=path.stat().st_size)
        for path in sorted((folder / version).iterdir())
    ]


def sha256_of(path: Path) -> str:
    """sha256 of a file, read in blocks."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _verify(path: Path, entry: ModelFile) -> None:
    if path.is_symlink() or path.parent.is_symlink():
        raise UnsafeArtefact(f"{path} is a symbolic link; a model's files must be plain files")
    if not path.is_file():
        raise DigestMismatch(f"{path} is on the card but missing")
    if path.stat().st_nlink != 1:
        raise UnsafeArtefact(f"{path} has several hard links; a model's files must be its own")
    if sha256_of(path) != entry.sha256:
        raise DigestMismatch(f"{path} differs from the sha256 on its card; restore it or publish the model again")


def _stage(card: AnyCard, artefacts: Path, staged: Path) -> None:
    """Lay out a model's folder, and those of its further graphs, with one version in each.

    What lies in the artefacts beside the version's folder belongs to the version too.
    """
    folder = staged / card.name
    version = folder / card.version
    shutil.copytree(artefacts / card.version, version)
    for path in artefacts.iterdir():
        if path.is_file():
            shutil.copy(path, version)
    (version / "card.json").write_text(card.model_dump_json(indent=2) + "\n")
    for companion, graph in companions_of(card.name).items():
        if (version / graph).exists():
            (staged / companion / card.version).mkdir(parents=True)
            (version / graph).rename(staged / place_of(card.name, f"{card.version}/{graph}"))
            (staged / companion / "config.pbtxt").write_text(triton_config(card, graph))


def _add(staged: Path, target: Path, version: str) -> None:
    """Move a version into a companion: before its card is there, nobody asks for it."""
    if not staged.exists():
        return
    if target.exists():
        _swap(staged / version, target / version)
    else:
        os.rename(staged, target)


def _put_on_top(root: Path, card: AnyCard) -> None:
    """Promote: the card, which is the one step, then what is made from it."""
    folder = root / card.name
    write_text(folder / "card.json", (folder / card.version / "card.json").read_text())
    _follow(root, card)


def _follow(root: Path, card: AnyCard) -> None:
    """Make what is made from the card on top, where it is not so already."""
    folder = root / card.name
    made = {folder / "config.pbtxt": triton_config(card)}
    if (folder / card.version / "MODEL_CARD.md").is_file():
        text = (folder / card.version / "MODEL_CARD.md").read_text()
        made[folder / "MODEL_CARD.md"] = _RELATIVE_LINK.sub(f"]({card.version}/", text)
    for companion, graph in companions_of(card.name).items():
        if (root / companion / card.version).is_dir():
            made[root / companion / "config.pbtxt"] = triton_config(card, graph)
    for path, text in made.items():
        if _text(path) != text:
            write_text(path, text)


def _text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "none"


def _swap(staged: Path, target: Path) -> None:
    """Move `staged` to `target`; what was there is removed only after the new folder is in place."""
    old = staged.with_name(staged.name + ".old")
    if target.exists():
        os.rename(target, old)
    os.rename(staged, target)
    shutil.rmtree(old, ignore_errors=True)
