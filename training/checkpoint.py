"""A training run on disk: weights, architecture, references and the record of how they came to be. No pickle.

runs/<name>/config.yaml, run.json, network.json, references.json, weights.safetensors, history.csv, checkpoint.pt
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file, save
from torch import nn

from contract.files import replaced
from contract.repository import StoredModel
from training import processes
from training.errors import NotReady
from training.files import write_json
from training.networks.hipnn import HipNN
from training.networks.potential import Potential, network_of

WEIGHTS: Final = "weights.safetensors"


@dataclass(frozen=True, slots=True)
class Run:
    """A trained network with its atomic references (eV per element) and the record of its training."""

    network: Potential
    references: dict[str, float]
    record: dict[str, Any]


@dataclass(frozen=True, slots=True)
class HipNNRun(Run):
    """A run of the network that this project trains."""

    network: HipNN


def save_run(folder: Path, run: Run) -> None:
    """Write a run; each file is complete or absent. Of several processes, the first one writes it."""
    if not processes.is_first():
        return
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(run.network, folder / WEIGHTS)
    write_json(folder / "network.json", run.network.config.model_dump())
    write_json(folder / "references.json", run.references)
    write_json(folder / "run.json", run.record)


def save_weights(network: nn.Module, path: Path) -> None:
    """Write the weights of a network in one step."""
    with replaced(path) as part:
        part.write_bytes(save({k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}))


def published_network(stored: StoredModel) -> Potential:
    """The network of a published model, from the weights and the architecture that were published with it.

    Raises:
        ModelNotFound: it was published without its weights.
    """
    network = network_of({name: value for name, value in stored.card.architecture.items() if name != "network"})
    network.load_state_dict(load_file(stored.file(WEIGHTS)))
    return network.eval()


def load_any_run(folder: Path) -> Run:
    """Read a run back; weights are plain tensors, nothing in them is executed.

    Raises:
        NotReady: there is no run in this folder.
    """
    if not (folder / "run.json").is_file():
        raise NotReady(f"{folder} holds no run: `understudy train` or `understudy import` makes one")
    network = network_of(json.loads((folder / "network.json").read_text()))
    network.load_state_dict(load_file(folder / WEIGHTS))
    references = json.loads((folder / "references.json").read_text())
    return Run(network, references, json.loads((folder / "run.json").read_text()))


def load_run(folder: Path) -> HipNNRun:
    """Read a run of a HIP-NN back.

    Raises:
        NotReady: there is no run in this folder, or its network is another.
    """
    run = load_any_run(folder)
    if not isinstance(run.network, HipNN):
        raise NotReady(f"{folder} holds a published network, not one that was trained here")
    return HipNNRun(run.network, run.references, run.record)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Store the state of an unfinished fit in one step."""
    with replaced(path) as part:
        torch.save(state, part)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The state of an unfinished fit, or None. Loaded as tensors and plain values only."""
    if not path.exists():
        return None
    state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)  # it may go on on another device
    return state
