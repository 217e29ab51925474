"""The configuration of a run in its folder, and whether the folder may be gone on with.

Checkpoints, and what a loop was told, belong to the configuration that they were begun with.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import BaseModel, ValidationError

from contract.files import write_text
from training import processes
from training.pipelines.errors import OtherRun

CONFIG: Final = "config.yaml"
_MADE: Final = ("checkpoint.pt", "run.json", "taught.extxyz", "active.db")
_FREE: Final = (
    *("purpose", "fit.max_cpu_minutes", "fit.termination_patience", "fit.device", "fit.tensorboard"),
    *("loop.generations", "stop", "validation"),
)


def begin_run(config: BaseModel, folder: Path) -> None:
    """Keep the configuration with its run, new or interrupted.

    Raises:
        OtherRun: the folder holds checkpoints of another configuration.
    """
    refuse_another(config, folder)
    write_config(config, folder)


def write_config(config: BaseModel, folder: Path) -> None:
    """Keep the configuration with its run."""
    folder.mkdir(parents=True, exist_ok=True)
    if processes.is_first():
        write_text(folder / CONFIG, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def refuse_another(config: BaseModel, folder: Path) -> None:
    """Refuse a folder in which a run of another configuration was begun; it may go on for longer, or elsewhere.

    Raises:
        OtherRun: naming what differs, and how to start anew.
    """
    path = folder / CONFIG
    if not path.is_file() or not any(path.name in _MADE for path in folder.rglob("*")):
        return
    known, wanted = _known(type(config), path), _settings(config)
    free = _free(wanted)
    changed = sorted(key for key in {*known, *wanted} if known.get(key) != wanted.get(key) and not _within(key, free))
    if changed:
        raise OtherRun(
            f"{folder} holds a run that was begun with another configuration; different: {', '.join(changed)}. "
            "To start anew move the folder away or delete it, or give this run another name; to go on, restore these."
        )


def _free(wanted: dict[str, Any]) -> tuple[str, ...]:
    """What may change: how long and where; a rate that follows a cosine ends with its epochs."""
    return (*_FREE, "fit.max_epochs") if wanted.get("fit.schedule") == "plateau" else _FREE


def _within(key: str, names: tuple[str, ...]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in names)


def _known(kind: type[BaseModel], path: Path) -> dict[str, Any]:
    """Settings as they were, with the defaults of what has been added since."""
    stored = yaml.safe_load(path.read_text())
    try:
        return _settings(kind.model_validate(stored))
    except ValidationError:
        return dict(_flat(stored))


def _settings(config: BaseModel) -> dict[str, Any]:
    return dict(_flat(config.model_dump(mode="json")))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings by dotted names."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value
