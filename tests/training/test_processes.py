"""Two processes train as one does."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing

from training import processes
from training.batches import LabelledGraphs, labelled_graphs
from training.checkpoint import load_checkpoint
from training.data.dataset import uniform
from training.evaluation import predict_energies
from training.fit import Epoch, FitConfig, fit
from training.networks.hipnn import HipNN, HipNNConfig
from training.objectives.forces import EnergyForceObjective
from training.objectives.losses import energy_objective

STILL = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
OBJECTIVES: dict[str, Any] = {
    "energies": energy_objective,
    "double_backprop": EnergyForceObjective(mode="double_backprop"),
    "adjoint": EnergyForceObjective(mode="adjoint"),
    "directional_difference": EnergyForceObjective(mode="directional_difference"),
}
FIT = FitConfig(max_epochs=3, batch_size=8, max_batch_size=8)


def waters() -> LabelledGraphs:
    """Water molecules with random labels, and weights that differ."""
    generator = np.random.default_rng(0)
    positions = STILL + generator.normal(scale=0.1, size=(36, 3, 3))
    dataset = uniform([8, 1, 1], positions, generator.normal(size=36), [], generator.normal(size=(36, 3, 3)))
    return labelled_graphs(dataset, 3.0, {"H": 0.0, "O": 0.0}, generator.uniform(0.5, 2.0, (36, 1)).astype(np.float32))


def trained(name: str, folder: Path) -> tuple[list[Epoch], HipNN]:
    """Three epochs on all of them."""
    torch.manual_seed(processes.place())  # the first process's weights must win
    network = HipNN(
        HipNNConfig(
            elements=[1, 8], order=1, features=4, sensitivities=5, interaction_layers=1, atom_layers=1,
            soft_min_angstrom=0.8, soft_max_angstrom=2.5, cutoff_angstrom=3.0,
        )
    )  # fmt: skip
    data = waters()

    def value(trained: HipNN) -> float:
        return float(np.abs(predict_energies(trained, data).error).mean())

    return fit(network, OBJECTIVES[name], data, value, FIT, folder), network


def _one_of_two(place: int, folder: Path) -> None:
    """What torchrun would start."""
    os.environ |= {"WORLD_SIZE": "2", "RANK": str(place), "LOCAL_RANK": str(place)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": (folder / "port").read_text()}
    torch.set_num_threads(1)
    with processes.joined():
        for name in OBJECTIVES:
            history, network = trained(name, folder / name)
            torch.save([[e.train for e in history], network.state_dict()], folder / f"{name}-{place}.pt")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, unused_port: Callable[[], int]) -> Path:
    """The folder in which two processes trained with every objective."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "port").write_text(str(unused_port()))
    torch.multiprocessing.spawn(_one_of_two, (folder,), nprocs=2)  # type: ignore[no-untyped-call]
    return folder


@pytest.fixture(scope="module")
def unused_port() -> Callable[[], int]:
    """A port that was free a moment ago."""
    import socket

    def find() -> int:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            return int(s.getsockname()[1])

    return find


@pytest.mark.parametrize("name", OBJECTIVES)
def test_two_processes_have_the_losses_and_weights_of_one_with_the_same_batches(
    together: Path, tmp_path: Path, name: str
) -> None:
    history, network = trained(name, tmp_path)
    for place in (0, 1):
        losses, weights = torch.load(together / f"{name}-{place}.pt")
        assert losses == pytest.approx([epoch.train for epoch in history], rel=1e-5)
        for key, value in network.state_dict().items():
            assert torch.allclose(weights[key], value, atol=2e-5), key


def test_the_first_process_alone_writes_the_checkpoint_and_the_curve(together: Path) -> None:
    stored = load_checkpoint(together / "energies/checkpoint.pt")
    assert stored is not None
    assert len(stored["history"]) == 3
    assert len((together / "energies/history.csv").read_text().splitlines()) == 4


def test_a_batch_is_shared_out_without_a_frame_lost_or_twice() -> None:
    data = waters()
    whole = [labels.energy for _, labels in data.batches(10)]
    shares = [[labels.energy for _, labels in data.shares(10, place=p, processes=3)] for p in range(3)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(batch.tolist()) == sorted(torch.cat(parts).tolist())


def test_a_process_alone_is_the_first_of_one_and_sums_nothing() -> None:
    assert (processes.several(), processes.count(), processes.place(), processes.is_first()) == (False, 1, 0, True)
    assert processes.as_the_first_has_it({"a": 1}) == {"a": 1}
