"""A liquid of known pair forces through the whole pipeline: it is learnt, simulated, reported, and made a candidate."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from contract.structures import Structure, checked_structure
from training.checkpoint import Run, load_run
from training.coarse.frames import BeadFrame, State, write_frames
from training.coarse.pair_splines import PairForce, fit_pair_force
from training.pipelines.admission import candidate_of
from training.pipelines.coarse_graining import CoarseGrainingConfig, labelled, read_liquid
from training.pipelines.registry import read_config, train_run
from training.report import write_report

STATES = (State(kelvin=300, density=0.9), State(kelvin=600, density=0.7))
CUTOFF = 5.0


def _config(frames: Path) -> dict[str, Any]:
    return {
        "pipeline": "coarse_graining",
        "name": "tiny-cg",
        "purpose": "a test",
        "data": {
            "path": str(frames),
            "provenance": {
                "name": "tiny",
                "origin": "made here",
                "licence": "BSD-3-Clause",
                "level_of_theory": "a pair force and noise",
                "citation": "none",
            },
        },
        "bead": {"symbol": "S", "label": "blob", "stands_for": "nothing", "mass_u": 32.0},
        "network": {
            "elements": [16],
            "order": 1,
            "features": 6,
            "sensitivities": 6,
            "soft_min_angstrom": 2.0,
            "soft_max_angstrom": 4.5,
            "cutoff_angstrom": CUTOFF,
            "interaction_layers": 1,
            "atom_layers": 1,
            "members": 2,
        },
        "fit": {
            "schedule": "cosine",
            "learning_rate": 1e-2,
            "batch_size": 2,
            "max_epochs": 12,
            "termination_patience": 12,
        },
        "dynamics": {"settling_ps": 0.05, "sampling_ps": 0.4, "frame_every_ps": 0.05},
        "r_max_angstrom": 5.0,
        "bins": 50,
    }


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of twenty frames at each of two states."""
    folder = tmp_path_factory.mktemp("cg")
    rng = np.random.default_rng(0)
    write_frames(_frames(rng), "S", folder / "frames.extxyz")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(_config(folder / "frames.extxyz")))
    torch.set_num_threads(1)
    train_run(read_config(folder / "tiny.yaml"), folder / "tiny-cg")
    return folder / "tiny-cg"


def _frames(rng: np.random.Generator) -> list[BeadFrame]:
    """Beads that repel, with labels that scatter as mapped forces do."""
    made = []
    for state, length in zip(STATES, (11.0, 12.0), strict=True):
        cell = length * np.eye(3)
        for count in range(40):
            frame = _packed(24, cell, rng)
            noise = rng.normal(scale=0.05, size=(24, 3))
            made.append(BeadFrame(frame.positions, _true(frame) + noise - noise.mean(axis=0), cell, state, count // 4))
    return made


def _true(frame: Structure) -> np.ndarray:
    away = frame.positions[None] - frame.positions[:, None]
    away -= frame.cell[0, 0] * np.round(away / frame.cell[0, 0])
    r = np.linalg.norm(away, axis=2) + np.eye(len(frame)) * 99.0
    f = np.where(r < CUTOFF, 0.6 * (1.0 - (r / CUTOFF) ** 2) ** 2, 0.0)
    return np.asarray(-np.einsum("ij,ijx->ix", f / r, away))


def _packed(count: int, cell: np.ndarray, rng: np.random.Generator) -> Structure:
    placed = np.empty((0, 3))
    while len(placed) < count:
        candidate = rng.random(3) * cell[0, 0]
        away = placed - candidate
        away -= cell[0, 0] * np.round(away / cell[0, 0])
        if (np.linalg.norm(away, axis=1) > 2.3).all():
            placed = np.vstack([placed, candidate])
    return checked_structure(np.full(count, 16), placed, cell, True)


@pytest.fixture(scope="module")
def finished(run: Path) -> Run:
    return load_run(run)


def test_the_mean_force_is_learnt_below_the_scatter_of_the_labels(run: Path) -> None:
    with np.load(run / "predictions.npz") as p:
        target, found, pair = p["test/target_forces"], p["test/forces"], p["test/pair_forces"]
    for predicted in (found, pair):
        assert np.sqrt(np.mean((predicted - target) ** 2)) < 1.5 * 0.05
    assert np.sqrt(np.mean(target**2)) > 2 * 0.05


def test_the_prior_is_part_of_the_network_and_the_energy_is_zero_on_average(finished: Run) -> None:
    assert finished.network.config.prior is not None
    config = CoarseGrainingConfig.model_validate(finished.record["config"])
    train = labelled(read_liquid(config), "train", finished.network.config)
    with torch.no_grad():
        each = [finished.network.atomic_energy(batch) for batch, _ in train.batches(8)]
    np.testing.assert_allclose(torch.cat(each, dim=1).mean(dim=1).numpy(), 0.0, atol=1e-5)


def test_each_state_is_simulated_and_compared_with_its_own_noise(run: Path) -> None:
    entries = json.loads((run / "errors.json").read_text())
    assert [State.model_validate(e["state"]) for e in entries] == list(STATES)
    for entry in entries:
        for field in ("noise", "network", "pair"):
            assert 0.0 <= entry[field]["E_ADF"] <= 1.0
            assert entry[field]["E_RDF"] > 0.0


def test_the_report_shows_forces_and_distributions(run: Path) -> None:
    page = write_report(run).read_text()
    for said in ("E_RDF", "600 K, 0.7 g/cm³", 'id="radial-', 'id="angular-', "pair force", "Make it again"):
        assert said in page


def test_the_candidate_says_what_a_bead_is_and_that_the_energy_is_a_free_one(run: Path) -> None:
    candidate = candidate_of(run)
    assert candidate.energy_is == "free energy"
    assert candidate.domain.beads["S"].mass_u == 32.0
    assert [s.kelvin for s in candidate.domain.states] == [300, 600]
    assert candidate.domain.formulas is None
    assert candidate.test.energy is None
    assert all(svg.startswith("<svg") for svg in candidate.figures.values())
    assert candidate.test.some(3).force_labels is not None
    names = {metric.name for metric in candidate.metrics}
    assert {"forces RMSE", "E_RDF (300 K, 0.9 g/cm3)", "R2 of forces (600 K, 0.7 g/cm3)"} <= names
    assert {c.name for c in candidate.comparisons} >= {"mean predictor", "two halves of the atoms' frames"}


def test_training_at_chosen_states_looks_at_no_other(run: Path, finished: Run) -> None:
    data = {**finished.record["config"]["data"], "states": [STATES[1].model_dump()]}
    config = CoarseGrainingConfig.model_validate({**finished.record["config"], "data": data})
    liquid = read_liquid(config)
    assert liquid.states == (STATES[1],)
    assert {round(s.volume, 6) for part in liquid.parts.values() for s in part.structures} == {12.0**3}
    train = liquid.parts["train"]
    pair = fit_pair_force(train.structures, train.forces, CUTOFF, spacing=0.5)
    assert isinstance(pair, PairForce)
