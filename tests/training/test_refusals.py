"""A training command that cannot go on says why in a line and what to install, and leaves no traceback."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from training.cli import publish, train
from training.extras import extras

# What an installation for serving alone lacks: importing any of these fails as if it were not there.
WITHOUT = "import sys; sys.modules.update(dict.fromkeys(%r)); from understudy.cli import main; main()"


def run(project: Path, absent: list[str], *command: str) -> subprocess.CompletedProcess[str]:
    script = f"import sys; sys.argv[0] = 'understudy'; {WITHOUT % absent}"
    return subprocess.run([sys.executable, "-c", script, *command], cwd=project, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("absent", "command"),
    [
        (["torch"], ["train", "training/configs/malonaldehyde-small.yaml"]),
        (["torch"], ["evaluate", "organic", "examples/ethanol.xyz"]),
        (["torch"], ["import", "ani", "examples"]),
        (["h5py"], ["data", "list"]),
    ],
)
def test_without_the_extra_a_command_names_it(project: Path, absent: list[str], command: list[str]) -> None:
    ended = run(project, absent, *command)
    assert ended.returncode == 1
    assert f"{absent[0]} is not installed: extra `train`" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_module_of_no_extra_is_a_fault_with_its_traceback(project: Path) -> None:
    ended = run(project, ["training.runs"], "publish", "malonaldehyde")
    assert "Traceback" in ended.stderr


def test_an_error_for_people_is_one_text(tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(publish)
    ended = CliRunner().invoke(app, ["no-such-run", "--runs", str(tmp_path)])
    assert (ended.exit_code, ended.stderr.count("\n")) == (1, 1)
    assert "understudy train" in ended.stderr


def test_what_is_wrong_in_a_configuration_is_a_line_a_setting(project: Path, tmp_path: Path) -> None:
    shipped = (project / "training" / "configs" / "malonaldehyde-committee-small.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(shipped.replace("batch_size", "bach_size").replace("order: 2", "order: 7"))
    app = typer.Typer()
    app.command()(train)
    ended = CliRunner().invoke(app, [str(tmp_path / "mine.yaml"), "--runs", str(tmp_path)])
    first, *lines = ended.stderr.splitlines()
    assert (ended.exit_code, first) == (1, "Error: the configuration cannot be used:")
    assert [line.partition(":")[0].strip() for line in lines] == ["committee.network.order", "committee.fit.bach_size"]


def test_every_package_of_the_training_extra_is_known(project: Path) -> None:
    declared = tomllib.loads((project / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {extras()[entry.partition(">")[0]] for entry in declared["train"]} == {"train"}
