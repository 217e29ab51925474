"""A model trained with hippynn 0.1.3 as a training run, ready to be published.

`best_model.pt` holds weights and elements and is read as plain tensors. Cutoff, activation and the start of the
sensitivities stand in `experiment_structure.pt`, a pickle: opening it can run any code, so it is opened only on trust.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from contract.repository import sha256_of
from training.checkpoint import Run
from training.data import DataSpec
from training.extras import MissingPackage
from training.importers.errors import (
    ConflictingSettings,
    MissingSettings,
    UnreadableCheckpoint,
    UnsupportedExperiment,
)
from training.importers.held_out import held_out_parts, import_record, save_import
from training.networks.hippynn_weights import EnergyUnit, HippynnSettings, LengthUnit, load_hippynn

STATE: Final = "best_model.pt"
STRUCTURE: Final = "experiment_structure.pt"
_READ_FROM_STRUCTURE: Final = ("cutoff", "soft_min", "soft_max", "activation", "elements", "energy_node")


class HippynnImport(BaseModel):
    """What to import, and what no state dict says. Lengths in `length_unit`; None if the experiment's file says it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: Literal["hippynn_import"] = "hippynn_import"
    name: str
    purpose: str
    energy_unit: EnergyUnit
    length_unit: LengthUnit
    cutoff: float | None = None
    soft_min: float | None = None
    soft_max: float | None = None
    activation: Literal["softplus"] | None = None
    elements: list[int] | None = None
    energy_node: str | None = None
    held_out: DataSpec | None = Field(None, description="labels the network has not seen; its errors are taken on them")


@dataclass(frozen=True, slots=True)
class _Files:
    """Where the weights are, and where the experiment's structure would be."""

    state: Path
    structure: Path


def import_hippynn(checkpoint: Path, config: HippynnImport, folder: Path, *, trust: bool = False) -> Run:
    """Import one hippynn model and save it as a run.

    Args:
        checkpoint: a state dict (best_model.pt), or the folder of a hippynn experiment.
        config: units, name, and what the files do not say.
        folder: where the run is written.
        trust: open experiment_structure.pt. It is a pickle and can run any code: only for files of your own.

    Returns:
        The run: one member, energies in eV, lengths in angstrom, float32.

    Raises:
        ImportRefused: a subclass that says what is missing or contradicts.
        NetworkError: weights that HipNN cannot hold.
        DataError: labels that cannot be read.
    """
    files = _files(checkpoint)
    state = read_state(files.state)
    settings = _settings(config, read_structure(files.structure) if trust else {})
    imported = load_hippynn(state, settings)
    network = imported.network.to(torch.float32)
    held_out = held_out_parts(config.held_out, imported.references)
    record = import_record(config, network, held_out) | {
        "settings": settings.model_dump(mode="json"),
        "checkpoint": {"file": files.state.name, "sha256": sha256_of(files.state)},
    }
    run = Run(network, imported.references, record)
    save_import(folder, config, run, held_out)
    return run


def read_state(path: Path) -> dict[str, Any]:
    """Read a state dict as tensors and plain values; nothing in the file is executed.

    Raises:
        UnreadableCheckpoint: no such file, or one that holds objects.
    """
    if not path.is_file():
        raise UnreadableCheckpoint(f"{path} is not there. hippynn writes the weights of its best epoch to {STATE}")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError):
        raise UnreadableCheckpoint(
            f"{path} is not a file of tensors alone, so it was not opened further. Give hippynn's {STATE}; a "
            "checkpoint such as best_checkpoint.pt holds Python objects beside the weights"
        ) from None
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict):
        raise UnreadableCheckpoint(f"{path} holds a {type(state).__name__}, not a state dict")
    return state


def read_structure(path: Path) -> dict[str, Any]:
    """What experiment_structure.pt says of the network. Unpickles it: the file can run any code.

    Returns:
        cutoff, soft_min, soft_max in the experiment's unit of length, activation, elements, energy_node.

    Raises:
        UnreadableCheckpoint: no such file.
        MissingPackage: hippynn is not installed.
        UnsupportedExperiment: the energy is not that of one Hipnn with one HEnergy.
    """
    if not path.is_file():
        raise UnreadableCheckpoint(f"{path} is not there; without it give cutoff, soft_min, soft_max and activation")
    try:
        import hippynn.layers.hiplayers
        import hippynn.networks.hipnn
    except ImportError:
        raise MissingPackage("hippynn") from None
    model = torch.load(path, map_location="cpu", weights_only=False)["training_modules"][0]
    network = _only(model, "networks of its own", hippynn.networks.hipnn.Hipnn)[1]
    node = _only(model, "energies", hippynn.graphs.nodes.tags.Energies)[0]
    _refuse_variants(network, hippynn)
    found = {
        "cutoff": float(network.dist_hard_max),
        "soft_min": float(network.dist_soft_min),
        "soft_max": float(network.dist_soft_max),
        "activation": "softplus",
        "energy_node": node,
    }
    return found if network.species_set is None else found | {"elements": [int(z) for z in network.species_set[1:]]}


def _files(checkpoint: Path) -> _Files:
    if checkpoint.is_dir():
        return _Files(checkpoint / STATE, checkpoint / STRUCTURE)
    return _Files(checkpoint, checkpoint.parent / STRUCTURE)


def _settings(config: HippynnImport, found: dict[str, Any]) -> HippynnSettings:
    given = {key: getattr(config, key) for key in _READ_FROM_STRUCTURE if getattr(config, key) is not None}
    for key in given.keys() & found.keys():
        if given[key] != found[key]:
            raise ConflictingSettings(f"{key} = {given[key]} was given, {STRUCTURE} says {found[key]}: leave it out")
    known = found | given
    missing = [key for key in ("cutoff", "soft_min", "soft_max", "activation") if key not in known]
    if missing:
        options = " ".join("--" + key.replace("_", "-") for key in missing)
        raise MissingSettings(
            f"a state dict does not hold {', '.join(missing)}. Give {options} as the network was built, or --trust to "
            f"read them from the experiment's {STRUCTURE}: a pickle, which can run any code, so only one of your own"
        )
    return HippynnSettings(energy_unit=config.energy_unit, length_unit=config.length_unit, **known)


def _only(model: Any, what: str, kind: type) -> tuple[str, Any]:
    """Name and module of the one node of this kind in a hippynn graph."""
    named = [(name, node) for node, name in model.names_dict.items()]
    found = [
        (name, getattr(node, "torch_module", None))
        for name, node in named
        if isinstance(node, kind) or isinstance(getattr(node, "torch_module", None), kind)
    ]
    if len(found) != 1:
        raise UnsupportedExperiment(
            f"the model has {len(found)} {what} ({', '.join(name for name, _ in found) or 'none'}); an import takes "
            "one Hipnn with one HEnergy. To take a part on purpose, import best_model.pt alone and name its energy_node"
        )
    return found[0]


def _refuse_variants(network: Any, hippynn: Any) -> None:
    """What a state dict cannot show: another activation or cutoff function."""
    activation = network.activation
    if type(activation) is not torch.nn.Softplus or activation.beta != 1:
        raise UnsupportedExperiment(f"the network's activation is {activation}; HipNN has Softplus(beta=1) alone")
    layers = hippynn.layers.hiplayers
    for sensitivity in network.sensitivity_layers:
        plain = type(sensitivity) in (layers.InverseSensitivityModule, layers.GaussianSensitivityModule)
        if not plain or type(sensitivity.cutoff) is not layers.sensitivity.CosCutoff:
            raise UnsupportedExperiment(
                f"the network's sensitivity is {sensitivity}; HipNN has hippynn's default alone"
            )
