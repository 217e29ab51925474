"""Where the files of a model lie: Triton serves one graph a folder, so each further graph has a folder of its own.

    argon/1/model.onnx, model.pt, reference.npz     the model, beside its card
    argon-members/1/model.onnx                      on the card: 1/model_members.onnx

Such a companion has no card: it is part of its model, and no model of its own.
"""

import re
from typing import Final

from contract.signatures import GRAPHS

GRAPH: Final = "model.onnx"
_FURTHER: Final = re.compile(r"model_([a-z]+)\.onnx")


def folder_of(model: str, file: str) -> str:
    """Folder of a file, and the name under which Triton serves it if it is a graph."""
    further = _FURTHER.fullmatch(file)
    return f"{model}-{further[1]}" if further else model


def place_of(model: str, path: str) -> str:
    """Path relative to the repository of what the card calls `path`, such as "1/model_members.onnx"."""
    version, file = path.split("/")
    folder = folder_of(model, file)
    return f"{folder}/{version}/{file if folder == model else GRAPH}"


def companions_of(model: str) -> dict[str, str]:
    """Every folder that a model may have beside its own, and the graph in it."""
    files = {file for graphs in GRAPHS.values() for file in graphs if file != GRAPH}
    return {folder_of(model, file): file for file in sorted(files)}


def is_companion(name: str) -> bool:
    """Whether this is no name for a model, because it is kept for the companion of another."""
    return name.endswith(tuple(companions_of("")))
