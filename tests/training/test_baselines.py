"""The mean predictor is what its name says."""

from collections.abc import Callable

import numpy as np
import pytest

from contract.card import DataSource
from training.baselines import mean_predictor
from training.batches import fit_references
from training.data.dataset import Dataset, ragged, uniform
from training.data.splits import split_at_random
from training.pipelines.preparation import Prepared

MakePrepared = Callable[[Dataset], Prepared]
SOURCE = DataSource(
    name="made up",
    origin="here",
    licence="CC0-1.0",
    sha256="0" * 64,
    count=1,
    level_of_theory="none",
    citation="nobody",
)


@pytest.fixture
def prepared() -> MakePrepared:
    def make(dataset: Dataset) -> Prepared:
        parts = split_at_random(dataset)
        return Prepared(dataset, parts, fit_references(dataset.select(parts.train)))

    return make


def test_of_one_composition_it_answers_the_mean_of_the_training_part(prepared: MakePrepared) -> None:
    rng = np.random.default_rng(0)
    data = prepared(uniform([8, 1, 1], rng.normal(size=(50, 3, 3)), rng.normal(-70, 1, 50), [SOURCE]))
    error = data.part("train").energy.mean() - data.part("test").energy
    metrics = {m.name: m for m in mean_predictor(data).metrics}
    assert metrics["energy MAE"].value == pytest.approx(1e3 * np.abs(error).mean(), rel=1e-9)
    assert metrics["energy RMSE"].value == pytest.approx(1e3 * np.sqrt((error**2).mean()), rel=1e-9)
    assert metrics["energy MAE"].count == 5
    assert "forces MAE" not in metrics


def test_of_many_compositions_it_knows_the_elements_and_nothing_else(prepared: MakePrepared) -> None:
    rng = np.random.default_rng(0)
    numbers = [rng.choice([1, 6, 8], size=4) for _ in range(80)]
    of_element = {1: -13.0, 6: -1030.0, 8: -2040.0}
    energy = [sum(of_element[z] for z in zs) for zs in numbers]
    data = prepared(ragged(numbers, [rng.normal(size=(4, 3)) for _ in numbers], energy, [SOURCE]))
    assert {m.name: m.value for m in mean_predictor(data).metrics}["energy MAE"] == pytest.approx(0.0, abs=1e-6)


def test_its_forces_are_zero(prepared: MakePrepared) -> None:
    rng = np.random.default_rng(0)
    forces = rng.normal(size=(50, 3, 3))
    data = prepared(uniform([8, 1, 1], rng.normal(size=(50, 3, 3)), rng.normal(size=50), [SOURCE], forces))
    metrics = {m.name: m.value for m in mean_predictor(data).metrics}
    expected = 1e3 * np.sqrt((data.part("test").forces ** 2).mean())
    assert metrics["forces RMSE"] == pytest.approx(expected, rel=1e-9)
