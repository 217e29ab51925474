"""The embedded engine, and the files that it must not open."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny import PairEngine, card_of, pair_graph, publish_tiny
from wires import malonaldehyde, structure_of

from contract.errors import DigestMismatch, RepositoryError, UnsafeArtefact
from contract.graphs import build_graph, collate
from contract.repository import ModelRepository, StoredModel
from contract.signatures import POTENTIAL
from service.engines import Stop
from service.engines.onnx_file import read_self_contained
from service.engines.onnxruntime import OnnxRuntime

BATCH = collate([build_graph(structure_of(malonaldehyde()), 3.0)])


@pytest.fixture
def stored(tmp_path: Path) -> Callable[[onnx.ModelProto], StoredModel]:
    """Publishes a graph and loads it from the repository."""

    def publish(graph: onnx.ModelProto) -> StoredModel:
        artefacts = tmp_path / "artefacts"
        (artefacts / "1").mkdir(parents=True)
        (artefacts / "1" / "model.onnx").write_bytes(graph.SerializeToString())
        (tmp_path / "repo").mkdir()
        ModelRepository(tmp_path / "repo").publish(card_of(artefacts, "tiny"), artefacts)
        return ModelRepository(tmp_path / "repo").load("tiny")

    return publish


def test_the_engine_gives_what_the_graph_says(stored: Callable[[onnx.ModelProto], StoredModel]) -> None:
    engine = OnnxRuntime(2)
    outputs = engine.open(stored(pair_graph(POTENTIAL)), "model.onnx")(BATCH)
    for name, array in PairEngine()(BATCH).items():
        if name in outputs:
            np.testing.assert_allclose(outputs[name], array, atol=1e-5)
    assert (engine.description.engine, engine.description.device, engine.concurrency) == ("onnxruntime", "cpu", 2)


def test_one_graph_may_run_in_several_threads_at_once(stored: Callable[[onnx.ModelProto], StoredModel]) -> None:
    run = OnnxRuntime(4).open(stored(pair_graph(POTENTIAL)), "model.onnx")
    expected = run(BATCH)["forces"]
    with ThreadPoolExecutor(4) as pool:
        for outputs in pool.map(lambda _: run(BATCH), range(40)):
            np.testing.assert_array_equal(outputs["forces"], expected)


def external(model: onnx.ModelProto, where: str) -> onnx.ModelProto:
    """The same graph with one tensor that says it lies in /etc/passwd."""
    tensor = numpy_helper.from_array(np.zeros(4, np.float32), "stolen")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    if where == "initializer":
        model.graph.initializer.append(tensor)
    elif where == "constant":
        model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))
    elif where == "branch":
        inner = helper.make_graph([helper.make_node("Constant", [], ["o"], value=tensor)], "inner", [], [])
        model.graph.node.append(helper.make_node("If", ["one"], ["i"], then_branch=inner, else_branch=inner))
    else:
        function = helper.make_function(
            "ours", "F", [], ["c"], [helper.make_node("Constant", [], ["c"], value=tensor)],
            [helper.make_opsetid("", 18)],
        )  # fmt: skip
        model.functions.append(function)
    return model


@pytest.mark.parametrize("where", ["initializer", "constant", "branch", "function"])
def test_weights_in_other_files_are_refused_wherever_they_hide(
    stored: Callable[[onnx.ModelProto], StoredModel], where: str
) -> None:
    model = stored(external(pair_graph(POTENTIAL), where))
    with pytest.raises(UnsafeArtefact, match="other files"):
        OnnxRuntime(1).open(model, "model.onnx")


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"PK\x03\x04" + b"\0" * 60, b"\x3a\xff\xff\xff\xff\x0f"])
def test_what_is_no_graph_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    publish_tiny(tmp_path / "repo")
    model = ModelRepository(tmp_path / "repo").load("tiny")
    (model.folder / "model.onnx").write_bytes(content)
    with pytest.raises(UnsafeArtefact, match=r"model\.onnx"):
        OnnxRuntime(1).open(model, "model.onnx")


def test_a_graph_of_another_signature_is_refused(stored: Callable[[onnx.ModelProto], StoredModel]) -> None:
    graph = pair_graph(POTENTIAL)
    graph.graph.input[0].name = "atoms"
    for node in graph.graph.node:
        node.input[:] = ["atoms" if name == "species" else name for name in node.input]
    with pytest.raises(UnsafeArtefact, match="atoms"):
        OnnxRuntime(1).open(stored(graph), "model.onnx")


def test_the_reader_of_onnx_files_finds_nothing_wrong_with_a_real_one(tmp_path: Path) -> None:
    path = publish_tiny(tmp_path / "repo") / "1" / "model.onnx"
    assert read_self_contained(path) == path.read_bytes()


@pytest.mark.parametrize("harm", ["changed", "missing", "linked"])
def test_a_model_whose_files_are_not_those_of_its_card_is_not_loaded(tmp_path: Path, harm: str) -> None:
    folder = publish_tiny(tmp_path / "repo")
    path = folder / "1" / "model.onnx"
    if harm == "changed":
        path.write_bytes(path.read_bytes() + b" ")
    elif harm == "missing":
        path.unlink()
    else:
        os.rename(path, tmp_path / "elsewhere.onnx")
        path.symlink_to(tmp_path / "elsewhere.onnx")
    with pytest.raises(RepositoryError) as refusal:
        ModelRepository(tmp_path / "repo").load("tiny")
    assert isinstance(refusal.value, DigestMismatch | UnsafeArtefact)


def test_a_call_that_nobody_waits_for_is_stopped(stored: Callable[[onnx.ModelProto], StoredModel]) -> None:
    run, stop = OnnxRuntime(1).open(stored(pair_graph(POTENTIAL)), "model.onnx"), Stop()
    assert run(BATCH, stop)["forces"].shape == (9, 3)
    stop.ask()
    with pytest.raises(Exception, match="terminate"):
        run(BATCH, stop)
    assert run(BATCH, Stop())["forces"].shape == (9, 3)
