"""Models of flow while the gateway runs: loaded, asked by number, promoted, rolled back, unloaded; in the metrics."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import in_process
from flow_model import NAME, parabola, publish_flow_model
from test_fields import NPY, PATH, blobs, npy
from tiny import tiny_repository

from service.settings import Settings

IMAGE = blobs()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tiny_repository(tmp_path / "repo")
    publish_flow_model(root, tmp_path / "first")
    return root


@pytest.fixture
def gateway(root: Path) -> Iterator[httpx.Client]:
    with in_process(Settings(model_repo=root, workers=2)) as client:
        yield client


def tell(gateway: httpx.Client, command: str, status: int = 200, **body: Any) -> Any:
    answer = gateway.post(f"/v1/admin/models/{NAME}/{command}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def ask(gateway: httpx.Client, **query: Any) -> httpx.Response:
    return gateway.post(PATH, content=npy(IMAGE), headers=NPY, params={"voxel_size_um": 2.0, "axes": "z", **query})


def test_a_version_published_meanwhile_is_loaded_promoted_and_taken_back(
    gateway: httpx.Client, root: Path, tmp_path: Path
) -> None:
    publish_flow_model(root, tmp_path / "second", "2", times=2.0)
    k = parabola(IMAGE, 2)
    assert ask(gateway, version="2").status_code == 404
    assert tell(gateway, "load")["promoted"] == "1"
    assert ask(gateway, version="2").json()["k_voxel2"]["z"] == pytest.approx(2.0 * k, rel=1e-5)
    assert ask(gateway).json()["k_voxel2"]["z"] == pytest.approx(k, rel=1e-5)
    assert tell(gateway, "promote", version="2")["promoted"] == "2"
    assert ask(gateway).json()["version"] == "2"
    assert gateway.get(f"/v1/models/{NAME}").json()["promoted"] == "2"
    told = tell(gateway, "rollback")
    assert (told["promoted"], ask(gateway).json()["version"]) == ("1", "1")
    assert {each["version"]: each["state"] for each in told["versions"]} == {"1": "READY", "2": "UNAVAILABLE"}


def test_unloaded_it_is_unknown_and_loaded_again_it_answers_as_before(gateway: httpx.Client) -> None:
    before = ask(gateway).json()
    tell(gateway, "unload")
    assert ask(gateway).status_code == 404
    assert NAME not in [model["name"] for model in gateway.get("/v1/models").json()["models"]]
    tell(gateway, "load")
    assert ask(gateway).json()["k_m2"] == before["k_m2"]
    assert "read again" in tell(gateway, "reload")["done"]


def test_a_version_that_is_broken_is_refused_and_the_one_before_answers_on(
    gateway: httpx.Client, root: Path, tmp_path: Path
) -> None:
    publish_flow_model(root, tmp_path / "second", "2")
    (root / NAME / "2" / "model.onnx").write_bytes(b"broken")
    assert tell(gateway, "load", 409, version="2")["code"] == "load_failed"
    assert ask(gateway).status_code == 200


def test_versions_loads_and_lanes_are_in_the_metrics(gateway: httpx.Client, root: Path, tmp_path: Path) -> None:
    publish_flow_model(root, tmp_path / "second", "2")
    tell(gateway, "load")
    ask(gateway)
    lines = gateway.get("/metrics").text.splitlines()
    versions = [line for line in lines if line.startswith("understudy_version{") and NAME in line]
    assert sorted(line[-3:] for line in versions) == ["0.0", "1.0"]
    assert f'understudy_loads_total{{model="{NAME}",outcome="ok"}} 1.0' in "\n".join(lines).replace(
        f'outcome="ok",model="{NAME}"', f'model="{NAME}",outcome="ok"'
    )
    assert any(
        line.startswith("understudy_batches_total{") and NAME in line and line.endswith(" 1.0") for line in lines
    )


def test_shadows_are_for_potentials(gateway: httpx.Client, root: Path, tmp_path: Path) -> None:
    publish_flow_model(root, tmp_path / "second", "2")
    assert "only potentials" in tell(gateway, "shadow", 409, version="2")["detail"]
