"""deploy/compose.yaml: what it says of the gateway is known to the gateway, and what it says to Triton, to Triton."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from real_triton import Environment, RealTriton
from tritonclient.grpc import InferenceServerException

from service.settings import Settings

ROOT = Path(__file__).parents[3]
NEWER = ("--grpc-max-response-pool-size",)
"""Flags that the server of our tests, of 2024, does not know yet."""


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text()))


def test_the_gateway_knows_its_settings_and_its_stage(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = compose["services"]["gateway"]
    for name, value in gateway["environment"].items():
        assert name.removeprefix("UNDERSTUDY_").lower() in Settings.model_fields
        monkeypatch.setenv(name, value)
    assert Settings().triton_urls() == ["triton:8001"]
    assert f" AS {gateway['build']['target']}\n" in (ROOT / "Dockerfile").read_text()


def test_only_the_gateway_can_be_reached_and_only_from_this_machine(compose: dict[str, Any]) -> None:
    gateway, triton = compose["services"]["gateway"], compose["services"]["triton"]
    assert "ports" not in triton
    assert triton["networks"] == ["private"]
    assert compose["networks"]["private"] == {"internal": True}
    assert all(port.startswith("127.0.0.1:") for port in gateway["ports"])


def test_both_are_confined_and_read_the_same_models(compose: dict[str, Any]) -> None:
    sources = set()
    for service in compose["services"].values():
        assert service["user"] == "1000:1000"
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        source, _, mode = service["volumes"][0].split(":")
        assert mode == "ro"
        sources.add((ROOT / "deploy" / source).resolve())
    assert sources == {ROOT / "model_repo"}


def test_large_images_lie_on_a_volume_that_belongs_to_the_image_s_user(compose: dict[str, Any]) -> None:
    gateway = compose["services"]["gateway"]
    folder = gateway["environment"]["UNDERSTUDY_SPOOL"]
    assert gateway["volumes"][1:] == [f"spool:{folder}"]
    assert "spool" in compose["volumes"]
    assert f"install --directory --owner=understudy {folder}\n" in (ROOT / "Dockerfile").read_text()


def test_a_real_triton_takes_the_flags_and_keeps_what_they_forbid(
    compose: dict[str, Any], triton_environment: Environment, triton_repository: Path
) -> None:
    command = [
        word.replace("${TRITON_ADMIN_KEY", "secret${").partition("${")[0]
        for word in compose["services"]["triton"]["command"]
    ]
    flags = [word for word in command[1:] if not word.startswith(("--model-repository", *NEWER))]
    server = RealTriton(triton_environment, triton_repository, triton_repository.parent, flags)
    try:
        server.start()
        with server.client() as client:
            assert client.is_model_ready("malonaldehyde")
            with pytest.raises(InferenceServerException):
                client.load_model("malonaldehyde")
            with pytest.raises(InferenceServerException, match="restricted"):
                client.get_system_shared_memory_status()
            assert client.get_system_shared_memory_status(headers={"triton-grpc-protocol-key": "secret"}) is not None
    finally:
        server.stop()
