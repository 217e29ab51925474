"""The floors as import-linter cannot state them: which libraries each may name, and what a running process holds."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

MAY_IMPORT = {
    "contract": {"numpy", "pydantic", "vesin", "numba"},
    "clients/python/understudy": {"numpy", "httpx", "pydantic", "pydantic_core", "typer", "rich", "ase"},
}


def _imported(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("floor", MAY_IMPORT)
def test_a_light_floor_imports_only_the_libraries_it_promises(project: Path, floor: str) -> None:
    allowed = MAY_IMPORT[floor] | set(sys.stdlib_module_names) | {Path(floor).name}
    surplus = {
        f"{source.relative_to(project)}: {name}"
        for source in (project / floor).rglob("*.py")
        for name in _imported(source)
        if name not in allowed
    }
    assert not surplus


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("service.cli", ["torch", "onnx", "training"]),
        ("understudy", ["torch", "ase", "onnxruntime", "fastapi", "contract", "service", "training"]),
        ("contract.repository", ["torch", "onnxruntime", "fastapi", "understudy", "service", "training"]),
    ],
)
def test_importing_a_floor_loads_nothing_from_above_it(module: str, absent: list[str]) -> None:
    script = f"import sys, {module}; print(*(set({absent}) & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert loaded == []


def test_no_engine_and_no_torch_come_with_the_base_installation(project: Path) -> None:
    base = tomllib.loads((project / "pyproject.toml").read_text())["project"]["dependencies"]
    assert not [entry for entry in base if entry.startswith(("torch", "onnx"))]


def test_every_constraint_is_one_exact_public_version(project: Path) -> None:
    lines = [line for line in (project / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert [line for line in lines if line.count("==") != 1 or "+" in line or "@" in line] == []
    assert len({line.partition("==")[0] for line in lines}) == len(lines)
