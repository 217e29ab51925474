"""The model repository on disk: one folder a model, checked by sha256, safe to open.

    <name>/config.pbtxt, card.json, MODEL_CARD.md, plots, <version>/model.onnx, model.pt, reference.npz, ...
    <name>-members/config.pbtxt, <version>/model.onnx

Publishing writes complete folders beside the old ones and renames them into place, the card with the last, so a reader
never sees half a model.
"""

import hashlib
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from contract.card import ModelCard, ModelFile, read_card
from contract.errors import DigestMismatch, ModelNotFound, UnsafeArtefact
from contract.layout import companions_of, place_of
from contract.triton_config import triton_config

_NAME = re.compile(r"^[a-z0-9][a-z0-9._-]{0,63}$")


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A verified version of a model.

    Attributes:
        card: its model card.
        folder: the version's folder, holding model.onnx.
        digest: sha256 over the digests of all its files and its card's science (see `model_digest`).
    """

    card: ModelCard
    folder: Path
    digest: str

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

    def load(self, name: str) -> StoredModel:
        """Read a model's card and verify every file on it.

        Raises:
            ModelNotFound: no such model.
            InvalidCard: the card is missing, incomplete or of another model.
            UnsafeArtefact: a file is a link or not a plain file.
            DigestMismatch: a file is missing or differs from its sha256.
        """
        if not _NAME.match(name) or not (self.root / name / "card.json").is_file():
            raise ModelNotFound(f"no model '{name}' in the repository; it holds: {', '.join(self.names()) or 'none'}")
        folder = self.root / name
        card = read_card(folder / "card.json")
        for entry in card.files:
            _verify(self.root / place_of(card.name, entry.path), entry)
        return StoredModel(card, folder / card.version, model_digest(card))

    def publish(self, card: ModelCard, artefacts: Path) -> Path:
        """Put a version into the repository in one step.

        Args:
            card: complete card; its `files` describe what lies in `artefacts`.
            artefacts: a folder laid out as the model's folder (<version>/model.onnx, MODEL_CARD.md, plots).

        Returns:
            The model's folder.

        Raises:
            DigestMismatch, UnsafeArtefact: the artefacts are not what the card says.
        """
        for entry in card.files:
            _verify(artefacts / entry.path, entry)
        self.root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{card.name}-", dir=self.root) as name:
            staged = Path(name)
            _stage(card, artefacts, staged)
            for companion in companions_of(card.name):
                _add(staged / companion, self.root / companion, card.version)
            _swap(staged / card.name, self.root / card.name)
            for companion in companions_of(card.name):
                _leave_only(self.root / companion, card.version, staged / companion)
        return self.root / card.name


def model_digest(card: ModelCard) -> str:
    """One sha256 for a version: its files in order of path, and the references that are added outside the graph."""
    sha = hashlib.sha256()
    for entry in sorted(card.files, key=lambda f: f.path):
        sha.update(f"{entry.path} {entry.sha256}\n".encode())
    for element, energy in sorted(card.atomic_reference_ev.items()):
        sha.update(f"{element} {energy!r}\n".encode())
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


def _stage(card: ModelCard, artefacts: Path, staged: Path) -> None:
    """Lay out a model's folder, and those of its further graphs, in an empty folder."""
    folder = staged / card.name
    shutil.copytree(artefacts, folder)
    folder.chmod(0o755)
    (folder / "card.json").write_text(card.model_dump_json(indent=2) + "\n")
    (folder / "config.pbtxt").write_text(triton_config(card))
    for companion, graph in companions_of(card.name).items():
        path = f"{card.version}/{graph}"
        if (folder / path).exists():
            (staged / companion / card.version).mkdir(parents=True)
            (folder / path).rename(staged / place_of(card.name, path))
            (staged / companion / "config.pbtxt").write_text(triton_config(card, graph))


def _add(staged: Path, target: Path, version: str) -> None:
    """Move a version into a companion, beside the one that the old card still names."""
    if staged.exists():
        target.mkdir(exist_ok=True)
        _swap(staged / version, target / version)


def _leave_only(companion: Path, version: str, staged: Path) -> None:
    """Take from a companion what the new card does not name, all of it if the card names nothing in it."""
    if not staged.exists():
        shutil.rmtree(companion, ignore_errors=True)
        return
    os.replace(staged / "config.pbtxt", companion / "config.pbtxt")
    for old in companion.iterdir():
        if old.is_dir() and old.name != version:
            shutil.rmtree(old)


def _swap(staged: Path, target: Path) -> None:
    """Move `staged` to `target`; what was there is removed only after the new folder is in place."""
    old = staged.with_name(staged.name + ".old")
    if target.exists():
        os.rename(target, old)
    os.rename(staged, target)
    shutil.rmtree(old, ignore_errors=True)
