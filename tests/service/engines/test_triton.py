"""The Triton engine against real Triton servers: the same answers, and what happens when one is wrong, full or gone."""

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf import json_format
from real_triton import RealTriton
from references import SHIPPED, assert_alike, graphs, reference, shipped
from tiny import publish_tiny
from understudy.inprocess import InProcess
from wires import call, malonaldehyde, rest_json

from contract.card import ModelFile
from contract.errors import NotReproduced, UnsafeArtefact
from contract.repository import ModelRepository, sha256_of
from service.app import create_app, open_engine
from service.engines import EngineUnavailable, Runner, Stop
from service.engines.onnxruntime import OnnxRuntime
from service.engines.triton import Triton
from service.engines.triton_server import Elsewhere, translated
from service.errors import DeadlineExceeded, EngineAway, QueueFull, ServiceError
from service.settings import Settings

STUDENT = "malonaldehyde"
Pair = tuple[RealTriton, RealTriton]


@contextmanager
def engine_on(*servers: RealTriton, calls: int = 2, timeout_s: float = 60.0) -> Iterator[Triton]:
    engine = Triton([server.url for server in servers], calls, timeout_s)
    try:
        yield engine
    finally:
        engine.close()


@contextmanager
def gateway_on(*servers: RealTriton, **settings: Any) -> Iterator[httpx.Client]:
    urls = ",".join(server.url for server in servers)
    chosen = Settings(model_repo=SHIPPED, engine="triton", triton_url=urls, canary_fraction=0.0, **settings)
    with httpx.Client(transport=InProcess(create_app(chosen)), base_url="http://127.0.0.1", timeout=60.0) as client:
        yield client


@contextmanager
def configured(server: RealTriton, model: str, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """A model on a server under another configuration, for a while."""
    with server.client() as client:
        config = json_format.MessageToDict(client.get_model_config(model).config, preserving_proto_field_name=True)
        change(config)
        client.load_model(model, config=json.dumps(config))
        try:
            yield
        finally:
            client.load_model(model)


@contextmanager
def unloaded(server: RealTriton, model: str) -> Iterator[None]:
    with server.client() as client:
        client.unload_model(model)
        wait_until(lambda: not client.is_model_ready(model))
        try:
            yield
        finally:
            client.load_model(model)


def wait_until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def answers(run: Runner, inputs: dict[str, np.ndarray]) -> bool:
    try:
        run(inputs)
    except ServiceError:
        return False
    return True


def executions(server: RealTriton, model: str) -> int:
    with server.client() as client:
        statistics = client.get_inference_statistics(model, as_json=True)
    return int(statistics["model_stats"][0].get("execution_count", 0))


@pytest.mark.parametrize(("name", "file"), graphs())
def test_it_answers_as_the_embedded_engine_and_as_the_reference(tritons: Pair, name: str, file: str) -> None:
    stored, (inputs, expected) = shipped(name), reference(shipped(name))
    with engine_on(tritons[0]) as engine:
        outputs = engine.open(stored, file)(inputs)
        assert (engine.description.engine, engine.description.device) == ("triton", "cpu")
    embedded = OnnxRuntime(1, "cpu").open(stored, file)(inputs)
    assert outputs.keys() == embedded.keys()
    assert_alike(outputs, embedded, rtol=0, atol=0)
    assert_alike(outputs, expected, rtol=1e-5, atol=1e-4)


def test_a_gateway_in_front_of_triton_answers_over_every_wire_as_one_without_it(tritons: Pair) -> None:
    embedded = httpx.Client(transport=InProcess(create_app(Settings(model_repo=SHIPPED))), base_url="http://127.0.0.1")
    with gateway_on(*tritons) as gateway, embedded:
        for wire in ("REST JSON", "REST binary", "KServe JSON", "KServe binary"):
            ours, theirs = (call(wire, [malonaldehyde()])(client, STUDENT) for client in (gateway, embedded))
            assert (ours.status_code, theirs.status_code) == (200, 200)
            if wire == "REST JSON":
                assert ours.json()["results"] == theirs.json()["results"]
        spread = rest_json([malonaldehyde()], outputs=["forces_std"])(gateway, STUDENT)
        assert np.shape(spread.json()["results"][0]["forces_std"]) == (9, 3)


def test_requests_of_different_sizes_share_executions(tritons: Pair) -> None:
    server, sizes = tritons[0], range(2, 26)
    with gateway_on(server, triton_calls=1) as gateway, ThreadPoolExecutor(len(sizes)) as pool:
        before = executions(server, STUDENT)
        got = list(pool.map(lambda size: rest_json([chain(size)])(gateway, STUDENT), sizes))
        shared = executions(server, STUDENT) - before
    assert [len(response.json()["results"][0]["forces"]) for response in got] == list(sizes)
    assert 1 <= shared <= len(sizes) // 2


def chain(size: int) -> dict[str, Any]:
    """Carbon atoms in a line, far enough apart to have few neighbours."""
    return {"numbers": [6] * size, "positions": [[1.8 * place, 0.0, 0.0] for place in range(size)]}


def test_a_server_killed_under_traffic_costs_no_request_and_is_used_again_when_it_is_back(tritons: Pair) -> None:
    first, second = tritons
    inputs, expected = reference(shipped(STUDENT))
    with engine_on(first, second) as engine, ThreadPoolExecutor(engine.concurrency) as pool:
        run = engine.open(shipped(STUDENT), "model.onnx")
        killed = threading.Event()

        def ask(number: int) -> dict[str, np.ndarray]:
            if number == 40:
                first.kill()
                killed.set()
            return run(inputs)

        for outputs in pool.map(ask, range(200)):
            assert_alike(outputs, expected, rtol=1e-5, atol=1e-4)
        assert killed.is_set()
        first.start()
        wait_until(lambda: used(run, inputs, first))


def used(run: Runner, inputs: dict[str, np.ndarray], server: RealTriton) -> bool:
    """Whether some calls at once are shared by this server too."""
    before = executions(server, STUDENT)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: run(inputs), range(8)))
    return executions(server, STUDENT) > before


def test_without_any_server_callers_are_told_to_come_back_and_served_when_one_is_there(tritons: Pair) -> None:
    server = tritons[0]
    with gateway_on(server) as gateway:
        ask = rest_json([malonaldehyde()])
        assert ask(gateway, STUDENT).status_code == 200
        server.kill()
        refused = ask(gateway, STUDENT)
        assert refused.status_code == 503
        assert refused.json()["code"] == "engine_away"
        assert int(refused.headers["Retry-After"]) >= 1
        assert gateway.get("/v2/health/ready").status_code == 503
        server.start()
        wait_until(lambda: ask(gateway, STUDENT).status_code == 200)


def test_a_model_that_is_gone_from_one_server_is_asked_of_the_other(tritons: Pair) -> None:
    inputs, _ = reference(shipped(STUDENT))
    with engine_on(*tritons) as engine:
        run = engine.open(shipped(STUDENT), "model.onnx")
        with unloaded(tritons[0], STUDENT):
            for _ in range(4):
                run(inputs)


def test_a_model_that_is_gone_from_the_only_server_is_503_until_it_is_back(tritons: Pair) -> None:
    inputs, _ = reference(shipped(STUDENT))
    with engine_on(tritons[0]) as engine:
        run = engine.open(shipped(STUDENT), "model.onnx")
        with unloaded(tritons[0], STUDENT), pytest.raises(EngineAway) as refusal:
            run(inputs)
        assert "Retry-After" in refusal.value.headers
        wait_until(lambda: answers(run, inputs))


def test_a_full_queue_is_429(tritons: Pair) -> None:
    inputs, expected = reference(shipped(STUDENT))

    def shorten(config: dict[str, Any]) -> None:
        config["dynamic_batching"]["default_queue_policy"]["max_queue_size"] = 1

    with configured(tritons[0], STUDENT, shorten), engine_on(tritons[0]) as engine, ThreadPoolExecutor(12) as pool:
        run = engine.open(shipped(STUDENT), "model.onnx")
        outcomes = [pool.submit(run, inputs) for _ in range(60)]
        refusals = [future.exception() for future in outcomes]
    assert any(isinstance(refusal, QueueFull) for refusal in refusals)
    assert all(refusal is None or isinstance(refusal, QueueFull) for refusal in refusals)
    assert_alike(next(f for f in outcomes if not f.exception()).result(), expected, rtol=1e-5, atol=1e-4)


def test_an_answer_that_is_late_is_504(tritons: Pair) -> None:
    inputs, _ = reference(shipped(STUDENT))
    with engine_on(tritons[0]) as engine:
        run = engine.open(shipped(STUDENT), "model.onnx")
        engine._timeout_s = 1e-4
        with pytest.raises(DeadlineExceeded):
            run(inputs)


def test_a_call_that_nobody_waits_for_is_cancelled(tritons: Pair) -> None:
    inputs, _ = reference(shipped(STUDENT))
    with engine_on(tritons[0]) as engine:
        run, stop = engine.open(shipped(STUDENT), "model.onnx"), Stop()
        stop.ask()
        with pytest.raises((grpc.FutureCancelledError, RuntimeError)):
            run(inputs, stop)
        run(inputs)


def test_what_triton_finds_wrong_with_a_batch_is_an_engine_failure_in_its_words(tritons: Pair) -> None:
    inputs, _ = reference(shipped(STUDENT))
    with engine_on(tritons[0]) as engine:
        run = engine.open(shipped(STUDENT), "model.onnx")
        with pytest.raises(RuntimeError, match="invalid index"):
            run({**inputs, "neighbours": inputs["neighbours"] + 10_000_000})


def test_a_server_without_the_model_is_refused_on_start_by_name(tritons: Pair, tmp_path: Path) -> None:
    publish_tiny(tmp_path / "repo")
    with engine_on(tritons[0]) as engine, pytest.raises(UnsafeArtefact, match="no model 'tiny' version 1"):
        engine.open(ModelRepository(tmp_path / "repo").load("tiny"), "model.onnx")


def test_a_server_with_other_weights_under_the_name_is_refused_on_start(tritons: Pair, tmp_path: Path) -> None:
    for folder in SHIPPED.glob(f"{STUDENT}*"):
        shutil.copytree(folder, tmp_path / folder.name)
    file = tmp_path / STUDENT / "1" / "reference.npz"
    inputs, outputs = reference(shipped(STUDENT))
    outputs["forces"] = outputs["forces"] + 0.1
    np.savez(file, **{f"in/{k}": v for k, v in inputs.items()}, **{f"out/{k}": v for k, v in outputs.items()})
    stored = shipped(STUDENT)
    files = [
        ModelFile(path=e.path, sha256=sha256_of(file), bytes=1) if e.path.endswith("reference.npz") else e
        for e in stored.card.files
    ]
    (tmp_path / STUDENT / "1" / "card.json").write_text(
        stored.card.model_copy(update={"files": files}).model_dump_json()
    )
    with (
        engine_on(tritons[0]) as engine,
        pytest.raises(NotReproduced, match=rf"Triton at {tritons[0].url}: model '{STUDENT}'.*forces"),
    ):
        engine.open(ModelRepository(tmp_path).load(STUDENT), "model.onnx")


def test_a_server_with_other_tensors_under_the_name_is_refused_on_start(tritons: Pair) -> None:
    def drop_virial(config: dict[str, Any]) -> None:
        config["output"] = [output for output in config["output"] if output["name"] != "virial"]

    with (
        configured(tritons[0], STUDENT, drop_virial),
        engine_on(tritons[0]) as engine,
        pytest.raises(UnsafeArtefact, match="output virial differ"),
    ):
        engine.open(shipped(STUDENT), "model.onnx")


def test_without_a_server_the_start_is_refused_and_says_what_to_do() -> None:
    engine = Triton(["127.0.0.1:1"], 1, 1.0)
    with pytest.raises(EngineUnavailable, match="UNDERSTUDY_TRITON_URL"):
        engine.open(shipped(STUDENT), "model.onnx")
    engine.close()


def test_without_an_address_the_start_is_refused() -> None:
    with pytest.raises(EngineUnavailable, match="UNDERSTUDY_TRITON_URL"):
        open_engine(Settings(engine="triton"))


@pytest.mark.parametrize(
    ("code", "text", "kind", "away"),
    [
        ("UNAVAILABLE", "[request id: 7] Exceeds maximum queue size", QueueFull, False),
        ("UNAVAILABLE", "Request timeout expired", DeadlineExceeded, None),
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", DeadlineExceeded, None),
        ("UNAVAILABLE", "Socket closed", EngineAway, True),
        ("NOT_FOUND", "Request for unknown model: 'm' is not found", EngineAway, True),
        ("UNAVAILABLE", "Request for unknown model: 'm' version 1 is not at ready state", EngineAway, True),
    ],
)
def test_tritons_words_become_our_refusals(code: str, text: str, kind: type[Exception], away: bool | None) -> None:
    error = translated(grpc.StatusCode[code], text, 60.0)
    if away is None:
        assert isinstance(error, kind)
    else:
        assert isinstance(error, Elsewhere)
        assert isinstance(error.refusal, kind)
        assert error.away is away


def test_any_other_failure_keeps_tritons_words_so_that_want_of_memory_can_be_told() -> None:
    error = translated(grpc.StatusCode.INTERNAL, "Failed to allocate memory for requested buffer", 60.0)
    assert isinstance(error, RuntimeError)
    assert "allocate memory" in str(error)
