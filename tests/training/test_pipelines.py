"""A committee and its student, end to end on a small analytic world: trained, interrupted, resumed, evaluated."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import write

from contract.repository import ModelRepository, sha256_of
from training.checkpoint import load_run, published_network
from training.errors import Diverged, NotReady
from training.evaluation import load_predictions
from training.export.potential import export_potential
from training.fit import FitConfig
from training.gate.errors import OutdatedVersion
from training.networks.hipnn import HipNNConfig
from training.objectives.forces import EnergyForceObjective
from training.pipelines.admission import candidate_of
from training.pipelines.committee import CommitteeConfig, train_committee
from training.pipelines.distillation import DistillationConfig, train_student
from training.pipelines.errors import OtherRun
from training.pipelines.members import fresh_member, stack
from training.pipelines.resumption import begin_run
from training.publish import publish

ATOMS_PER_FRAME = 3
FIT = {"learning_rate": 5e-3, "batch_size": 8, "max_batch_size": 16, "averaging": 0.9, "seed": 3}


def morse(positions: np.ndarray) -> tuple[float, np.ndarray]:
    """Energy (eV) and forces (eV/angstrom) of three atoms bound by Morse springs."""
    energy, forces = 0.0, np.zeros_like(positions)
    for i in range(len(positions)):
        for j in range(i):
            d = positions[i] - positions[j]
            r = float(np.linalg.norm(d))
            x = np.exp(-1.5 * (r - 1.2))
            energy += (1 - x) ** 2
            pull = 2 * (1 - x) * x * 1.5 * d / r
            forces[i] -= pull
            forces[j] += pull
    return energy, forces


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    generator = np.random.default_rng(0)
    equilibrium = 1.2 * np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 0.866, 0.0]])
    frames = []
    for _ in range(160):
        positions = equilibrium + generator.normal(0, 0.08, (ATOMS_PER_FRAME, 3))
        energy, forces = morse(positions)
        atoms = Atoms("H2O", positions=positions)
        atoms.info["REF_energy"] = energy
        atoms.arrays["REF_forces"] = forces
        frames.append(atoms)
    path = tmp_path_factory.mktemp("data") / "morse.xyz"
    write(path, frames, format="extxyz")
    return path


def committee_config(data: Path, **fit: object) -> CommitteeConfig:
    return CommitteeConfig.model_validate(
        {
            "name": "morse-committee",
            "purpose": "test",
            "data": {
                "format": "extxyz",
                "path": str(data),
                "provenance": {
                    "name": "three Morse springs",
                    "origin": "this test",
                    "licence": "BSD-3-Clause",
                    "level_of_theory": "Morse",
                    "citation": "none",
                },
            },
            "network": HipNNConfig(
                elements=[1, 8], features=6, sensitivities=8, interaction_layers=1, atom_layers=1, members=3,
                soft_min_angstrom=0.7, soft_max_angstrom=2.5, cutoff_angstrom=3.0,
            ).model_dump(),
            "folds": 3,
            "fit": FitConfig(**{**FIT, **fit}).model_dump(),
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "morse-committee"
    train_committee(committee_config(data, max_epochs=12), folder)
    return folder


def test_a_committee_learns_and_beats_the_mean_on_frames_it_never_saw(trained: Path) -> None:
    test = load_predictions(trained, "test")
    assert test.energy.shape[0] == 3
    assert np.abs(test.error).mean() < 0.7 * np.abs(test.target - test.target.mean()).mean()


def test_the_run_tells_where_its_weights_came_from(trained: Path) -> None:
    record = load_run(trained).record
    assert record["data"][0]["name"] == "three Morse springs"
    assert record["split"]["train"] + record["split"]["valid"] + record["split"]["test"] == 160
    assert record["epochs"] == 12
    assert record["cpu_seconds"] > 0


def test_an_interrupted_fit_goes_on_to_the_same_weights(data: Path, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "morse-committee"
    train_committee(committee_config(data, max_epochs=5), folder)
    train_committee(committee_config(data, max_epochs=12), folder)
    whole, resumed = load_run(trained).network.state_dict(), load_run(folder).network.state_dict()
    for name, weights in whole.items():
        assert np.array_equal(weights.numpy(), resumed[name].numpy()), name


def test_a_run_of_another_configuration_is_not_gone_on_with(data: Path, trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "morse-committee"
    begin_run(committee_config(data, max_epochs=12, learning_rate=1e-3), folder)  # nothing was trained: try another
    begin_run(committee_config(data, max_epochs=12), folder)
    shutil.copy(trained / "checkpoint.pt", folder)
    begin_run(committee_config(data, max_epochs=20, device="cuda", tensorboard=True), folder)  # longer, elsewhere
    with pytest.raises(OtherRun, match=r"different: fit\.learning_rate\. To start anew"):
        begin_run(committee_config(data, max_epochs=12, learning_rate=1e-3), folder)
    assert "0.005" in (folder / "config.yaml").read_text()


def test_a_run_whose_rate_follows_a_cosine_keeps_its_epochs(data: Path, trained: Path, tmp_path: Path) -> None:
    begin_run(committee_config(data, max_epochs=12, schedule="cosine"), tmp_path)
    shutil.copy(trained / "checkpoint.pt", tmp_path)
    with pytest.raises(OtherRun, match=r"different: fit\.max_epochs"):
        begin_run(committee_config(data, max_epochs=20, schedule="cosine"), tmp_path)


def test_a_training_that_leaves_the_finite_numbers_is_stopped_at_once(data: Path, tmp_path: Path) -> None:
    wild = committee_config(data, max_epochs=50, learning_rate=1e30, termination_patience=50)
    with pytest.raises(Diverged, match=r"epoch \d+: the loss is (nan|inf).*fit\.learning_rate"):
        train_committee(wild, tmp_path)
    assert not (tmp_path / "run.json").exists()


def test_epochs_are_logged_for_tensorboard_and_an_interrupted_log_goes_on(data: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for epochs in (2, 3):
        train_committee(committee_config(data, max_epochs=epochs, tensorboard=True), tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    history = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    for tag, column in (("loss/training", "train"), ("error/validation", "valid"), ("learning_rate", "learning_rate")):
        logged = [(event.step, event.value) for event in events.Scalars(tag)]
        assert logged == [(i, pytest.approx(float(line[column]), rel=1e-6)) for i, line in enumerate(history)]
    assert len(history) == 3


def test_members_that_saw_different_folds_differ(trained: Path) -> None:
    std = load_predictions(trained, "test").std
    assert std is not None
    assert (std > 0).all()


def test_a_student_is_distilled_from_the_committees_mean_forces(trained: Path) -> None:
    config = DistillationConfig(
        name="morse",
        purpose="test",
        teacher="morse-committee",
        network=HipNNConfig(
            elements=[1, 8], features=4, sensitivities=6, interaction_layers=1, atom_layers=1, members=2,
            soft_min_angstrom=0.7, soft_max_angstrom=2.5, cutoff_angstrom=3.0,
        ),
        forces=EnergyForceObjective(mode="adjoint"),
        fit=FitConfig(**FIT, max_epochs=6),
    )  # fmt: skip
    student = train_student(config, trained.parent / "morse")
    assert student.network.config.members == 2
    test = load_predictions(trained.parent / "morse", "test")
    assert np.abs(test.error).mean() < np.abs(test.target - test.target.mean()).mean()
    first, second = test.energy
    assert not np.allclose(first, second)


@pytest.fixture(scope="module")
def repository(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> ModelRepository:
    models = ModelRepository(tmp_path_factory.mktemp("models"))
    publish(candidate_of(trained), models)
    return models


def test_a_run_that_passes_the_gate_is_served_with_a_complete_card(repository: ModelRepository) -> None:
    stored = repository.load("morse-committee")
    card = stored.card
    assert all(check.passed for check in card.checks)
    assert len(card.checks) > 20
    assert card.domain.formulas == ["H2O"]
    assert card.committee.energy is not None
    assert [c.nominal for c in card.committee.energy.coverage] == [0.68, 0.95]
    assert card.domain.surroundings is not None
    assert card.compared_with[0].name == "mean predictor"
    beside = {"model.pt", "reference.npz", "weights.safetensors", "environments.npz", "MODEL_CARD.md"}
    assert {"model.onnx", *beside} <= {p.name for p in stored.folder.iterdir()}
    assert stored.file("model_members.onnx").parent == repository.root / "morse-committee-members" / "1"
    people = (stored.folder.parent / "MODEL_CARD.md").read_text()
    for plot in ("parity.svg", "calibration.svg", "batching.svg"):
        assert plot in people
        assert (stored.folder / plot).exists()


def test_the_embedded_engine_reproduces_the_reference_answers(repository: ModelRepository) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    stored = repository.load("morse-committee")
    with np.load(stored.file("reference.npz")) as arrays:
        inputs = {k.removeprefix("in/"): v for k, v in arrays.items() if k.startswith("in/")}
        expected = {k.removeprefix("out/"): v for k, v in arrays.items() if k.startswith("out/")}
    session = onnxruntime.InferenceSession(stored.file("model.onnx"), providers=["CPUExecutionProvider"])
    for name, value in zip(expected, session.run(list(expected), inputs), strict=True):
        assert np.allclose(value, expected[name], rtol=1e-5, atol=1e-6), name


def test_a_published_model_can_be_exported_again_from_its_own_folder(
    repository: ModelRepository, trained: Path, tmp_path: Path
) -> None:
    stored = repository.load("morse-committee")
    export_potential(published_network(stored), tmp_path)
    for name in ("model.onnx", "model_members.onnx"):
        assert sha256_of(tmp_path / name) == sha256_of(stored.file(name))


def test_publishing_again_makes_the_next_version_and_an_old_number_is_refused(
    repository: ModelRepository, trained: Path
) -> None:
    with pytest.raises(OutdatedVersion, match="version 1"):
        publish(candidate_of(trained), repository, version="1")


def test_a_run_that_is_not_finished_cannot_be_published(tmp_path: Path) -> None:
    with pytest.raises(NotReady, match="understudy train"):
        candidate_of(tmp_path)


def test_members_with_sensitivities_of_their_own_are_not_stacked() -> None:
    config = HipNNConfig(elements=[1, 6], features=4, sensitivities=4)
    alike = [fresh_member(config, seed) for seed in (0, 1)]
    assert stack(alike).config.members == 2
    with torch.no_grad():
        next(iter(alike[0].blocks[0].interaction.sensitivity.parameters())).add_(0.1)
    with pytest.raises(ValueError, match="sensitivit"):
        stack(alike)
