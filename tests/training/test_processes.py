"""Two processes train as one does."""

import csv
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing
import yaml
from ase import Atoms
from ase.io import write

from training import processes
from training.batches import LabelledGraphs, labelled_graphs
from training.checkpoint import load_checkpoint, load_run
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


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration of two members, of energies and forces of 60 water molecules."""
    folder = tmp_path_factory.mktemp("data")
    generator, frames = np.random.default_rng(1), []
    for _ in range(60):
        shift = generator.normal(scale=0.1, size=(3, 3))
        atoms = Atoms("OH2", STILL + shift)
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = float((shift**2).sum()), -2.0 * shift
        frames.append(atoms)
    write(folder / "frames.xyz", frames, format="extxyz")
    said = dict.fromkeys(("name", "origin", "licence", "level_of_theory", "citation"), "a test")
    network = {"features": 4, "sensitivities": 5, "interaction_layers": 1, "atom_layers": 1, "members": 2}
    network |= {"elements": [1, 8], "soft_min_angstrom": 0.8, "soft_max_angstrom": 2.5, "cutoff_angstrom": 3.0}
    settings = {
        "pipeline": "committee",
        "name": "waters",
        "purpose": "a test",
        "data": {"format": "extxyz", "path": str(folder / "frames.xyz"), "provenance": said},
        "network": network,
        "forces": {"mode": "adjoint"},
        "fit": {"max_epochs": 3, "batch_size": 8, "max_batch_size": 8},
    }
    (folder / "waters.yaml").write_text(yaml.safe_dump(settings))
    return folder / "waters.yaml"


def test_torchrun_leaves_one_run_that_equals_that_of_one_process(config: Path, tmp_path: Path) -> None:
    together = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    for name, with_others in (("two", together), ("one", ())):
        command = [sys.executable, *with_others, "-m", "understudy", "train", str(config)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "OMP_NUM_THREADS": "1"}
        command += ["--runs", str(tmp_path / name), "--threads", "1"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("trained waters") == 1
        assert [path.name for path in (tmp_path / name).iterdir()] == ["waters"]
    two, one = (tmp_path / name / "waters" for name in ("two", "one"))
    assert {p.relative_to(two) for p in two.rglob("*")} == {p.relative_to(one) for p in one.rglob("*")}
    curves = [
        [float(e["train"]) for e in csv.DictReader((f / "member-1/history.csv").read_text().splitlines())]
        for f in (two, one)
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)
    weights, expected = (load_run(folder).network.state_dict() for folder in (two, one))
    for key, value in expected.items():
        assert torch.allclose(weights[key], value, atol=2e-5), key


def test_a_batch_is_shared_out_without_a_frame_lost_or_twice() -> None:
    data = waters()
    whole = [labels.energy for _, labels in data.batches(10)]
    shares = [[labels.energy for _, labels in data.shares(10, place=p, processes=3)] for p in range(3)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(batch.tolist()) == sorted(torch.cat(parts).tolist())


def test_a_process_alone_is_the_first_of_one_and_sums_nothing() -> None:
    assert (processes.several(), processes.count(), processes.place(), processes.is_first()) == (False, 1, 0, True)
    assert processes.as_the_first_has_it({"a": 1}) == {"a": 1}
