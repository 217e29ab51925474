"""One real server for everything that is wrong with a request."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # behind tests/service, whose conftest others import by name

from running import Server, running

from contract.repository import ModelRepository


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`understudy serve` as a process of its own, with the shipped models."""
    with running(tmp_path_factory.mktemp("server") / "stderr") as there:
        yield there


@pytest.fixture(scope="session")
def project_repository(project: Path) -> ModelRepository:
    """The shipped models."""
    return ModelRepository(project / "model_repo")
