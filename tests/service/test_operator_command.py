"""`understudy models ...` against a gateway behind a real socket, and what both protocols say of versions meanwhile."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from grpc_gateway import Ports, run, triton_inputs
from test_versions import ENERGY, M, publish, settings
from tritonclient.utils import InferenceServerException
from typer.testing import CliRunner
from understudy import Client
from understudy.cli import app


@pytest.fixture
def root(tmp_path: Path) -> Path:
    publish(tmp_path / "repo", "1")
    return tmp_path / "repo"


@pytest.fixture
def ports(root: Path) -> Iterator[Ports]:
    running = run(settings(root))
    yield running.ports
    running.stop()


def tell(ports: Ports, *arguments: str, code: int = 0) -> Any:
    environment = {"UNDERSTUDY_URL": f"http://127.0.0.1:{ports.http}", "COLUMNS": "200", "NO_COLOR": "1"}
    result = CliRunner().invoke(app, ["models", *arguments], env=environment)
    assert result.exit_code == code, result.output
    return result


def row(text: str, version: str) -> list[str]:
    return next(line.split() for line in text.splitlines() if line.split()[:2] == ["tiny", version])


def test_an_operator_follows_a_version_promotes_it_and_goes_back(ports: Ports, root: Path) -> None:
    publish(root, "2", 20.0)
    assert "tiny" in tell(ports).stdout
    assert row(tell(ports, "load", "tiny").stdout, "2")[2] == "ready"
    assert row(tell(ports, "shadow", "tiny", "2").stdout, "2")[3] == "shadow"
    refused = tell(ports, "promote", "tiny", "2", code=1)
    assert "0 of 5 requests" in str(refused.exception)
    said = tell(ports, "promote", "tiny", "2", "--force").stdout
    assert "Version 2 of 'tiny' answers now, 1 before." in said
    assert row(said, "2")[3] == "promoted"
    assert row(tell(ports, "versions").stdout, "1")[2:3] == ["ready"]
    said = tell(ports, "rollback", "tiny").stdout
    assert row(said, "1")[3] == "promoted"
    assert row(said, "2")[2] == "unavailable"
    assert "read again" in tell(ports, "reload", "tiny").stdout
    assert row(tell(ports, "unload", "tiny").stdout, "1")[2] == "unavailable"
    assert "serves no models" in tell(ports).stdout


def test_the_client_library_gives_the_same_commands_and_tells_the_reason_of_a_refusal(ports: Ports, root: Path) -> None:
    graph = publish(root, "2") / "2" / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b" ")
    with Client(f"http://127.0.0.1:{ports.http}") as client:
        assert [model.promoted for model in client.versions()] == ["1"]
        with pytest.raises(Exception, match="differs from the sha256"):
            client.command("tiny", "load", "2")
        assert client.command("tiny", "reload").versions[1].reason == "load failed: DigestMismatch"


def test_the_inference_protocol_says_which_versions_can_be_asked(ports: Ports, root: Path) -> None:
    publish(root, "2", 20.0)
    publish(root, "3")
    tell(ports, "load", "tiny", "2")
    with triton.InferenceServerClient(ports.address) as client:
        index = client.get_model_repository_index().models
        assert [(m.version, m.state, m.reason) for m in index] == [
            ("1", "READY", ""),
            ("2", "READY", ""),
            ("3", "UNAVAILABLE", "not loaded"),
        ]
        assert list(client.get_model_metadata("tiny").versions) == ["1", "2"]
        assert [client.is_model_ready("tiny", version) for version in ("1", "2", "3")] == [True, True, False]
        answer = client.infer("tiny", triton_inputs([M]), model_version="2")
        assert answer.get_response().model_version == "2"
        assert answer.as_numpy("energy")[0] == pytest.approx(ENERGY + 0.02 * 9, abs=1e-4)
        with pytest.raises(InferenceServerException, match="version '3'"):
            client.infer("tiny", triton_inputs([M]), model_version="3")
        for forbidden in (lambda: client.load_model("tiny"), lambda: client.unload_model("tiny")):
            with pytest.raises(InferenceServerException, match="not served here"):
                forbidden()
        tell(ports, "unload", "tiny")
        assert not client.is_server_ready()
        with pytest.raises(InferenceServerException, match="No model 'tiny'"):
            client.infer("tiny", triton_inputs([M]))
