"""What every engine must answer: the reference of a shipped model."""

from pathlib import Path
from typing import Any

import numpy as np

from contract.repository import ModelRepository, StoredModel

SHIPPED = Path(__file__).parents[2] / "model_repo"
FAMILIES = {name: ModelRepository(SHIPPED).load(name).card.family for name in ModelRepository(SHIPPED).names()}
NAMES = [name for name, family in FAMILIES.items() if family == "potential"]
MALONALDEHYDE = "malonaldehyde"
Arrays = dict[str, np.ndarray]


def shipped(name: str) -> StoredModel:
    return ModelRepository(SHIPPED).load(name)


def graphs() -> list[tuple[str, str]]:
    """Every model with each of its graphs; a single network has one."""
    members = {name: shipped(name).card.committee.members for name in NAMES}
    return [(name, "model.onnx") for name in NAMES] + [(n, "model_members.onnx") for n in NAMES if members[n] > 1]


def reference(stored: StoredModel) -> tuple[Arrays, Arrays]:
    """Inputs and outputs."""
    with np.load(stored.file("reference.npz")) as arrays:
        held = dict(arrays)
    return (
        {name.removeprefix("in/"): array for name, array in held.items() if name.startswith("in/")},
        {name.removeprefix("out/"): array for name, array in held.items() if name.startswith("out/")},
    )


def assert_alike(outputs: Arrays, expected: Arrays, **tolerance: Any) -> None:
    for name in outputs.keys() & expected.keys():
        np.testing.assert_allclose(outputs[name], expected[name], err_msg=name, **tolerance)
