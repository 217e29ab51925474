"""Survival of dynamics, and what the page of distillation makes of a record."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import molecule

from benchmarks.distillation import LIVING, _compared, networks_of
from benchmarks.distillation_page import figure, tables
from benchmarks.kept import kept_network
from benchmarks.survival import LENGTH_FS, TIMES_FS, Survival, survive
from benchmarks.testing_ground import Parts
from contract.graphs import Graph, build_graph
from contract.structures import checked_structure
from training.batches import LabelledGraphs
from training.fit import Epoch
from training.networks.hipnn import HipNN, HipNNConfig
from training.pipelines.members import fresh_member

KIND = HipNNConfig(elements=[1, 6, 8], features=4, sensitivities=4, interaction_layers=1, atom_layers=1)


def _graph(name: str) -> Graph:
    atoms = molecule(name)
    return build_graph(checked_structure(atoms.numbers, atoms.positions), KIND.cutoff_angstrom)


def _without_forces() -> HipNN:
    """Its energy is the same everywhere."""
    network = HipNN(KIND)
    for block in network.blocks:
        torch.nn.init.zeros_(block.readout)  # type: ignore[arg-type]
    return network


def test_free_atoms_leave_their_bonds_at_the_time_that_their_velocities_say() -> None:
    starts = [_graph(name) for name in ("H2O", "CH4", "H2")]
    found = survive(_without_forces(), starts, 1.0, seed=0)
    finer = survive(_without_forces(), starts, 0.5, seed=0)
    assert np.isfinite(found.failed_fs).all()
    assert len(set(found.failed_fs)) > 1
    assert np.abs(found.failed_fs - finer.failed_fs).max() <= 1.0


def test_a_run_does_not_depend_on_its_neighbours_beyond_their_velocities() -> None:
    torch.manual_seed(0)
    network, starts = fresh_member(KIND, 1), [_graph("H2O"), _graph("CH3OH")]
    alone = survive(network, starts[:1], 2.0, seed=3).failed_fs
    assert survive(network, starts, 2.0, seed=3).failed_fs[0] == alone[0]


def test_shares_alive_fall_from_all_to_those_that_lived_to_the_end() -> None:
    summary = Survival(1.0, np.array([10.0, 400.0, np.inf, np.inf])).summary()
    assert summary["alive"][0] == 1.0
    assert summary["alive"][1] == 0.75
    assert summary["alive"][-1] == 0.5
    assert len(summary["alive"]) == len(TIMES_FS)
    assert summary["median fs"] == f"> {LENGTH_FS:g}"


def test_two_networks_that_live_alike_are_not_told_apart_and_others_are() -> None:
    short, long = (Survival(1.0, np.linspace(first, last, 100)) for first, last in ((1.0, 100.0), (500.0, 900.0)))
    lives = {name: [short] for name in LIVING} | {LIVING[-1]: [long]}
    found = _compared(lives)
    assert found[LIVING[1]][0]["p against one teacher"] == pytest.approx(1.0)
    assert found[LIVING[-1]][0]["p against one teacher"] < 1e-6


def test_the_page_shows_errors_ratios_and_who_lived() -> None:
    lives = {name: [Survival(step, np.array([300.0, np.inf])) for step in (0.5, 1.0)] for name in LIVING}
    values = {
        "mean and 95 % interval over seeds": {
            "arm": {"energy RMSE meV": [12.3, 1], "force RMSE meV/angstrom": [45, 2]}
        },
        "over one teacher, paired": {"arm": {"energy RMSE meV": [0.9, 0.1], "force RMSE meV/angstrom": [0.8, 0.2]}},
        "survival": {"at fs": list(TIMES_FS), "by seed": {"0": _compared(lives)}},
    }
    rows = tables(values).splitlines()
    assert "| arm | 12 | 45 | 0.90 ± 0.10 | 0.80 ± 0.20 |" in rows
    assert f"| {LIVING[0]} | 50 | 50 |" in rows
    assert figure(values["survival"]).startswith("<svg")


def test_a_network_is_trained_once(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> tuple[HipNN, list[Epoch]]:
        made.append(folder)
        return fresh_member(KIND, 1), [Epoch(0, 1.0, 1.0, 4, 1e-3, 2.5, 3.0)]

    first, again = (kept_network(tmp_path / "arm", make) for _ in range(2))
    assert made == [tmp_path / "arm"]
    assert first[1] == again[1] == 2.5
    assert torch.equal(
        first[0].state_dict()["blocks.0.interaction.sensitivity.mu"],
        fresh_member(KIND, 1).state_dict()["blocks.0.interaction.sensitivity.mu"],
    )


def test_every_arm_is_trained_and_found_again(tmp_path: Path) -> None:
    graphs = [_graph(name) for name in ("H2O", "CH4", "CH3OH", "H2CO")]
    rng = np.random.default_rng(0)
    forces = [rng.normal(size=(graph.n_atoms, 3)).astype(np.float32) for graph in graphs]
    labelled = LabelledGraphs(graphs, rng.normal(size=len(graphs)), forces)
    parts = Parts(labelled, labelled, labelled)
    first, again = (networks_of(KIND, parts, 2, 1, 0, tmp_path) for _ in range(2))
    assert set(LIVING) < set(first)
    for name, networks in first.items():
        for one, other in zip(networks, again[name], strict=True):
            assert one.cpu_seconds == other.cpu_seconds
            assert all(
                torch.equal(a, b) for a, b in zip(one.network.parameters(), other.network.parameters(), strict=True)
            )
