"""A published ANI ensemble becomes a run, passes the admission and answers as a committee."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ase import Atoms
from ase.io import read, write
from typer.testing import CliRunner
from understudy import Client
from understudy.inprocess import InProcess

from contract.graphs import build_graph, collate
from contract.repository import ModelRepository
from contract.structures import Structure, checked_structure
from contract.units import HARTREE_EV
from service.app import create_app
from service.settings import Settings
from training.batches import to_batch
from training.checkpoint import load_any_run, load_run, published_network
from training.cli import import_
from training.data import DataSpec
from training.data.spec import ExtxyzSpec
from training.errors import NotReady
from training.gate.engines import onnx_engine
from training.importers.ani import AniImport, import_ani
from training.importers.neurochem import read_neurochem
from training.pipelines.admission import candidate_of
from training.publish import publish
from training.simulators.ani import AniReference

METHANE = 0.63 * np.array([[0, 0, 0], [1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]], float)


def methanes(count: int) -> list[Structure]:
    """Methane, shaken."""
    shaken = METHANE + np.random.default_rng(1).normal(scale=0.06, size=(count, 5, 3))
    return [checked_structure([6, 1, 1, 1, 1], positions) for positions in shaken]


def labelled(ensemble: Path, folder: Path, zero: float = 0.0) -> DataSpec:
    """Methanes with the ensemble's own energies and forces, nearly."""
    structures = methanes(40)
    labels = AniReference(ensemble).label(structures)
    energies = labels.energy + np.random.default_rng(2).normal(scale=0.02, size=len(structures)) + zero
    frames = []
    for structure, energy, forces in zip(structures, energies, np.split(labels.forces, 40), strict=True):
        atoms = Atoms(structure.numbers, structure.positions)
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = energy, forces
        frames.append(atoms)
    write(folder / "methane.xyz", frames, format="extxyz")
    return ExtxyzSpec(
        format="extxyz",
        path=folder / "methane.xyz",
        provenance={"name": "m", "origin": "here", "licence": "MIT", "level_of_theory": "itself", "citation": "none"},
        accept=("energy_unit", "force_labels"),
    )  # fmt: skip


@pytest.fixture
def imported(ensemble: Path, tmp_path: Path) -> Path:
    """The folder of a run that was imported with held-out labels."""
    config = AniImport(name="tiny", purpose="a test", held_out=labelled(ensemble, tmp_path))
    import_ani(ensemble, config, tmp_path / "runs/tiny")
    return tmp_path / "runs/tiny"


@pytest.mark.slow
def test_an_imported_ensemble_passes_the_admission_and_is_served_as_a_committee(
    imported: Path, ensemble: Path, tmp_path: Path
) -> None:
    repository = ModelRepository(tmp_path / "models")
    candidate = candidate_of(imported)
    publish(candidate, repository)
    stored = repository.load("tiny")
    card = stored.card
    assert (card.architecture["network"], card.committee.members, card.licence) == ("ANI", 2, "MIT")
    assert card.domain.formulas is None
    assert card.domain.surroundings is not None
    assert card.committee.forces is not None
    structures = methanes(3)
    answer = onnx_engine(stored.file("model_members.onnx"))(collate([build_graph(s, 4.0) for s in structures]))
    expected = AniReference(ensemble).label(structures)
    assert np.abs(answer["forces"] - expected.forces).max() < 1e-4
    assert answer["member_forces"].shape == (2, 15, 3)
    assert sum(card.atomic_reference_ev[s] for s in "CHHHH") + answer["energy"].mean(axis=0) == pytest.approx(
        expected.energy, abs=1e-4
    )
    kept = published_network(stored).state_dict()
    assert all(torch.equal(kept[key], value) for key, value in candidate.network.state_dict().items())


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_published_ensemble_is_imported_by_the_command_and_served_with_its_authors_values(
    shared_data: Path, tmp_path: Path
) -> None:
    files = shared_data / "ani_models/ani-1ccx_8x.tar.gz"
    with gzip.open(shared_data / "botnet/3bpa_train_300K.xyz.gz", "rt") as stream:
        write(tmp_path / "3bpa.xyz", read(stream, index="::4", format="extxyz"), format="extxyz")
    given = dict.fromkeys(("name", "origin", "licence", "level_of_theory", "citation"), "3BPA")
    held_out = {"format": "extxyz", "path": str(tmp_path / "3bpa.xyz"), "provenance": given, "accept": ["energy_unit"]}
    (tmp_path / "held-out.yaml").write_text(yaml.safe_dump(held_out))
    command = ["ani", str(files), "--held-out", str(tmp_path / "held-out.yaml"), "--zero", "fitted"]
    command += ["--runs", str(tmp_path)]
    said = CliRunner().invoke(import_, command)
    assert said.exit_code == 0, said.output
    publish(candidate_of(tmp_path / "ani-1ccx"), ModelRepository(tmp_path / "models"))
    known = json.loads((shared_data / "ani_models/reference_energies_forces.json").read_text())["models"]["ani-1ccx_8x"]
    settings = Settings(model_repo=tmp_path / "models", workers=1)
    with Client(transport=InProcess(create_app(settings))) as client:
        for molecule in known.values():
            answer = client.predict("ani-1ccx", Atoms(molecule["species"], molecule["positions"]))
            assert answer.uncertainty is not None
            assert answer.uncertainty.members == 8
            assert answer.energy / HARTREE_EV == pytest.approx(molecule["energy"], abs=2e-5)
            assert np.abs(answer.forces / HARTREE_EV - molecule["forces"]).max() < 1e-4


def test_forces_of_all_members_at_once_are_those_of_each_alone(ensemble: Path) -> None:
    network = read_neurochem(ensemble).network.double()
    graphs = [build_graph(structure, 4.0) for structure in methanes(2)]
    batch = type(b := to_batch(graphs))(*(t.double() if t.is_floating_point() else t for t in b))
    energy, atomic, forces, virial = network.evaluate_members(batch)
    mean = network.evaluate(batch)
    assert torch.allclose(forces.mean(dim=0), mean.forces, atol=1e-12)
    assert torch.allclose(virial.mean(dim=0), mean.virial, atol=1e-12)
    for m in range(2):
        moved = batch.positions.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(network.energy(batch._replace(positions=moved))[m].sum(), moved)
        assert torch.allclose(forces[m], -gradient, atol=1e-12)
    assert torch.equal(energy, mean.energy)
    assert torch.equal(atomic, mean.atomic_energy)


def test_an_atom_of_no_known_element_has_no_energy_and_leaves_others_alone(ensemble: Path, batch_of: Callable) -> None:
    network = read_neurochem(ensemble).network.double()
    alone = network.evaluate(batch_of(methanes(1)))
    foreign = checked_structure([8], [[0.0, 0.0, 0.0]])
    together = network.evaluate(batch_of([foreign, *methanes(1)]))
    assert together.atomic_energy[:, 0].abs().max() == 0.0
    assert torch.allclose(together.energy[:, 1], alone.energy[:, 0], atol=1e-12)


def test_labels_with_a_zero_of_their_own_are_raised_by_one_constant_a_formula(ensemble: Path, tmp_path: Path) -> None:
    given = labelled(ensemble, tmp_path, zero=3.0)
    config = AniImport(name="tiny", purpose="a test", held_out=given, zero="fitted")
    run = import_ani(ensemble, config, tmp_path / "run")
    assert run.record["zero_ev"] == {"CH4": pytest.approx(-3.0, abs=0.02)}
    assert {m["name"]: m["value"] for m in run.record["metrics"]}["energy MAE"] < 50
    assert np.abs(candidate_of(tmp_path / "run").test.error(run.references)).max() < 0.1


def test_without_labels_it_is_imported_and_not_published(ensemble: Path, tmp_path: Path) -> None:
    import_ani(ensemble, AniImport(name="tiny", purpose="a test"), tmp_path / "run")
    assert load_any_run(tmp_path / "run").network.config.members == 2
    with pytest.raises(NotReady, match="held-out"):
        candidate_of(tmp_path / "run")
    with pytest.raises(NotReady, match="trained here"):
        load_run(tmp_path / "run")


def test_the_command_names_the_model_after_its_files(ensemble: Path, tmp_path: Path) -> None:
    said = CliRunner().invoke(import_, ["ani", str(ensemble), "--runs", str(tmp_path)])
    assert said.exit_code == 0, said.output
    assert (tmp_path / "tiny/weights.safetensors").is_file()
    (tmp_path / "nothing").mkdir()
    refused = CliRunner().invoke(import_, ["ani", str(tmp_path / "nothing"), "--name", "x", "--runs", str(tmp_path)])
    assert refused.exit_code == 1
