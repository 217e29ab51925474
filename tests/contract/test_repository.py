"""Model folders: published in one step, verified file by file, refused when anything could reach outside."""

import os
from datetime import date
from pathlib import Path

import pytest

from contract.card import (
    BatchingCurve,
    BatchPoint,
    Check,
    Committee,
    Comparison,
    DataSource,
    Domain,
    Metric,
    ModelCard,
    Split,
    Training,
    checked_card,
    read_card,
)
from contract.errors import DigestMismatch, InvalidCard, ModelNotFound, UnsafeArtefact
from contract.repository import ModelRepository, describe_files, model_digest
from contract.signatures import BUCKETS
from contract.triton_config import triton_config
from contract.units import POTENTIAL_SIGNS, POTENTIAL_UNITS

METRIC = Metric(name="energy MAE", value=1.0, unit="meV", count=10)


def card_of(artefacts: Path, version: str = "1", **changes: object) -> ModelCard:
    card = ModelCard(
        name="toy",
        version=version,
        family="potential",
        purpose="a card for tests",
        architecture={"features": 8},
        units=POTENTIAL_UNITS,
        signs=POTENTIAL_SIGNS,
        domain=Domain(elements=["H"], cutoff_angstrom=3.0, periodic=False, description="hydrogen"),
        atomic_reference_ev={"H": -13.6},
        data=[
            DataSource(
                name="d", origin="o", licence="MIT", sha256="0" * 64, count=1, level_of_theory="toy", citation="c"
            )
        ],
        split=Split(method="blocks", train=8, valid=1, test=1, seed=0),
        metrics=[METRIC],
        compared_with=[Comparison(name="mean", metrics=[METRIC])],
        committee=Committee(members=2),
        training=Training(pipeline="toy", config_sha256="0" * 64, seed=0, parameters=1, cpu_seconds=1.0, epochs=1),
        batching=BatchingCurve(
            device="cpu", engine="onnxruntime", threads=1, points=[BatchPoint(slots=8, milliseconds=1)], best_slots=8
        ),
        max_slots=1000,
        checks=[Check(name="finite differences", measured=0.0, bound=1.0)],
        files=describe_files(artefacts, version),
        exporter={"torch": "2"},
        created=date(2026, 1, 1),
        licence="BSD-3-Clause",
        citation=["nobody"],
    )
    return card.model_copy(update=changes)


@pytest.fixture
def artefacts(tmp_path: Path) -> Path:
    folder = tmp_path / "artefacts"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").write_bytes(b"graph")
    (folder / "MODEL_CARD.md").write_text("# toy\n")
    return folder


@pytest.fixture
def repository(tmp_path: Path, artefacts: Path) -> ModelRepository:
    models = ModelRepository(tmp_path / "models")
    models.publish(card_of(artefacts), artefacts)
    return models


def test_what_is_published_is_loaded_with_its_card_and_digest(repository: ModelRepository) -> None:
    stored = repository.load("toy")
    assert repository.names() == ["toy"]
    assert stored.file("model.onnx").read_bytes() == b"graph"
    assert stored.digest == model_digest(stored.card)
    assert (repository.root / "toy" / "MODEL_CARD.md").exists()


def test_publishing_again_replaces_the_whole_folder_and_leaves_nothing_beside_it(
    repository: ModelRepository, artefacts: Path
) -> None:
    before = repository.load("toy").digest
    (artefacts / "1" / "model.onnx").write_bytes(b"better graph")
    repository.publish(card_of(artefacts), artefacts)
    assert repository.load("toy").digest != before
    assert [p.name for p in repository.root.iterdir()] == ["toy"]


def test_the_digest_changes_with_an_atomic_reference_but_not_with_prose(artefacts: Path) -> None:
    card = card_of(artefacts)
    assert model_digest(card.model_copy(update={"purpose": "other words"})) == model_digest(card)
    assert model_digest(card.model_copy(update={"atomic_reference_ev": {"H": -13.7}})) != model_digest(card)


def test_a_changed_file_is_refused(repository: ModelRepository) -> None:
    repository.load("toy").file("model.onnx").write_bytes(b"tampered")
    with pytest.raises(DigestMismatch, match="sha256"):
        repository.load("toy")


def test_a_missing_file_is_refused(repository: ModelRepository) -> None:
    repository.load("toy").file("model.onnx").unlink()
    with pytest.raises(DigestMismatch, match="missing"):
        repository.load("toy")


def test_a_symbolic_link_is_refused(repository: ModelRepository, tmp_path: Path) -> None:
    file = repository.load("toy").file("model.onnx")
    (tmp_path / "elsewhere").write_bytes(b"graph")
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeArtefact, match="symbolic link"):
        repository.load("toy")


def test_a_hard_link_is_refused(repository: ModelRepository, tmp_path: Path) -> None:
    os.link(repository.load("toy").file("model.onnx"), tmp_path / "second name")
    with pytest.raises(UnsafeArtefact, match="hard link"):
        repository.load("toy")


@pytest.mark.parametrize("name", ["../toy", "/etc", "", " ", "TOY", "t" * 65, "nothing"])
def test_a_name_that_is_no_model_touches_no_file(repository: ModelRepository, name: str) -> None:
    with pytest.raises(ModelNotFound):
        repository.load(name)


def test_a_card_that_lacks_a_field_names_it(repository: ModelRepository) -> None:
    card = repository.root / "toy" / "card.json"
    card.write_text(card.read_text().replace('"units"', '"unit"'))
    with pytest.raises(InvalidCard, match="units"):
        read_card(card)


def test_a_file_that_is_not_on_the_card_is_not_opened(repository: ModelRepository) -> None:
    with pytest.raises(ModelNotFound, match="model_members"):
        repository.load("toy").file("model_members.onnx")


def test_the_graph_of_the_members_has_a_folder_of_its_own_that_is_no_model(tmp_path: Path, artefacts: Path) -> None:
    (artefacts / "1" / "model_members.onnx").write_bytes(b"members")
    models = ModelRepository(tmp_path / "models")
    models.publish(card_of(artefacts), artefacts)
    stored = models.load("toy")
    assert stored.file("model_members.onnx") == models.root / "toy-members" / "1" / "model.onnx"
    assert stored.file("model_members.onnx").read_bytes() == b"members"
    assert sorted(p.name for p in (models.root / "toy-members").iterdir()) == ["1", "config.pbtxt"]
    assert models.names() == ["toy"]
    with pytest.raises(ModelNotFound):
        models.load("toy-members")


def test_a_changed_graph_of_the_members_is_refused(tmp_path: Path, artefacts: Path) -> None:
    (artefacts / "1" / "model_members.onnx").write_bytes(b"members")
    models = ModelRepository(tmp_path / "models")
    models.publish(card_of(artefacts), artefacts)
    (models.root / "toy-members" / "1" / "model.onnx").write_bytes(b"tampered")
    with pytest.raises(DigestMismatch, match="toy-members"):
        models.load("toy")


def test_the_companion_follows_the_versions_of_its_model(tmp_path: Path, artefacts: Path) -> None:
    models, members = ModelRepository(tmp_path / "models"), artefacts / "1" / "model_members.onnx"
    members.write_bytes(b"members")
    models.publish(card_of(artefacts), artefacts)
    (artefacts / "1").rename(artefacts / "2")
    models.publish(card_of(artefacts, "2"), artefacts)
    assert models.load("toy").file("model_members.onnx").parent.name == "2"
    assert sorted(p.name for p in (models.root / "toy-members").iterdir()) == ["2", "config.pbtxt"]
    (artefacts / "2" / "model_members.onnx").unlink()
    models.publish(card_of(artefacts, "2"), artefacts)
    assert [p.name for p in models.root.iterdir()] == ["toy"]


def test_a_name_that_ends_as_a_companion_is_no_name_for_a_model(artefacts: Path) -> None:
    card = card_of(artefacts).model_dump() | {"name": "toy-members"}
    with pytest.raises(InvalidCard, match="kept for a further graph"):
        checked_card(**card)


def test_the_triton_configuration_states_every_tensor_and_leaves_batching_to_the_gateway(artefacts: Path) -> None:
    text = triton_config(card_of(artefacts))
    assert 'name: "energy", data_type: TYPE_FP64, dims: [ -1, -1 ]' in text
    assert 'name: "shifts", data_type: TYPE_FP32, dims: [ -1, -1, 3 ]' in text
    assert "max_batch_size: 0" in text
    assert "KIND_GPU" in text


def test_triton_reads_the_configuration(artefacts: Path) -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    config = text_format.Parse(triton_config(card_of(artefacts)), model_config.ModelConfig())
    assert [t.name for t in config.output] == ["energy", "forces", "virial", "atomic_energy"]
    assert (config.backend, config.max_batch_size) == ("onnxruntime", 0)
    assert config.version_policy.WhichOneof("policy_choice") == "all"
    assert config.instance_group[0].kind == model_config.ModelInstanceGroup.KIND_GPU
    policy = config.dynamic_batching.default_queue_policy
    assert policy.max_queue_size > 0
    assert policy.default_timeout_microseconds > 0  # without it a request's own timeout is ignored
    assert policy.allow_timeout_override
    assert config.dynamic_batching.max_queue_delay_microseconds == 0


def test_every_usual_shape_is_warmed_on_zeros_within_the_limit_of_the_model(artefacts: Path) -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    config = text_format.Parse(triton_config(card_of(artefacts)), model_config.ModelConfig())
    shapes = [tuple(sample.inputs["neighbours"].dims) for sample in config.model_warmup]
    assert [slots for _, slots in shapes] == [slots for slots in BUCKETS if 2 * slots <= 1000]
    assert all(atoms * slots <= 1000 for atoms, slots in shapes)
    for sample in config.model_warmup:
        assert sample.inputs.keys() == {tensor.name for tensor in config.input}
        assert all(value.zero_data for value in sample.inputs.values())


def test_triton_reads_the_configuration_of_the_members(artefacts: Path) -> None:
    text_format = pytest.importorskip("google.protobuf.text_format")
    model_config = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    members = text_format.Parse(triton_config(card_of(artefacts), "model_members.onnx"), model_config.ModelConfig())
    assert members.name == "toy-members"
    assert members.output[-1].name == "member_forces"
