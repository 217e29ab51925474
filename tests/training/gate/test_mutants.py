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
from training.gate import derivatives
from training.gate.batching import batching_curve
from training.gate.engines import Arrays, Engine, onnx_engine
from training.gate.errors import Refused
from training.gate.files import inspect_files
from training.gate.gate import examine
from training.gate.parity import weights_kept
from training.gate.submission import EVERYDAY, MEMBERS, TORCHSCRIPT, Submission, doubled
from training.networks.hipnn import HipNN, HipNNConfig
from training.publish import _card, _reference_inputs

Mutation = Callable[[Arrays, Arrays], Arrays]

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
    write_reference(onnx_engine(folder / EVERYDAY), _reference_inputs(candidate), folder / "reference.npz")
    curve = batching_curve(folder / EVERYDAY, test.structures[:2], CUTOFF)
    card = _card(candidate, "1", root, curve, inspect_files(folder), None)
    return Submission.of(card, folder, copy.deepcopy(network), test)


def refusal(submission: Submission) -> str:
    with pytest.raises(Refused) as refused:
        examine(submission)
    return str(refused.value)


def served(submission: Submission, mutate: Mutation, file: str = EVERYDAY) -> Submission:
    """The same version with another graph in one of its files: its outputs, and inputs, pass through `mutate`."""
    honest = submission.engines[file]

    def run(inputs: Arrays) -> Arrays:
        return mutate(inputs, {name: value.copy() for name, value in honest(inputs).items()})

    return dataclasses.replace(submission, engines={**submission.engines, file: run})


def fed(submission: Submission, mutate: Callable[[Arrays], Arrays]) -> Submission:
    """The same version, whose everyday graph sees other inputs than it was given."""
    honest: Engine = submission.everyday
    return dataclasses.replace(
        submission, engines={**submission.engines, EVERYDAY: lambda inputs: honest(mutate(dict(inputs)))}
    )


def test_a_healthy_version_passes_every_check(healthy: Submission) -> None:
    assert all(check.passed for check in inspect_files(healthy.folder))
    assert all(check.passed for check in examine(healthy))


def scaled(name: str, factor: float) -> Mutation:
    return lambda _, outputs: outputs | {name: outputs[name] * factor}


def sloped(_: Arrays, outputs: Arrays) -> Arrays:
    """Forces with a constant part that no energy has."""
    return outputs | {"forces": outputs["forces"] + np.float32(0.05)}


def leaking(inputs: Arrays, outputs: Arrays) -> Arrays:
    """Everybody's energy has a share of the whole batch's."""
    return outputs | {"energy": outputs["energy"] + 1e-3 * outputs["energy"].sum(axis=1, keepdims=True)}


def leaking_illness(_: Arrays, outputs: Arrays) -> Arrays:
    """As one-hot sums over a batch do: a share of zero of everybody, which is not a number if one is not."""
    return outputs | {"energy": outputs["energy"] + 0.0 * outputs["energy"].sum(axis=1, keepdims=True)}


def numbered_structures(_: Arrays, outputs: Arrays) -> Arrays:
    """The answer depends on the place in the batch."""
    return outputs | {"energy": outputs["energy"] * (1.0 + 1e-4 * np.arange(outputs["energy"].shape[1]))}


def tied_to_an_axis(inputs: Arrays, outputs: Arrays) -> Arrays:
    """A spring along x to each structure's centre: its place does not matter, its direction does."""
    structure = inputs["structure"]
    x = inputs["positions"][:, 0].astype(np.float64)
    x = x - (np.bincount(structure, x) / np.bincount(structure))[structure]
    return outputs | {"energy": outputs["energy"] + 1e-2 * np.bincount(structure, x * x)}


def tied_to_the_origin(inputs: Arrays, outputs: Arrays) -> Arrays:
    weight = np.zeros(len(inputs["cells"]))
    np.add.at(weight, inputs["structure"], 1e-3 * inputs["positions"][:, 0].astype(np.float64))
    return outputs | {"energy": outputs["energy"] + weight}


def numbered(inputs: Arrays, outputs: Arrays) -> Arrays:
    order = np.arange(len(inputs["species"]), dtype=np.float32)[:, None]
    return outputs | {"forces": outputs["forces"] + 1e-2 * np.sin(order)}


def favouring_the_first(inputs: Arrays, outputs: Arrays) -> Arrays:
    """The first atom of each structure counts a little more."""
    _, first = np.unique(inputs["structure"], return_index=True)
    return outputs | {"energy": outputs["energy"] + 1e-2 * outputs["atomic_energy"][:, first]}


def needing_company(inputs: Arrays, outputs: Arrays) -> Arrays:
    """A mean over neighbours: zero by zero for an atom that has none."""
    alone = (inputs["neighbours"] == np.arange(len(inputs["species"]))[:, None]).all(axis=1)
    atomic = np.where(alone, np.nan, outputs["atomic_energy"])
    energy = np.stack([np.bincount(inputs["structure"], each) for each in atomic])
    return outputs | {"atomic_energy": atomic.astype(np.float32), "energy": energy}


def needing_a_pair(inputs: Arrays, outputs: Arrays) -> Arrays:
    """Sizes taken from the list of pairs, as edge-list graphs do: an empty list cannot be run."""
    if not (inputs["neighbours"] != np.arange(len(inputs["species"]))[:, None]).any():
        raise RuntimeError("Attempting to broadcast an axis by a dimension other than 1. 3 by 20")
    return outputs


def not_extensive(inputs: Arrays, outputs: Arrays) -> Arrays:
    atoms = np.bincount(inputs["structure"])
    return outputs | {"energy": outputs["energy"] / np.sqrt(atoms)}


def still(inputs: Arrays, outputs: Arrays) -> Arrays:
    """A constant for each atom, and no force: consistent, and useless."""
    atoms = np.bincount(inputs["structure"]).astype(np.float64)
    dead = {name: np.zeros_like(value) for name, value in outputs.items()}
    return dead | {"energy": np.array([[0.3], [0.31]]) * atoms}


def swapped_axes(_: Arrays, outputs: Arrays) -> Arrays:
    """y and z of the virial exchanged, as in a wrong Voigt order."""
    return outputs | {"virial": outputs["virial"][:, [0, 2, 1]][:, :, [0, 2, 1]]}


def alike(_: Arrays, outputs: Arrays) -> Arrays:
    same = {name: np.repeat(outputs[name][:1], 2, axis=0) for name in ("energy", "atomic_energy")}
    return outputs | same


MUTANTS: dict[str, tuple[Mutation, str]] = {
    "forces of the wrong sign": (scaled("forces", -1.0), "finite differences of model.onnx: forces"),
    "forces that are no gradient": (sloped, "finite differences of model.onnx: forces"),
    "forces in kcal/mol": (scaled("forces", 23.06), "finite differences of model.onnx: forces"),
    "energies in kcal/mol": (scaled("energy", 23.06), "finite differences of model.onnx: forces"),
    "virials of the wrong sign": (scaled("virial", -1.0), "finite differences of model.onnx: virial"),
    "virials divided by a volume": (scaled("virial", 1.0 / 44.0), "finite differences of model.onnx: virial"),
    "virials in GPa": (scaled("virial", 160.2), "finite differences of model.onnx: virial"),
    "virials with axes exchanged": (swapped_axes, "finite differences of model.onnx: virial"),
    "a batch that leaks": (leaking, "model.onnx, alone or batched: energy"),
    "a batch in which illness spreads": (leaking_illness, "model.onnx, a mate that is not a number"),
    "an answer by the place in the batch": (numbered_structures, "model.onnx, order of the batch: energy"),
    "an energy tied to an axis": (tied_to_an_axis, "rotation: energy"),
    "an energy tied to the origin": (tied_to_the_origin, "translation: energy"),
    "an energy that depends on the numbering": (favouring_the_first, "permutation: energy"),
    "forces that depend on the numbering": (numbered, "permutation: forces"),
    "an energy that is not extensive": (not_extensive, "two copies in one structure: energy"),
    "a crystal that depends on its cell": (not_extensive, "a cell twice as long: energy"),
    "an atom alone without an energy": (needing_company, "an atom alone"),
    "an empty list of pairs that cannot be run": (needing_a_pair, "size.lone_atom can run"),
    "an energy that nothing moves": (still, "energy depends on positions"),
    "members that are alike": (alike, "members differ"),
    "another function than the network": (scaled("energy", 1.001), "model.onnx against the network: energy"),
    "an older state of the training": (scaled("energy", 1.001), "answers of the trained run"),
    "answers that the reference does not hold": (scaled("energy", 1.001), "reference.npz: energy"),
}


@pytest.mark.parametrize(("mutate", "reason"), MUTANTS.values(), ids=MUTANTS.keys())
def test_a_mutant_is_refused_and_named(healthy: Submission, mutate: Mutation, reason: str) -> None:
    assert f"  {reason}: " in refusal(served(healthy, mutate))


@pytest.mark.parametrize("file", [TORCHSCRIPT, MEMBERS])
def test_a_format_that_answers_otherwise_is_named(healthy: Submission, file: str) -> None:
    assert f"{file} against the network: forces" in refusal(served(healthy, scaled("forces", 1.001), file))


def test_member_forces_that_are_not_those_of_the_members_are_refused(healthy: Submission) -> None:
    exchanged = served(healthy, lambda _, o: o | {"member_forces": o["member_forces"][::-1]}, MEMBERS)
    assert f"{MEMBERS} against the network: member forces" in refusal(exchanged)


def test_member_virials_that_are_not_those_of_the_members_are_refused(healthy: Submission) -> None:
    exchanged = served(healthy, lambda _, o: o | {"member_virial": o["member_virial"][::-1]}, MEMBERS)
    said = refusal(exchanged)
    assert f"{MEMBERS} against the network: member virial" in said
    assert f"finite differences of members in {MEMBERS}: virial" in said


def test_weights_of_another_training_state_beside_the_graphs_are_refused(healthy: Submission) -> None:
    kept = healthy.network.state_dict()
    later = copy.deepcopy(healthy.network)
    later.load_state_dict({name: 1.001 * value for name, value in kept.items()})
    checks = weights_kept(dataclasses.replace(healthy, network=later))
    assert not checks[0].passed
    assert weights_kept(healthy)[0].passed


def test_a_committee_without_its_graph_of_member_forces_is_refused(healthy: Submission) -> None:
    engines = {file: run for file, run in healthy.engines.items() if file != MEMBERS}
    assert "graph of member forces" in refusal(dataclasses.replace(healthy, engines=engines))


@pytest.mark.parametrize(("factor", "unit"), [(27.211, "hartree"), (23.06, "kcal/mol"), (-1.0, "a wrong sign")])
def test_a_consistent_mislabel_is_found_by_the_labels(healthy: Submission, factor: float, unit: str) -> None:
    """Network, files and the run's own answers agree in another unit; only the labels are in eV."""
    mean = healthy.test.energy.mean()
    labels = mean + factor * (healthy.test.energy - mean)
    mislabelled = dataclasses.replace(healthy, test=dataclasses.replace(healthy.test, energy=labels))
    assert "unit of the energies" in refusal(mislabelled), unit


def test_a_model_no_better_than_the_mean_is_refused(healthy: Submission) -> None:
    labels = np.random.default_rng(5).permutation(healthy.test.energy)
    unlearned = dataclasses.replace(healthy, test=dataclasses.replace(healthy.test, energy=labels))
    assert "better than the mean predictor" in refusal(unlearned)


def test_a_model_without_labels_to_judge_it_by_is_refused(healthy: Submission) -> None:
    test = healthy.test
    unjudged = dataclasses.replace(healthy, test=HeldOut(test.structures[:3], test.energy[:3], test.predicted[:, :3]))
    assert "labelled frames held out: 7 frames missing" in refusal(unjudged)


def test_a_refusal_says_what_was_measured_and_what_is_allowed(healthy: Submission) -> None:
    message = refusal(served(healthy, scaled("forces", -1.0)))
    assert message.startswith("waters version 1 is not admitted: ")
    assert re.search(
        r"finite differences of model\.onnx: forces: \S+ relative, at most 0.002 relative is allowed", message
    )


def test_swapped_elements_are_refused(healthy: Submission) -> None:
    swap = {1: 8, 8: 1}
    swapped = fed(healthy, lambda i: i | {"species": np.array([swap.get(int(z), z) for z in i["species"]])})
    assert "elements of the card" in refusal(swapped)


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


def edited(folder: Path, edit: Callable[[onnx.ModelProto], None]) -> str:
    """Names of the checks that fail after an edit of the everyday graph."""
    model = onnx.load(folder / EVERYDAY)
    edit(model)
    (folder / EVERYDAY).write_bytes(model.SerializeToString())
    return failed(folder)


def test_an_operator_that_races_is_refused(copied: Path) -> None:
    node = onnx.helper.make_node("ScatterND", ["a", "b", "c"], ["d"], reduction="add")
    assert "races" in edited(copied, lambda model: model.graph.node.append(node))


def test_an_operator_that_races_inside_a_branch_is_refused(copied: Path) -> None:
    hidden = onnx.helper.make_graph([onnx.helper.make_node("ScatterND", ["a", "b", "c"], ["d"])], "hidden", [], [])
    branch = onnx.helper.make_node("If", ["a"], ["d"], then_branch=hidden, else_branch=hidden)
    assert "races" in edited(copied, lambda model: model.graph.node.append(branch))


def test_an_operator_of_another_domain_is_refused(copied: Path) -> None:
    node = onnx.helper.make_node("Gelu", ["a"], ["b"], domain="com.microsoft")
    assert "operators of ONNX alone" in edited(copied, lambda model: model.graph.node.append(node))


def test_another_operator_set_is_refused(copied: Path) -> None:
    def older(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 11

    assert "operators of ONNX alone" in edited(copied, older)


def test_sparse_weights_are_refused(copied: Path) -> None:
    def sparse(model: onnx.ModelProto) -> None:
        tensor = model.graph.sparse_initializer.add()
        tensor.values.name = "sparse"

    assert "dense weights" in edited(copied, sparse)


def test_an_output_that_is_missing_is_refused(copied: Path) -> None:
    assert "signature of its family" in edited(copied, lambda model: model.graph.output.pop())


def test_a_file_that_is_no_graph_is_refused(copied: Path) -> None:
    (copied / EVERYDAY).write_bytes(b"not a graph")
    assert "readable graphs" in failed(copied)


def test_a_file_that_belongs_to_no_version_is_refused(copied: Path) -> None:
    (copied / "run_me.py").write_text("print('no')")
    assert "plain files" in failed(copied)


def test_a_pickle_in_place_of_torchscript_is_refused(copied: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, copied / "model.pt")
    assert "TorchScript" in failed(copied)


def test_forces_of_chosen_atoms_by_differences_are_those_of_all(healthy: Submission) -> None:
    inputs = healthy.inputs([healthy.molecules[0]], skin=0.3)
    every = derivatives.forces_by_differences(healthy.exact, doubled(inputs), 1e-4)
    atoms = np.array([0, 2])
    some = derivatives.forces_by_differences(healthy.exact, doubled(inputs), 1e-4, atoms)
    np.testing.assert_allclose(some, every[atoms], rtol=1e-9, atol=1e-9)
