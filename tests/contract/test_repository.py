"""Model folders: published in one step, verified file by file, refused when anything could reach outside."""

import os
import shutil
import subprocess
import sys
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
from contract.errors import DigestMismatch, InvalidCard, ModelNotFound, UnsafeArtefact, VersionExists
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


def publish_next(repository: ModelRepository, artefacts: Path, version: str) -> None:
    """Another version with another graph."""
    folder = artefacts.parent / f"artefacts-{version}"
    shutil.copytree(artefacts, folder)
    (folder / "1").rename(folder / version)
    (folder / version / "model.onnx").write_bytes(f"graph {version}".encode())
    (folder / "MODEL_CARD.md").write_text(f"# toy {version}\n![parity](parity.svg) [site](https://a.b) [top](#top)\n")
    (folder / "parity.svg").write_text(f"<svg>{version}</svg>")
    repository.publish(card_of(folder, version, max_slots=1000 * int(version)), folder)


def test_a_version_is_written_once(repository: ModelRepository, artefacts: Path) -> None:
    before = repository.load("toy").digest
    (artefacts / "1" / "model.onnx").write_bytes(b"better graph")
    with pytest.raises(VersionExists, match="higher number"):
        repository.publish(card_of(artefacts), artefacts)
    assert repository.load("toy").digest == before
    assert [p.name for p in repository.root.iterdir()] == ["toy"]


def test_the_next_version_lies_beside_the_promoted_one_which_stays_promoted(
    repository: ModelRepository, artefacts: Path
) -> None:
    publish_next(repository, artefacts, "10")
    publish_next(repository, artefacts, "9")
    assert repository.versions("toy") == ["1", "9", "10"]
    assert (repository.promoted("toy"), repository.load("toy").card.version) == ("1", "1")
    assert repository.load("toy", "10").file("model.onnx").read_bytes() == b"graph 10"
    assert (repository.root / "toy" / "MODEL_CARD.md").read_text() == "# toy\n"
    assert [p.name for p in repository.root.iterdir()] == ["toy"]


def test_a_promotion_puts_the_versions_card_and_configuration_on_top(
    repository: ModelRepository, artefacts: Path
) -> None:
    publish_next(repository, artefacts, "2")
    repository.promote("toy", "2")
    folder = repository.root / "toy"
    assert repository.load("toy").card.version == "2"
    assert read_card(folder / "card.json") == read_card(folder / "2" / "card.json")
    assert (folder / "config.pbtxt").read_text() == triton_config(repository.load("toy").card)
    text = (folder / "MODEL_CARD.md").read_text()
    assert "(2/parity.svg)" in text
    assert "(https://a.b)" in text
    assert "(#top)" in text
    assert (folder / "2" / "parity.svg").exists()
    assert not (folder / "parity.svg").exists()


def test_a_rollback_goes_back_promotion_by_promotion(repository: ModelRepository, artefacts: Path) -> None:
    assert repository.previous("toy") is None
    for version in ("2", "3"):
        publish_next(repository, artefacts, version)
        repository.promote("toy", version)
    for version in ("2", "1"):
        assert repository.previous("toy") == version
        repository.roll_back("toy")
        assert repository.promoted("toy") == version
    with pytest.raises(ModelNotFound, match="before"):
        repository.roll_back("toy")


def test_a_damaged_version_is_not_promoted(repository: ModelRepository, artefacts: Path) -> None:
    publish_next(repository, artefacts, "2")
    (repository.root / "toy" / "2" / "model.onnx").write_bytes(b"tampered")
    with pytest.raises(DigestMismatch):
        repository.promote("toy", "2")
    assert (repository.promoted("toy"), repository.previous("toy")) == ("1", None)


@pytest.mark.parametrize("damage", ["graph", "card on top"])
def test_the_next_version_is_promoted_where_the_promoted_one_cannot_be_served(
    repository: ModelRepository, artefacts: Path, damage: str
) -> None:
    (repository.root / "toy" / ("1/model.onnx" if damage == "graph" else "card.json")).write_bytes(b"damaged")
    publish_next(repository, artefacts, "2")
    assert repository.load("toy").card.version == "2"


@pytest.mark.parametrize("version", ["0", "01", "-1", "2", "../1", "1/../1", ""])
def test_a_version_that_is_none_touches_no_file(repository: ModelRepository, version: str) -> None:
    if version:
        with pytest.raises(ModelNotFound, match="there are: 1"):
            repository.load("toy", version)
    assert repository.versions("../toy") == []


def test_a_card_in_another_versions_folder_is_refused(repository: ModelRepository) -> None:
    shutil.copytree(repository.root / "toy" / "1", repository.root / "toy" / "2")
    with pytest.raises(InvalidCard, match="version 1"):
        repository.load("toy", "2")


KILLED_AT_EACH_RENAME = """
import os, shutil, signal, sys
from pathlib import Path
sys.path.insert(0, {here!r})
from contract.repository import ModelRepository
from contract.triton_config import triton_config
from test_repository import card_of, publish_next

root, artefacts = Path({root!r}), Path({artefacts!r})
(artefacts / "1" / "model_members.onnx").write_bytes(b"members")

def killed_at(n, repository, step):
    def counted(real):
        def rename(*arguments):
            if (left := left_over.pop()) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left_over.append(left - 1)
            return real(*arguments)
        return rename
    left_over = [n]
    if (child := os.fork()) == 0:
        os.rename, os.replace = counted(os.rename), counted(os.replace)
        step(repository)
        os._exit(0)
    return os.waitpid(child, 0)[1] != 0

def check(repository):
    stored = repository.load("toy")
    for version in repository.versions("toy"):
        repository.load("toy", version)
    repository.settle("toy")
    folder = repository.root / "toy"
    assert (folder / "config.pbtxt").read_text() == triton_config(stored.card)
    members = (root / "toy-members" / "config.pbtxt").read_text()
    assert members == triton_config(stored.card, "model_members.onnx")
    assert (folder / "MODEL_CARD.md").read_text().startswith("# toy" + " 2" * (stored.card.version == "2") + "\\n")
    assert str(folder / stored.card.version) + "/card.json" in map(str, folder.glob("*/card.json"))
    return stored.card.version, repository.versions("toy"), repository.previous("toy")

STEPS = {{
    "publish": lambda repository: publish_next(repository, artefacts, "3"),
    "promote": lambda repository: repository.promote("toy", "2"),
    "roll back": lambda repository: repository.roll_back("toy"),
}}
BEFORE_AND_AFTER = {{
    "publish": [("1", ["1", "2"], None), ("1", ["1", "2", "3"], None)],
    "promote": [("1", ["1", "2"], None), ("2", ["1", "2"], "1")],
    "roll back": [("2", ["1", "2"], "1"), ("1", ["1", "2"], None)],
}}
for name, step in STEPS.items():
    seen = []
    for n in range(20):
        shutil.rmtree(root, ignore_errors=True)
        for old in artefacts.parent.glob("artefacts-*"):
            shutil.rmtree(old)
        repository = ModelRepository(root)
        repository.publish(card_of(artefacts), artefacts)
        publish_next(repository, artefacts, "2")
        if name == "roll back":
            repository.promote("toy", "2")
        killed = killed_at(n, repository, step)
        seen.append(check(repository))
        assert seen[-1] in BEFORE_AND_AFTER[name], (name, n, seen)
        if not killed:
            break
    assert n >= (1 if name == "publish" else 3), (name, n)
    assert seen[0] == BEFORE_AND_AFTER[name][0], seen
    assert seen[-1] == BEFORE_AND_AFTER[name][1], seen
print("whole")
"""


def test_killed_at_any_rename_the_repository_is_as_before_or_as_after(tmp_path: Path, artefacts: Path) -> None:
    script = KILLED_AT_EACH_RENAME.format(
        here=str(Path(__file__).parent), root=str(tmp_path / "models"), artefacts=str(artefacts)
    )
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert shown.stdout.strip() == "whole", shown.stderr


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


@pytest.mark.parametrize("name", ["../toy", "/etc", "", " ", "TOY", "t" * 65, "nothing", "toy\n", "toy\0"])
def test_a_name_that_is_no_model_touches_no_file(repository: ModelRepository, name: str) -> None:
    with pytest.raises(ModelNotFound):
        repository.load(name)
    repository.settle(name)
    assert repository.versions(name) == []


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


def test_the_companion_holds_the_versions_of_its_model_and_follows_its_promotion(
    tmp_path: Path, artefacts: Path
) -> None:
    models = ModelRepository(tmp_path / "models")
    (artefacts / "1" / "model_members.onnx").write_bytes(b"members")
    models.publish(card_of(artefacts), artefacts)
    publish_next(models, artefacts, "2")
    companion = models.root / "toy-members"
    assert sorted(p.name for p in companion.iterdir()) == ["1", "2", "config.pbtxt"]
    models.promote("toy", "2")
    assert models.load("toy").file("model_members.onnx") == companion / "2" / "model.onnx"
    assert (companion / "config.pbtxt").read_text() == triton_config(models.load("toy").card, "model_members.onnx")


def test_a_companion_may_begin_with_a_later_version(repository: ModelRepository, artefacts: Path) -> None:
    (artefacts / "1" / "model_members.onnx").write_bytes(b"members")
    publish_next(repository, artefacts, "2")
    assert repository.load("toy", "2").has("model_members.onnx")
    assert not repository.load("toy").has("model_members.onnx")
    assert (repository.root / "toy-members" / "config.pbtxt").exists()


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
    assert [output.name for output in members.output[-2:]] == ["member_forces", "member_virial"]
