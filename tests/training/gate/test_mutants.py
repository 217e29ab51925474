"""A healthy version passes every check; each mutant is refused, and the refusal names what is wrong with it."""

import copy
import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from contract.card import Comparison, Metric, ModelCard, Split, Training
from contract.structures import checked_structure
from training.candidate import Candidate, HeldOut
from training.data.dataset import uniform
from training.data.provenance import Provenance
from training.domain import training_domain
from training.export.potential import export_potential, write_reference
from training.gate.batching import batching_curve
from training.gate.engines import Arrays, Engine
from training.gate.errors import Refused
from training.gate.files import inspect_files
from training.gate.gate import examine
from training.gate.submission import EVERYDAY, Submission
from training.networks.hipnn import HipNN, HipNNConfig
from training.publish import _card

CUTOFF = 3.0
NUMBERS = [8, 1, 1]
REFERENCES = {"H": 0.1, "O": -0.2}


def make_network() -> HipNN:
    torch.manual_seed(0)
    network = HipNN(
        HipNNConfig(
            elements=[1, 8], order=1, features=16, sensitivities=8, interaction_layers=1, atom_layers=1, members=2,
            soft_min_angstrom=0.8, soft_max_angstrom=2.5, cutoff_angstrom=CUTOFF, cusp_regulariser=1e-2,
        )
    )  # fmt: skip
    with torch.no_grad():
        for block in network.blocks:
            block.readout.uniform_(-0.3, 0.3)
            block.readout_bias.uniform_(-0.3, 0.3)
    return network


def waters(count: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    still = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    return still + generator.normal(0.0, 0.12, (count, 3, 3))


def held_out(network: HipNN, seed: int) -> HeldOut:
    """Frames whose labels are the network's own answers with some noise: a model that is right."""
    from training.batches import labelled_graphs
    from training.evaluation import predict_energies

    positions = waters(24, seed)
    data = uniform(NUMBERS, positions, np.zeros(24), [])
    answers = predict_energies(network, labelled_graphs(data, CUTOFF, REFERENCES))
    base = 2 * REFERENCES["H"] + REFERENCES["O"]
    noise = np.random.default_rng(seed).normal(0.0, 1e-3, 24)
    labels = answers.energy.mean(axis=0) + base + noise
    structures = [checked_structure(NUMBERS, p) for p in positions]
    return HeldOut(structures, labels, answers.energy)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Submission:
    root = tmp_path_factory.mktemp("version")
    folder = root / "1"
    folder.mkdir()
    network = make_network()
    test = held_out(network, seed=1)
    export_potential(copy.deepcopy(network), folder)
    metric = Metric(name="energy MAE", value=1.0, unit="meV", count=24)
    source = Provenance(
        name="waters", origin="this test", licence="MIT", level_of_theory="the network", citation="none"
    ).source(folder / EVERYDAY, 24)
    trained = uniform(NUMBERS, waters(24, 0), np.zeros(24), [source])
    candidate = Candidate(
        name="waters",
        purpose="to be mutilated",
        network=network,
        references=REFERENCES,
        domain=training_domain(trained, CUTOFF, test.std),
        data=[source],
        split=Split(method="by seed", train=24, valid=24, test=24, seed=0),
        metrics=[metric],
        comparisons=[Comparison(name="mean predictor", metrics=[metric])],
        training=Training(pipeline="none", config_sha256="1" * 64, seed=0, parameters=1, cpu_seconds=1.0, epochs=1),
        valid=held_out(network, seed=2),
        test=test,
        licence="MIT",
        citation=["nobody"],
    )
    curve = batching_curve(folder / EVERYDAY, test.structures[:2], CUTOFF)
    opened = Submission.of(_card(candidate, "1", root, curve, []), folder, copy.deepcopy(network), test)
    write_reference(opened.everyday, opened.reference, folder / "reference.npz")
    return dataclasses.replace(opened, card=_card(candidate, "1", root, curve, []))


def refusal(submission: Submission) -> str:
    with pytest.raises(Refused) as refused:
        examine(submission)
    return str(refused.value)


def served(submission: Submission, mutate: Callable[[Arrays, Arrays], Arrays]) -> Submission:
    """The same version with another everyday graph: its outputs, and inputs, pass through `mutate`."""
    honest = submission.everyday

    def run(inputs: Arrays) -> Arrays:
        return mutate(inputs, {name: value.copy() for name, value in honest(inputs).items()})

    return dataclasses.replace(submission, engines={**submission.engines, EVERYDAY: run})


def fed(submission: Submission, mutate: Callable[[Arrays], Arrays]) -> Submission:
    """The same version, whose everyday graph sees other inputs than it was given."""
    honest: Engine = submission.everyday
    return dataclasses.replace(
        submission, engines={**submission.engines, EVERYDAY: lambda inputs: honest(mutate(dict(inputs)))}
    )


def test_a_healthy_version_passes_every_check(healthy: Submission) -> None:
    assert all(check.passed for check in inspect_files(healthy.folder))
    assert all(check.passed for check in examine(healthy))


def scaled(name: str, factor: float) -> Callable[[Arrays, Arrays], Arrays]:
    return lambda _, outputs: outputs | {name: outputs[name] * factor}


def sloped(_: Arrays, outputs: Arrays) -> Arrays:
    """Forces with a constant part that no energy has."""
    return outputs | {"forces": outputs["forces"] + np.float32(0.05)}


def leaking(inputs: Arrays, outputs: Arrays) -> Arrays:
    """Everybody's energy has a share of the whole batch's."""
    return outputs | {"energy": outputs["energy"] + 1e-3 * outputs["energy"].sum(axis=1, keepdims=True)}


def tied_to_the_origin(inputs: Arrays, outputs: Arrays) -> Arrays:
    weight = np.zeros(len(inputs["cells"]))
    np.add.at(weight, inputs["structure"], 1e-3 * inputs["positions"][:, 0].astype(np.float64))
    return outputs | {"energy": outputs["energy"] + weight}


def numbered(inputs: Arrays, outputs: Arrays) -> Arrays:
    order = np.arange(len(inputs["species"]), dtype=np.float32)[:, None]
    return outputs | {"forces": outputs["forces"] + 1e-2 * np.sin(order)}


def not_extensive(inputs: Arrays, outputs: Arrays) -> Arrays:
    atoms = np.bincount(inputs["structure"])
    return outputs | {"energy": outputs["energy"] / np.sqrt(atoms)}


def still(_: Arrays, outputs: Arrays) -> Arrays:
    return {name: np.zeros_like(value) for name, value in outputs.items()}


def alike(_: Arrays, outputs: Arrays) -> Arrays:
    same = {name: np.repeat(outputs[name][:1], 2, axis=0) for name in ("energy", "atomic_energy")}
    return outputs | same


MUTANTS: dict[str, tuple[Callable[[Arrays, Arrays], Arrays], str]] = {
    "forces of the wrong sign": (scaled("forces", -1.0), r"finite differences of model\.onnx: forces"),
    "forces that are no gradient": (sloped, r"finite differences of model\.onnx: forces"),
    "forces in kcal/mol": (scaled("forces", 23.06), r"finite differences of model\.onnx: forces"),
    "energies in kcal/mol": (scaled("energy", 23.06), r"finite differences of model\.onnx: forces"),
    "virials of the wrong sign": (scaled("virial", -1.0), r"finite differences of model\.onnx: virial"),
    "energies and forces in hartree": (
        lambda i, o: {name: value / 27.2 for name, value in o.items()},
        r"answers of the trained run|model\.onnx against the network",
    ),
    "a batch that leaks": (leaking, r"alone or batched"),
    "an energy tied to the origin": (tied_to_the_origin, r"translation"),
    "forces that depend on the numbering": (numbered, r"permutation"),
    "an energy that is not extensive": (not_extensive, r"two copies|cell twice"),
    "an energy that nothing moves": (still, r"better than the mean|energy moves|energy that moves"),
    "members that are alike": (alike, r"members differ"),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_mutant_is_refused_and_named(
    healthy: Submission, mutant: tuple[Callable[[Arrays, Arrays], Arrays], str]
) -> None:
    mutate, reason = mutant
    assert re.search(reason, refusal(served(healthy, mutate)))


def test_swapped_elements_are_refused(healthy: Submission) -> None:
    swap = {1: 8, 8: 1}
    swapped = fed(healthy, lambda i: i | {"species": np.array([swap[int(z)] for z in i["species"]])})
    assert re.search(r"elements of the card|answers of the trained run", refusal(swapped))


def test_positions_taken_for_bohr_are_refused(healthy: Submission) -> None:
    bohr = fed(healthy, lambda i: i | {"positions": i["positions"] * np.float32(1.8897), "shifts": i["shifts"]})
    assert "finite differences" in refusal(bohr)


def with_card(submission: Submission, **changes: object) -> Submission:
    return dataclasses.replace(submission, card=submission.card.model_copy(update=changes))


def card_mutants(card: ModelCard) -> dict[str, tuple[dict[str, object], str]]:
    domain = card.domain.model_copy(update={"cutoff_angstrom": 2.5})
    stale = [card.files[0].model_copy(update={"sha256": "0" * 64}), *card.files[1:]]
    return {
        "a unit left out": ({"units": {k: v for k, v in card.units.items() if k != "forces"}}, "units on the card"),
        "a wrong unit": ({"units": card.units | {"energy": "kcal/mol"}}, "units on the card"),
        "a stale digest": ({"files": stale}, "digests on the card"),
        "no hash of the data": (
            {"data": [card.data[0].model_copy(update={"sha256": "0" * 64})]},
            "origins on the card",
        ),
        "another cutoff": ({"domain": domain}, "cutoff"),
        "another number of members": (
            {"committee": card.committee.model_copy(update={"members": 3})},
            "members on the card",
        ),
        "no reference for an element": ({"atomic_reference_ev": {"H": 0.1}}, "atomic references on the card"),
    }


@pytest.mark.parametrize(
    "which",
    [
        *("a unit left out", "a wrong unit", "a stale digest", "no hash of the data"),
        *("another cutoff", "another number of members", "no reference for an element"),
    ],
)
def test_a_card_that_is_wrong_is_refused(healthy: Submission, which: str) -> None:
    changes, reason = card_mutants(healthy.card)[which]
    assert reason in refusal(with_card(healthy, **changes))


@pytest.fixture
def copied(healthy: Submission, tmp_path: Path) -> Path:
    folder = tmp_path / "1"
    folder.mkdir()
    for path in healthy.folder.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def failed(folder: Path) -> str:
    return ", ".join(check.name for check in inspect_files(folder) if not check.passed)


def test_a_symbolic_link_is_refused(copied: Path, tmp_path: Path) -> None:
    (copied / EVERYDAY).rename(tmp_path / "elsewhere.onnx")
    (copied / EVERYDAY).symlink_to(tmp_path / "elsewhere.onnx")
    assert "plain files" in failed(copied)


def test_a_hard_link_is_refused(copied: Path, tmp_path: Path) -> None:
    os.link(copied / EVERYDAY, tmp_path / "second name")
    assert "plain files" in failed(copied)


def test_weights_outside_the_graph_are_refused(copied: Path) -> None:
    model = onnx.load(copied / EVERYDAY)
    onnx.external_data_helper.convert_model_to_external_data(model, location="weights", size_threshold=0)
    tensor = next(t for t in model.graph.initializer if t.external_data)
    tensor.ClearField("raw_data")
    (copied / EVERYDAY).write_bytes(model.SerializeToString())
    assert "weights inside the graph" in failed(copied)


def test_an_operator_that_races_is_refused(copied: Path) -> None:
    model = onnx.load(copied / EVERYDAY)
    model.graph.node.append(onnx.helper.make_node("ScatterND", ["a", "b", "c"], ["d"], reduction="add"))
    (copied / EVERYDAY).write_bytes(model.SerializeToString())
    assert "races" in failed(copied)


def test_a_pickle_in_place_of_torchscript_is_refused(copied: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, copied / "model.pt")
    assert "TorchScript" in failed(copied)
