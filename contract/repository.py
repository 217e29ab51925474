"""The model repository on disk: one folder a model, checked by sha256, safe to open.

    <name>/config.pbtxt, card.json, MODEL_CARD.md, plots, <version>/model.onnx, model.pt, reference.npz, ...

Publishing writes a complete folder beside the old one and renames it into place, so a reader never sees half a model.
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
        if f"{self.card.version}/{name}" not in {f.path for f in self.card.files}:
            raise ModelNotFound(f"model '{self.card.name}' version {self.card.version} has no file {name}")
        return self.folder / name

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
            _verify(folder, entry)
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
            _verify(artefacts, entry)
        self.root.mkdir(parents=True, exist_ok=True)
        staged = Path(tempfile.mkdtemp(prefix=f".{card.name}-", dir=self.root))
        shutil.copytree(artefacts, staged, dirs_exist_ok=True)
        (staged / "card.json").write_text(card.model_dump_json(indent=2) + "\n")
        (staged / "config.pbtxt").write_text(triton_config(card))
        staged.chmod(0o755)
        return _swap(staged, self.root / card.name)


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


def _verify(folder: Path, entry: ModelFile) -> None:
    path = folder / entry.path
    if path.is_symlink() or path.parent.is_symlink():
        raise UnsafeArtefact(f"{path} is a symbolic link; a model's files must be plain files")
    if not path.is_file():
        raise DigestMismatch(f"{path} is on the card but missing")
    if path.stat().st_nlink != 1:
        raise UnsafeArtefact(f"{path} has several hard links; a model's files must be its own")
    if sha256_of(path) != entry.sha256:
        raise DigestMismatch(f"{path} differs from the sha256 on its card; restore it or publish the model again")


def _swap(staged: Path, target: Path) -> Path:
    """Move `staged` to `target`; what was there is removed only after the new folder is in place."""
    old = staged.with_name(staged.name + ".old")
    if target.exists():
        os.rename(target, old)
    os.rename(staged, target)
    shutil.rmtree(old, ignore_errors=True)
    return target
