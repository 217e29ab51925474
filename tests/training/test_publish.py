"""Publishing: what passes is served with a complete card, what fails leaves no trace."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from contract.card import Comparison, Metric, Split, Training
from contract.errors import InvalidCard
from contract.repository import ModelRepository
from training.batches import labelled_graphs
from training.candidate import Candidate, HeldOut
from training.data.dataset import Dataset, uniform
from training.data.provenance import Provenance
from training.domain import training_domain
from training.evaluation import predict_energies
from training.gate.errors import OutdatedVersion, Refused
from training.networks.hipnn import HipNN, HipNNConfig
from training.publish import max_slots, publish

CUTOFF = 3.0
NUMBERS = [8, 1, 1]
REFERENCES = {"H": 0.1, "O": -0.2}
STILL = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])


def network() -> HipNN:
    """One member with weights large enough to matter."""
    torch.manual_seed(0)
    made = HipNN(
        HipNNConfig(
            elements=[1, 8], order=1, features=8, sensitivities=8, interaction_layers=1, atom_layers=1,
            soft_min_angstrom=0.8, soft_max_angstrom=2.5, cutoff_angstrom=CUTOFF, cusp_regulariser=1e-2,
        )
    )  # fmt: skip
    with torch.no_grad():
        for block in made.blocks:
            block.readout.uniform_(-0.3, 0.3)
    return made.double()


def waters(seed: int, labelled_by: HipNN) -> tuple[Dataset, HeldOut]:
    """Water molecules with the network's own energies, nearly: a model that is right."""
    generator = np.random.default_rng(seed)
    positions = STILL + generator.normal(0.0, 0.12, (24, 3, 3))
    data = uniform(NUMBERS, positions, np.zeros(24), [])
    labelled_by.float()
    answers = predict_energies(labelled_by, labelled_graphs(data, CUTOFF, REFERENCES)).energy
    labelled_by.double()
    labels = answers[0] + generator.normal(0.0, 1e-3, 24)
    return data, HeldOut(list(data), labels, answers)


@pytest.fixture(scope="module")
def candidate(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    file = tmp_path_factory.mktemp("data") / "waters.xyz"
    file.write_text("3\nwater\n")
    trained = network()
    data, _ = waters(0, trained)
    _, test = waters(1, trained)
    source = Provenance(name="waters", origin="here", licence="MIT", level_of_theory="itself", citation="none")
    metric = Metric(name="energy MAE", value=1.0, unit="meV", count=24)
    return Candidate(
        name="waters",
        purpose="one network for tests",
        network=trained,
        references=REFERENCES,
        domain=training_domain(data, CUTOFF, test.std),
        data=[source.source(file, 24)],
        split=Split(method="by seed", train=24, valid=24, test=24, seed=0),
        metrics=[metric],
        comparisons=[Comparison(name="mean predictor", metrics=[metric])],
        training=Training(pipeline="none", config_sha256="1" * 64, seed=0, parameters=1, cpu_seconds=1.0, epochs=1),
        valid=waters(2, trained)[1],
        test=test,
        licence="MIT",
        citation=["nobody"],
    )


@pytest.fixture(scope="module")
def repository(candidate: Candidate, tmp_path_factory: pytest.TempPathFactory) -> ModelRepository:
    models = ModelRepository(tmp_path_factory.mktemp("models"))
    publish(candidate, models)
    return models


def test_a_single_network_is_served_without_a_spread_and_without_a_second_graph(repository: ModelRepository) -> None:
    stored = repository.load("waters")
    assert not stored.has("model_members.onnx")
    assert stored.card.committee.energy is None
    assert stored.card.domain.energy_std_in_ev is None
    assert not (repository.root / "waters" / "calibration.svg").exists()
    assert "no standard deviation is given" in (repository.root / "waters" / "MODEL_CARD.md").read_text()


def test_every_check_stands_on_the_card_with_what_was_measured_and_allowed(repository: ModelRepository) -> None:
    checks = repository.load("waters").card.checks
    people = (repository.root / "waters" / "MODEL_CARD.md").read_text()
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        assert check.measured <= check.bound
        assert f"| {check.name} |" in people


def test_every_row_of_a_table_on_the_card_has_the_cells_of_its_head(repository: ModelRepository) -> None:
    cells = 0
    for line in (repository.root / "waters" / "MODEL_CARD.md").read_text().splitlines():
        found = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert not (cells and found) or found == cells, line
        cells = found


def test_publishing_leaves_the_candidates_network_as_it_was(candidate: Candidate, repository: ModelRepository) -> None:
    assert repository.names() == ["waters"]
    assert all(weight.dtype == torch.float64 for weight in candidate.network.parameters())


def test_a_refused_version_leaves_the_served_one_as_it_was(candidate: Candidate, repository: ModelRepository) -> None:
    before = repository.load("waters").digest
    labels = np.random.default_rng(0).permutation(candidate.test.energy)
    useless = dataclasses.replace(candidate, test=dataclasses.replace(candidate.test, energy=labels))
    with pytest.raises(Refused, match="better than the mean predictor"):
        publish(useless, repository)
    assert repository.load("waters").digest == before
    assert [path.name for path in repository.root.iterdir()] == ["waters"]


def test_the_next_version_takes_the_place_of_a_damaged_one(candidate: Candidate, tmp_path: Path) -> None:
    models = ModelRepository(tmp_path)
    stored = publish(candidate, models, version="3")
    (stored / "3" / "model.onnx").write_bytes(b"damaged")
    publish(candidate, models)
    assert models.load("waters").card.version == "4"


@pytest.mark.parametrize("name", ["Water", "../waters", "", "w" * 65, "waters-members"])
def test_a_name_that_no_repository_holds_is_refused_before_the_export(
    candidate: Candidate, repository: ModelRepository, name: str
) -> None:
    with pytest.raises(InvalidCard, match="name"):
        publish(dataclasses.replace(candidate, name=name), repository)


@pytest.mark.parametrize(("version", "error"), [("1", OutdatedVersion), ("0", InvalidCard), ("new", InvalidCard)])
def test_a_version_that_is_not_above_the_served_one_is_refused_before_the_export(
    candidate: Candidate, repository: ModelRepository, version: str, error: type[Exception]
) -> None:
    with pytest.raises(error, match="version"):
        publish(candidate, repository, version=version)


def test_a_larger_network_is_given_fewer_slots() -> None:
    small = HipNNConfig(elements=[1], order=1, features=16, sensitivities=16, members=4)
    large = HipNNConfig(elements=[1], order=2, features=24, sensitivities=20, members=8)
    assert 10_000 < max_slots(large) < max_slots(small)
