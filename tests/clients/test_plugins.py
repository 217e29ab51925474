"""Commands of other distributions: found by their entry points, imported only when they are run."""

import subprocess
import sys
from pathlib import Path

import pytest

PLUGIN = '''
"""A plugin."""
import typer
raise_or_not = print("IMPORTED")

def greet(name: str) -> None:
    """Greet somebody.

    At length.
    """
    print("hello", name)

several = typer.Typer(help="Two commands.")

@several.command()
def one() -> None:
    """First."""
    print("one")

@several.command()
def two() -> None:
    """Second."""
    print("two")
'''
ENTRIES = """
[understudy.commands]
greet = a_plugin:greet
several = a_plugin:several
heavy = a_heavy_plugin:run
models = a_plugin:greet
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with an installed distribution that adds commands."""
    (tmp_path / "a_plugin.py").write_text(PLUGIN)
    (tmp_path / "a_heavy_plugin.py").write_text("import library_that_is_not_there\ndef run(): 'Heavy work.'\n")
    info = tmp_path / "a_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: a-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRIES)
    return tmp_path


def understudy(site: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "understudy", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(site), "COLUMNS": "200", "NO_COLOR": "1"},
    )


def test_the_help_page_tells_of_plugins_without_importing_them(site: Path) -> None:
    page = understudy(site, "--help")
    assert page.returncode == 0, page.stderr
    assert all(text in page.stdout for text in ("greet", "Greet somebody.", "Two commands.", "Heavy work."))
    assert "IMPORTED" not in page.stdout


def test_a_function_becomes_a_command(site: Path) -> None:
    assert understudy(site, "greet", "you").stdout.splitlines() == ["IMPORTED", "hello you"]


def test_a_typer_becomes_a_group_of_commands(site: Path) -> None:
    assert understudy(site, "several", "two").stdout.splitlines() == ["IMPORTED", "two"]
    page = understudy(site, "several", "--help").stdout
    assert "First." in page
    assert "--install-completion" not in page


def test_built_in_commands_cannot_be_replaced_and_do_not_load_plugins(site: Path) -> None:
    page = understudy(site, "models", "--help").stdout
    assert "List the models" in page
    assert "IMPORTED" not in page


def test_a_plugin_that_cannot_be_imported_says_what_is_missing(site: Path) -> None:
    result = understudy(site, "heavy")
    assert result.returncode == 1
    assert "library_that_is_not_there" in result.stderr
    assert "a-plugin" in result.stderr
    assert "Traceback" not in result.stderr
