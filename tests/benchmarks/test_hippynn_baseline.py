"""The comparison with hippynn is fair: same frames, same labels, same loss, within its budget, measured right."""

import json
import math
import os
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from contract.card import Comparison, DataSource
from training.batches import fit_references, labelled_graphs
from training.data.dataset import Dataset, ragged, uniform
from training.data.splits import split_at_random
from training.evaluation import predict_forces
from training.fit import FitConfig
from training.networks.hipnn import HipNNConfig
from training.objectives.forces import EnergyForceObjective
from training.objectives.losses import rmse_plus_mae
from training.pipelines.committee import CommitteeConfig
from training.pipelines.distillation import DistillationConfig
from training.pipelines.preparation import Prepared, member_weights
from training.pipelines.registry import train_run
from training.schedule import cosine

KERNEL = "_pytorch_raw"  # needs no compiler
NETWORK = HipNNConfig(
    elements=[1, 8],
    order=2,
    features=4,
    sensitivities=6,
    interaction_layers=1,
    atom_layers=1,
    soft_min_angstrom=0.7,
    soft_max_angstrom=2.5,
    cutoff_angstrom=3.0,
)
FIT = {"schedule": "cosine", "learning_rate": 5e-3, "batch_size": 8, "max_epochs": 4, "seed": 3}
SOURCE = DataSource(
    name="springs",
    origin="here",
    licence="CC0-1.0",
    sha256="0" * 64,
    count=1,
    level_of_theory="none",
    citation="nobody",
)
HOME = 1.2 * np.array([[0.0, 0, 0], [1, 0, 0], [0.5, 0.866, 0]])


@pytest.fixture(scope="module")
def training() -> ModuleType:
    """The module that trains hippynn; importing hippynn warns."""
    os.environ["HIPPYNN_USE_CUSTOM_KERNELS"] = KERNEL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("hippynn")
        import benchmarks.hippynn_training as module
    return module


@pytest.fixture
def baseline(training: ModuleType) -> ModuleType:
    import benchmarks.hippynn_baseline as module

    return module


@pytest.fixture
def task_of(training: ModuleType) -> Callable[..., object]:
    """A task on water with springs: task_of(forces=None, energy_scale_ev=None, data=None, **fit)."""

    def make(
        *, forces: object = None, scale: float | None = None, data: Dataset | None = None, **fit: object
    ) -> object:
        dataset = springs() if data is None else data
        parts = split_at_random(dataset)
        prepared = Prepared(dataset, parts, fit_references(dataset.select(parts.train)))
        return training.Task("springs", NETWORK, prepared, FitConfig(**{**FIT, **fit}), forces, scale, 1, 10.0, 4)

    return make


def labels(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    bonds = positions[:, :, None] - positions[:, None]
    lengths = np.linalg.norm(bonds, axis=3) + np.eye(3)
    stretched = np.where(np.eye(3), 0.0, lengths - 1.2)
    pull = -2.0 * (stretched[..., None] * bonds / lengths[..., None]).sum(axis=2)
    return 0.5 * (stretched**2).sum(axis=(1, 2)), pull


def springs(frames: int = 80) -> Dataset:
    positions = HOME + np.random.default_rng(0).normal(0, 0.08, (frames, 3, 3))
    energy, forces = labels(positions)
    return uniform([1, 1, 8], positions, energy - 100.0, [SOURCE], forces)


def test_hippynn_sees_the_frames_labels_and_weights_of_the_run(training: ModuleType, task_of: Callable) -> None:
    task = task_of(scale=2.0)
    data, train = task.prepared.dataset, task.prepared.split.train
    arrays = training.arrays(task)
    assert np.array_equal(arrays["Z"].numpy(), data.numbers.reshape(-1, 3))
    assert np.array_equal(arrays["R"].numpy(), data.positions.reshape(-1, 3, 3).astype(np.float32))
    assert np.array_equal(arrays["F"].numpy(), data.forces.reshape(-1, 3, 3).astype(np.float32))
    labelled = task.prepared.graphs("train", NETWORK.cutoff_angstrom)
    assert np.allclose(arrays["E"].numpy()[train, 0], labelled.energy, atol=1e-7)
    assert np.array_equal(arrays["W"].numpy()[train], member_weights(labelled.energy, 1, 2.0, folds=0, seed=0))


def test_atoms_of_small_frames_are_padded_behind(training: ModuleType, task_of: Callable) -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 4, 60)
    data = ragged([[8, 1, 1][:n] for n in sizes], [rng.normal(size=(n, 3)) for n in sizes], sizes * 1.0, [SOURCE])
    species = training.arrays(task_of(data=data))["Z"]
    assert species.shape == (60, 3)
    assert np.array_equal((species > 0).sum(dim=1).numpy(), sizes)
    assert all((row[:n] > 0).all() for row, n in zip(species, sizes, strict=True))


FORCES = EnergyForceObjective(energy_weight=0.7, force_weight=0.3)


@pytest.mark.parametrize(("forces", "scale"), [(None, 0.02), (FORCES, None)])
def test_the_loss_is_that_of_the_run(
    training: ModuleType, task_of: Callable, forces: EnergyForceObjective | None, scale: float | None
) -> None:
    task = task_of(forces=forces, scale=scale)
    torch.manual_seed(1)
    with training.quietly():
        modules, energy = training.graph(task)
        database = training.database_of(task, modules, seed=0)
        training.hierarchical_energy_initialization(energy, database)
        batch = next(iter(database.make_generator("valid", "eval", 100)))
        given, wanted = batch[: len(database.inputs)], batch[len(database.inputs) :]
        loss = float(modules.loss(*modules.model(*given), *wanted)[0])
    network, references = training.as_ours(task, modules.model.state_dict())
    valid = task.prepared.part("valid")
    weight = member_weights(valid.energy, 1, scale, folds=0, seed=0)
    answer, answered = predict_forces(network, labelled_graphs(valid, NETWORK.cutoff_angstrom, references))
    expected = float(rmse_plus_mae(torch.from_numpy(answer.error)[None], torch.from_numpy(weight).T))
    if forces is not None:
        off = torch.from_numpy(answered - valid.forces).flatten()[None]
        expected = 0.7 * expected + 0.3 * float(rmse_plus_mae(off))
    assert loss == pytest.approx(expected, rel=1e-4)


def test_forces_that_a_run_weighs_are_refused(training: ModuleType, task_of: Callable) -> None:
    task = task_of(forces=FORCES, scale=1.0)
    with training.quietly():
        modules, _ = training.graph(task)
        with pytest.raises(ValueError, match="energy_scale_ev"):
            training.database_of(task, modules, 0)


def test_a_training_ends_with_the_epoch_that_passes_its_budget(training: ModuleType, task_of: Callable) -> None:
    assert training.train(task_of(), training.Budget(epochs=3), 0, KERNEL).epochs == 3
    assert training.train(task_of(), training.Budget(cpu_seconds=1e-3), 0, KERNEL).epochs == 1


def test_hippynn_learns_here(training: ModuleType, task_of: Callable) -> None:
    task = task_of()
    trained = training.train(task, training.Budget(epochs=25), 0, KERNEL)
    errors = {metric.name: metric.value for metric in trained.metrics}
    spread = 1e3 * np.abs(task.prepared.part("test").energy - task.prepared.part("train").energy.mean()).mean()
    assert errors["energy MAE"] < 0.5 * spread
    assert trained.cpu_seconds > 0


def test_errors_are_those_of_hippynns_own_answers(training: ModuleType, task_of: Callable) -> None:
    task = task_of()
    torch.manual_seed(1)
    with training.quietly():
        modules, energy = training.graph(task)
        database = training.database_of(task, modules, seed=0)
        training.hierarchical_energy_initialization(energy, database)
        batch = next(iter(database.make_generator("test", "eval", 100)))
        answer = modules.model(*batch[: len(database.inputs)])[0].detach()
    target = dict(zip(database.targets, batch[len(database.inputs) :], strict=True))["E"]
    errors = {metric.name: metric.value for metric in training.held_out_errors(task, modules.model.state_dict())}
    assert errors["energy MAE"] == pytest.approx(1e3 * float((answer - target).abs().mean()), rel=1e-4)
    assert "forces RMSE" in errors


def test_the_rate_follows_the_cosine_by_the_share_of_the_budget(training: ModuleType) -> None:
    fit = FitConfig(schedule="cosine", learning_rate=1e-3, batch_size=10)
    pace = training.Pace(training.Budget(epochs=4), fit, frames=100)
    rates = []
    for share in (0.0, 0.05, 0.5, 2.0):
        pace.epochs = 4 * share
        rates.append(pace.rate())
    assert rates == pytest.approx([cosine(k, 1000, 1e-3) for k in (0, 50, 500, 999)])
    assert rates[1] == pytest.approx(1e-3)
    assert rates[3] == pytest.approx(1e-5)


def test_the_plateau_schedule_is_hippynns_own(training: ModuleType, task_of: Callable) -> None:
    fit = task_of(schedule="plateau", max_batch_size=32, patience=0, termination_patience=2).fit
    with training.quietly():
        controller = training.Pace(training.Budget(epochs=50), fit, 80).controller(torch.nn.Linear(1, 1))
    more = [controller.push_epoch(epoch, epoch == 0, 1.0) for epoch in range(5)]
    assert controller.batch_size == 32
    assert more == [True, True, False, False, False]


def test_periodic_frames_are_refused(training: ModuleType, task_of: Callable) -> None:
    data = springs()
    with training.quietly():
        modules, _ = training.graph(task_of())
        with pytest.raises(ValueError, match="molecules in vacuum"):
            training.database_of(task_of(data=replace(data, pbc=np.ones((len(data), 3), bool))), modules, 0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committee on energies, and its student."""
    folder = tmp_path_factory.mktemp("runs")
    positions = HOME + np.random.default_rng(0).normal(0, 0.08, (160, 3, 3))
    np.savez(folder / "springs.npz", numbers=[1, 1, 8], positions=positions, energy=labels(positions)[0])
    provenance = dict.fromkeys(("name", "origin", "licence", "level_of_theory", "citation"), "test")
    path = str(folder / "springs.npz")
    source = {"format": "qm22", "path": path, "energy_zero": "relative", "provenance": provenance}
    shape = NETWORK.model_dump()
    given = {"name": "many", "purpose": "test", "data": source, "network": {**shape, "members": 3}, "fit": FIT}
    train_run(CommitteeConfig.model_validate(given), folder / "many")
    given = {"name": "light", "purpose": "test", "teacher": "many", "network": {**shape, "members": 2}, "fit": FIT}
    train_run(DistillationConfig.model_validate(given), folder / "light")
    return folder


def test_a_run_gets_its_comparisons_and_they_stand_in_its_report(runs: Path, baseline: ModuleType) -> None:
    finding = baseline.compare(runs / "many", {baseline.EQUAL_EPOCHS: (0, 1)}, kernel=KERNEL)
    stored = [Comparison.model_validate(x) for x in json.loads((runs / "many" / "comparisons.json").read_text())]
    assert [entry.name for entry in stored] == ["mean predictor", "hippynn 0.1.3, equal epochs"]
    metric = stored[1].metrics[0]
    assert metric.interval_95 is not None
    assert metric.interval_95[0] < metric.value < metric.interval_95[1]
    assert "4 epochs" in stored[1].notes
    assert "hippynn 0.1.3, equal epochs" in (runs / "many" / "report.html").read_text()
    values = finding.values
    members = [member["energy MAE meV"] for member in values["this run, each member"]]
    assert values["this run, one member (mean over members)"]["energy MAE meV"] == pytest.approx(np.mean(members))
    assert len(members) == 3
    assert math.isfinite(values["this run, mean of its members"]["energy RMSE meV"])


def test_only_finished_runs_with_labels_that_hippynn_learns_are_compared(runs: Path, baseline: ModuleType) -> None:
    for name, pipeline, file in (("rock", "permeability", "predictions.npz"), ("begun", "committee", "history.csv")):
        (runs / name).mkdir()
        (runs / name / file).touch()
        (runs / name / "run.json").write_text(json.dumps({"config": {"pipeline": pipeline}}))
    (runs / "brought").mkdir()
    (runs / "brought" / "predictions.npz").touch()
    (runs / "brought" / "run.json").write_text("{}")
    assert baseline.comparable_runs(runs) == [runs / "light", runs / "many"]


def test_beside_a_student_hippynn_learns_energies_for_as_long_as_one_member(runs: Path, baseline: ModuleType) -> None:
    task = baseline.read_task(runs / "light")
    assert (task.members, task.epochs, task.forces) == (2, 4, None)
    assert len(task.prepared.dataset) == 160
    assert task.network.members == 1
