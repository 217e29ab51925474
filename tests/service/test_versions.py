"""Versions while the gateway runs: loaded, asked by number, promoted, rolled back, unloaded; and no request dropped."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import in_process
from starlette.requests import Request
from tiny import REFERENCE_EV, PairEngine, card_of, pair_energy, publish_tiny
from wires import WIRES, call, kserve_json, malonaldehyde, rest_binary, rest_json, results, structure_of

from contract.graphs import build_graph, collate
from contract.repository import ModelRepository
from service.api.admin import refuse_strangers
from service.errors import Forbidden
from service.settings import Demands, Settings

M = malonaldehyde()
ENERGY = pair_energy(structure_of(M))
ATOMS = len(M["numbers"])


def shifted(mev_per_atom: float) -> dict[str, float]:
    """Atomic references that move every energy by so much."""
    return {element: energy + mev_per_atom / 1e3 for element, energy in REFERENCE_EV.items()}


def publish(root: Path, version: str, mev_per_atom: float = 0.0, **changes: Any) -> Path:
    return publish_tiny(root, version=version, atomic_reference_ev=shifted(mev_per_atom), **changes)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with version 1 of `tiny`."""
    publish(tmp_path / "repo", "1")
    return tmp_path / "repo"


@pytest.fixture
def gateway(root: Path) -> Iterator[httpx.Client]:
    with in_process(settings(root)) as client:
        yield client


def settings(root: Path, **others: Any) -> Settings:
    return Settings(model_repo=root, workers=2, shadow=Demands(requests=5), **others)


def tell(gateway: httpx.Client, command: str, status: int = 200, model: str = "tiny", **body: Any) -> Any:
    answer = gateway.post(f"/v1/admin/models/{model}/{command}", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def energy(gateway: httpx.Client, **rest: Any) -> float:
    return float(results(rest_json([M], **rest)(gateway))[0]["energy"])


def states(answer: dict[str, Any]) -> dict[str, str]:
    return {each["version"]: each["state"] for each in answer["versions"]}


def metrics(gateway: httpx.Client) -> dict[str, float]:
    lines = gateway.get("/metrics").text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def test_a_version_published_meanwhile_is_loaded_on_command_and_answers_who_names_it(
    gateway: httpx.Client, root: Path
) -> None:
    publish(root, "2", 50.0)
    assert gateway.get("/v2/models/tiny/versions/2/ready").status_code == 404
    told = tell(gateway, "load")
    assert "version 2 of 'tiny' is loaded" in told["done"]
    assert (told["promoted"], states(told)) == ("1", {"1": "READY", "2": "READY"})
    assert energy(gateway) == pytest.approx(ENERGY, abs=1e-4)
    moved = ENERGY + 0.05 * ATOMS
    assert energy(gateway, version="2") == pytest.approx(moved, abs=1e-4)
    assert results(rest_binary([M], version="2")(gateway))[0]["energy"] == pytest.approx(moved, abs=1e-4)
    by_path = kserve_json([M])
    by_path.path = "/v2/models/{model}/versions/2/infer"
    answer = by_path(gateway)
    assert results(answer)[0]["energy"] == pytest.approx(moved, abs=1e-4)
    assert answer.json()["model_version"] == "2"
    said = rest_json([M], version="2")(gateway).json()
    assert (said["version"], said["digest"]) == ("2", told["versions"][1]["digest"])
    assert gateway.get("/v2/models/tiny").json()["versions"] == ["1", "2"]
    assert gateway.get("/v2/models/tiny/versions/2/ready").status_code == 200
    assert gateway.get("/v1/models/tiny", params={"version": "2"}).json()["version"] == "2"


def test_a_version_that_is_not_loaded_is_404_and_those_that_are_are_named(gateway: httpx.Client) -> None:
    for asked in (rest_json([M], version="7"), rest_json([M], version="../1"), rest_binary([M], version="7")):
        answer = asked(gateway)
        assert (answer.status_code, answer.json()["versions"]) == (404, ["1"])
    assert gateway.post("/v2/models/tiny/versions/7/infer", json={}).status_code == 404
    refused = rest_json([M], version=1)(gateway)
    assert (refused.status_code, refused.json()["field"]) == (400, "version")


def test_a_model_published_meanwhile_is_served_after_its_loading(gateway: httpx.Client, root: Path) -> None:
    publish_tiny(root, "newcomer")
    assert rest_json([M])(gateway, "newcomer").status_code == 404
    told = tell(gateway, "load", model="newcomer")
    assert told["promoted"] == "1"
    assert rest_json([M])(gateway, "newcomer").status_code == 200
    assert "newcomer" in gateway.get("/openapi.json").text


def test_a_promotion_moves_everybody_at_once_lasts_over_a_restart_and_one_command_goes_back(
    gateway: httpx.Client, root: Path
) -> None:
    publish(root, "2", 50.0)
    told = tell(gateway, "promote", version="2", force=True)
    assert (told["promoted"], states(told)) == ("2", {"1": "READY", "2": "READY"})
    moved = pytest.approx(ENERGY + 0.05 * ATOMS, abs=1e-4)
    assert energy(gateway) == moved
    assert energy(gateway, version="1") == pytest.approx(ENERGY, abs=1e-4)
    assert ModelRepository(root).promoted("tiny") == "2"
    with in_process(settings(root)) as restarted:
        assert energy(restarted) == moved
    told = tell(gateway, "rollback")
    assert (told["promoted"], states(told)) == ("1", {"1": "READY", "2": "UNAVAILABLE"})
    assert energy(gateway) == pytest.approx(ENERGY, abs=1e-4)
    assert rest_json([M], version="2")(gateway).status_code == 404
    assert ModelRepository(root).promoted("tiny") == "1"
    assert "promoted before" in tell(gateway, "rollback", 409)["detail"]


def test_after_a_promotion_only_the_way_back_stays_loaded(gateway: httpx.Client, root: Path) -> None:
    for version in ("2", "3"):
        publish(root, version)
        told = tell(gateway, "promote", version=version, force=True)
    assert states(told) == {"1": "UNAVAILABLE", "2": "READY", "3": "READY"}


def test_no_version_is_promoted_untried_or_lowered_without_the_operators_word(
    gateway: httpx.Client, root: Path
) -> None:
    publish(root, "2")
    refused = tell(gateway, "promote", 409, version="2")
    assert (refused["code"], refused["reasons"]) == (
        "not_promoted",
        ["It has not followed live traffic; 5 requests are asked of it."],
    )
    tell(gateway, "promote", version="2", force=True)
    assert "lower than 2" in tell(gateway, "promote", 409, version="1")["detail"]
    ModelRepository(root).roll_back("tiny")  # somebody else's doing, on disk
    assert "lower than the served 2" in tell(gateway, "reload", 409)["detail"]
    assert gateway.get("/v1/models/tiny").json()["version"] == "2"
    assert tell(gateway, "reload", force=True)["promoted"] == "1"
    assert tell(gateway, "promote", 404, version="9")["hint"] == "There are: 1, 2."
    assert tell(gateway, "promote", 400)["field"] == "version"


def test_a_gateway_follows_on_reload_what_was_promoted_on_disk(gateway: httpx.Client, root: Path) -> None:
    publish(root, "2", 50.0)
    ModelRepository(root).promote("tiny", "2")
    assert tell(gateway, "reload")["promoted"] == "2"
    assert energy(gateway) == pytest.approx(ENERGY + 0.05 * ATOMS, abs=1e-4)


def reference(off: float) -> dict[str, np.ndarray]:
    """Inputs and answers of the tiny model, the forces off by so much."""
    inputs = collate([build_graph(structure_of(M), 3.0)])
    outputs = PairEngine()(inputs)
    outputs["forces"] = outputs["forces"] + np.float32(off)
    return {f"in/{k}": v for k, v in inputs.items()} | {f"out/{k}": v for k, v in outputs.items()}


def harm(root: Path, kind: str) -> None:
    """Publish a version 2 with something wrong."""
    if kind == "other answers":
        publish_tiny(root, version="2", reference=reference(0.1))
        return
    if kind == "broken graph":
        publish_broken(root)
        return
    graph = publish(root, "2") / "2" / "model.onnx"
    if kind == "changed":
        graph.write_bytes(graph.read_bytes() + b" ")
    else:
        graph.unlink()


def publish_broken(root: Path) -> None:
    """A version whose file is no graph, with the right sha256 on its card."""
    artefacts = root.parent / "broken"
    (artefacts / "2").mkdir(parents=True)
    (artefacts / "2" / "model.onnx").write_bytes(b"no graph at all")
    ModelRepository(root).publish(card_of(artefacts, "tiny", version="2"), artefacts)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("changed", "differs from the sha256"),
        ("missing", "missing"),
        ("broken graph", "not an ONNX file"),
        ("other answers", "does not give the forces of reference.npz (off by 0.1)"),
    ],
)
def test_a_version_that_must_not_be_served_is_refused_with_the_reason_and_the_old_one_serves(
    gateway: httpx.Client, root: Path, kind: str, said: str
) -> None:
    harm(root, kind)
    for command in ("load", "shadow", "promote"):
        refused = tell(gateway, command, 409, version="2", **({"force": True} if command == "promote" else {}))
        assert refused["code"] == "load_failed"
        assert said in refused["detail"]
    assert energy(gateway) == pytest.approx(ENERGY, abs=1e-4)
    assert ModelRepository(root).promoted("tiny") == "1"
    index = gateway.post("/v2/repository/index").json()
    assert [(each["version"], each["state"]) for each in index] == [("1", "READY"), ("2", "UNAVAILABLE")]
    assert index[1]["reason"].startswith("load failed: ")
    assert str(root) not in index[1]["reason"]
    assert metrics(gateway)['understudy_loads_total{model="tiny",outcome="failed"}'] == 3


def test_a_reload_of_what_was_damaged_leaves_what_is_loaded_serving(gateway: httpx.Client, root: Path) -> None:
    graph = root / "tiny" / "1" / "model.onnx"
    graph.write_bytes(graph.read_bytes() + b" ")
    assert tell(gateway, "reload", 409)["code"] == "load_failed"
    assert energy(gateway) == pytest.approx(ENERGY, abs=1e-4)


def test_the_right_reference_is_reproduced(gateway: httpx.Client, root: Path) -> None:
    publish_tiny(root, version="2", reference=reference(0.0))
    assert states(tell(gateway, "load", version="2"))["2"] == "READY"


def test_an_unloaded_model_is_404_and_a_gateway_without_models_is_not_ready(gateway: httpx.Client) -> None:
    tell(gateway, "unload")
    assert {call(wire, [M])(gateway).status_code for wire in WIRES} == {404}
    assert gateway.get("/v2/health/ready").status_code == 503
    assert gateway.get("/v2/health/live").status_code == 200
    assert gateway.get("/v2/models/tiny/ready").status_code == 404
    assert gateway.get("/v1/models").json() == {"models": []}
    index = gateway.post("/v2/repository/index", json={}).json()
    assert index == [{"name": "tiny", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded by the operator"}]
    assert gateway.post("/v2/repository/index", json={"ready": True}).json() == []
    assert tell(gateway, "unload", 404)["code"] == "unknown_model"
    tell(gateway, "load")
    assert gateway.get("/v2/health/ready").status_code == 200
    assert energy(gateway) == pytest.approx(ENERGY, abs=1e-4)


def test_what_is_under_way_when_a_model_is_unloaded_is_answered(gateway: httpx.Client) -> None:
    grid = np.stack(np.unravel_index(np.arange(3000), (15, 15, 14)), -1) * 1.5
    large = rest_binary([{"numbers": [6] * 3000, "positions": grid}])
    with ThreadPoolExecutor(8) as callers:
        running = [callers.submit(large, gateway) for _ in range(8)]
        while gateway.get("/v1/admin/models").json()["models"][0]["versions"][0]["requests"] < 4:
            pass
        told = tell(gateway, "unload")
        assert rest_json([M])(gateway).status_code == 404
        assert {each.result().status_code for each in running} <= {200, 404}
        assert sum(each.result().status_code == 200 for each in running) >= 4
    assert "requests under way were answered" in told["done"]


def test_no_request_fails_while_versions_are_loaded_promoted_reloaded_and_rolled_back(
    gateway: httpx.Client, root: Path
) -> None:
    publish(root, "2", 50.0)
    over, seen, calls = threading.Event(), set(), [call(wire, [M]) for wire in WIRES]

    def ask(n: int) -> int:
        count = 0
        while not over.is_set():
            answer = calls[n % len(calls)](gateway)
            assert answer.status_code == 200, answer.text
            seen.add(round((float(results(answer)[0]["energy"]) - ENERGY) / ATOMS * 1e3))
            count += 1
        return count

    with ThreadPoolExecutor(4) as callers:
        running = [callers.submit(ask, n) for n in range(4)]
        try:
            for _ in range(3):
                tell(gateway, "load", version="2")
                tell(gateway, "promote", version="2", force=True)
                tell(gateway, "reload")
                tell(gateway, "rollback")
        finally:
            over.set()
        assert all(each.result() > 0 for each in running)
    assert seen == {0, 50}


def test_the_protocols_own_load_and_unload_are_not_served(gateway: httpx.Client) -> None:
    for command in ("load", "unload"):
        assert gateway.post(f"/v2/repository/models/tiny/{command}", json={}).status_code == 404


@pytest.mark.parametrize("name", ["..", "%2e%2e%2ftiny", "TINY", " ", "t" * 4096, "tiny%00", "tıny"])
def test_names_that_are_no_models_touch_no_file(gateway: httpx.Client, name: str) -> None:
    for command in ("load", "unload", "reload", "rollback"):
        assert gateway.post(f"/v1/admin/models/{name}/{command}", json={}).status_code in (400, 404)
    assert tell(gateway, "load", 404, version="../1")["code"] == "unknown_model"
    assert states(gateway.get("/v1/admin/models").json()["models"][0]) == {"1": "READY"}


@pytest.mark.parametrize("body", [{"version": 2}, {"force": "yes"}, {"versions": "2"}, []])
def test_commands_that_cannot_be_read_are_refused(gateway: httpx.Client, body: Any) -> None:
    assert gateway.post("/v1/admin/models/tiny/load", json=body).status_code == 400


def test_a_command_that_a_page_of_another_site_could_send_is_refused(gateway: httpx.Client) -> None:
    assert gateway.post("/v1/admin/models/tiny/unload", content=b"{}").status_code == 415
    head = {"content-type": "text/plain"}
    assert gateway.post("/v1/admin/models/tiny/unload", content=b"{}", headers=head).status_code == 415
    assert gateway.post("/v1/admin/models/tiny/dance", json={}).status_code == 404


@pytest.mark.parametrize(("host", "allowed"), [("127.0.0.1", True), ("::1", True), ("10.0.0.7", False), ("", False)])
def test_commands_are_taken_from_this_machine_only(host: str, allowed: bool) -> None:
    request = Request({"type": "http", "client": (host, 1), "headers": []})
    if allowed:
        refuse_strangers(request)
    else:
        with pytest.raises(Forbidden):
            refuse_strangers(request)


def test_a_repository_that_cannot_be_written_refuses_the_promotion(
    gateway: httpx.Client, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(root, "2")

    def no_space(*_: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("os.replace", no_space)  # root may write everywhere, so that a folder's mode says nothing
    refused = tell(gateway, "promote", 409, version="2", force=True)
    assert "Read-only file system" in refused["detail"]
    assert gateway.get("/v1/models/tiny").json()["promoted"] == "1"


def test_a_shape_that_runs_first_after_the_model_was_ready_is_counted(gateway: httpx.Client) -> None:
    count = 'understudy_first_runs_total{model="tiny",version="1"}'
    for wire in WIRES:
        call(wire, [M, {"numbers": [6], "positions": [[0, 0, 0]]}])(gateway)
    assert metrics(gateway)[count] == 0
    dense = np.stack(np.unravel_index(np.arange(512), (8, 8, 8)), -1) * 0.55
    assert rest_binary([{"numbers": [6] * 512, "positions": dense}])(gateway).status_code == 200
    assert metrics(gateway)[count] == 1
