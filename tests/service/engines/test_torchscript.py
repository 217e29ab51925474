"""The TorchScript engine on what the exporter traced, and the refusal of what it must not unpack."""

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from references import MALONALDEHYDE, NAMES, SHIPPED, assert_alike, reference, shipped
from tiny import publish_tiny
from understudy.inprocess import InProcess
from wires import malonaldehyde, rest_json

from contract.errors import DigestMismatch, ModelNotFound, UnsafeArtefact
from contract.repository import ModelRepository
from service.app import create_app, open_engine
from service.engines import EngineUnavailable
from service.engines.torchscript import TorchScript
from service.settings import Settings


@pytest.fixture
def engine() -> Iterator[TorchScript]:
    engine = TorchScript(2)
    yield engine
    engine.close()


@pytest.mark.parametrize("name", NAMES)
def test_it_reproduces_the_reference(engine: TorchScript, name: str) -> None:
    inputs, expected = reference(shipped(name))
    outputs = engine.open(shipped(name), "model.onnx")(inputs)
    assert outputs.keys() == expected.keys()
    assert_alike(outputs, expected, rtol=1e-5, atol=1e-4)


def test_it_may_run_in_several_threads_at_once(engine: TorchScript) -> None:
    run, (inputs, _) = engine.open(shipped(MALONALDEHYDE), "model.onnx"), reference(shipped(MALONALDEHYDE))
    expected = run(inputs)["forces"]
    with ThreadPoolExecutor(2) as pool:
        for outputs in pool.map(lambda _: run(inputs), range(6)):
            np.testing.assert_allclose(outputs["forces"], expected, atol=1e-5)


def test_it_says_what_it_is_and_gives_torch_its_threads_back() -> None:
    before = torch.get_num_threads()
    engine = TorchScript(1)
    assert (engine.description.engine, engine.description.device) == ("torchscript", "cpu")
    assert torch.get_num_threads() == 1
    engine.close()
    assert torch.get_num_threads() == before


def test_a_changed_file_is_refused_before_it_is_unpacked(engine: TorchScript, tmp_path: Path) -> None:
    for folder in SHIPPED.glob(f"{MALONALDEHYDE}*"):
        shutil.copytree(folder, tmp_path / folder.name)
    stored = ModelRepository(tmp_path).load(MALONALDEHYDE)
    (stored.folder / "model.pt").write_bytes(b"not even a zip file")
    with pytest.raises(DigestMismatch, match=r"model\.pt"):
        engine.open(stored, "model.onnx")


def test_a_model_without_torchscript_is_refused_by_name(engine: TorchScript, tmp_path: Path) -> None:
    publish_tiny(tmp_path / "repo")
    with pytest.raises(ModelNotFound, match=r"'tiny'.*model\.pt"):
        engine.open(ModelRepository(tmp_path / "repo").load("tiny"), "model.onnx")


def test_the_graph_of_the_members_is_not_there_and_the_gateway_says_so(engine: TorchScript) -> None:
    stored = shipped(MALONALDEHYDE)
    assert not engine.opens(stored, "model_members.onnx")
    with pytest.raises(UnsafeArtefact, match="UNDERSTUDY_ENGINE=onnxruntime"):
        engine.open(stored, "model_members.onnx")
    app = create_app(Settings(model_repo=SHIPPED, engine="torchscript", workers=1))
    with httpx.Client(transport=InProcess(app), base_url="http://127.0.0.1", timeout=60.0) as gateway:
        right = rest_json([malonaldehyde()])(gateway, MALONALDEHYDE)
        refused = rest_json([malonaldehyde()], outputs=["forces_std"])(gateway, MALONALDEHYDE)
    assert right.status_code == 200
    assert refused.status_code == 400
    assert "onnxruntime" in refused.json()["hint"]


def test_a_missing_torch_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    monkeypatch.delitem(__import__("sys").modules, "service.engines.torchscript")
    with pytest.raises(ModuleNotFoundError, match=r"pip install .*\.\[torchscript\]"):
        open_engine(Settings(engine="torchscript"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_not_replaced_by_the_cpu_when_it_was_asked_for() -> None:
    with pytest.raises(EngineUnavailable, match="finds no GPU"):
        TorchScript(1, "cuda")
