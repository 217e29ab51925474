"""The receipt of an answer: hashes of what was asked and of the weights, and everything else that it depends on."""

import platform
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.receipts import KIND, SCHEMA_VERSION, BatchMode, request_sha256, structure_sha256

from contract.repository import StoredModel
from contract.signatures import GRAPHS
from contract.structures import Structure
from service.engines import Engine
from service.version import VERSION

if TYPE_CHECKING:
    from service.plane import Answer


def origin_of(stored: StoredModel, engine: Engine) -> dict[str, Any]:
    """The part of a receipt that is the same for every answer of a loaded model."""
    graph = next(iter(GRAPHS[stored.card.family].values()))
    return {
        "kind": KIND,
        "schema_version": SCHEMA_VERSION,
        "model": stored.card.name,
        "version": stored.card.version,
        "digest": stored.digest,
        "engine": engine.description.engine,
        "engine_version": engine.description.version,
        "device": engine.description.device,
        "dtype": next(spec.dtype for spec in graph.outputs if spec.name in ("forces", "velocity")),
        "software": _software(),
        "platform": _platform(),
    }


def receipt_of(answer: "Answer") -> dict[str, Any]:
    """The receipt of an answer, see `understudy.receipts.Receipt`."""
    inputs = [sha256_of(prediction.sample.structure) for prediction in answer.predictions]
    teacher = next((opinion.model for opinion in answer.opinions.values()), None)
    return {
        **answer.model.origin,
        "teacher": None if teacher is None else {name: teacher.origin[name] for name in ("model", "version", "digest")},
        "input_sha256": request_sha256(inputs),
        "inputs": inputs,
        "options": answer.options.effective(),
        "batch_mode": _batch_mode(answer),
    }


def sha256_of(structure: Structure) -> str:
    """SHA-256 of a structure's canonical form."""
    return structure_sha256(structure.numbers, structure.positions, structure.cell, structure.pbc)


def _batch_mode(answer: "Answer") -> BatchMode:
    if answer.options.deterministic:
        return "deterministic"
    return "alone" if all(p.part.batch == 1 for p in answer.predictions) else "batched"


@cache
def _software() -> Mapping[str, str]:
    libraries = {name: version(name) for name in ("numpy", "vesin")}
    return {"understudy": VERSION, "python": platform.python_version(), **libraries}


@cache
def _platform() -> str:
    """System, machine and processor: on another one the last bits may differ."""
    return f"{platform.system()} {platform.machine()}, {_processor()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "processor not known")
