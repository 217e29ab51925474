"""Starting, serving and ending: the command, its settings, what is warm when it is ready, callers who leave."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from grpc_gateway import GatedEngine
from test_http import wait_for
from tiny import publish_tiny
from understudy.inprocess import InProcess
from wires import malonaldehyde, rest_json, results

from service.app import create_app
from service.cli import _listeners
from service.settings import Settings, available_cores, misspelt

M = malonaldehyde()


def test_settings_come_from_the_environment_and_print_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_PORT", "9000")
    monkeypatch.setenv("UNDERSTUDY_LIMITS__JSON_BYTES", "1000")
    monkeypatch.setenv("UNDERSTUDY_ALLOWED_HOSTS", '["Gateway.example", "10.0.0.1"]')
    monkeypatch.setenv("UNDERSTUDY_URL", "http://for.the.client")
    settings = Settings(workers=3)
    assert (settings.host, settings.port, settings.workers, settings.limits.json_bytes) == ("127.0.0.1", 9000, 3, 1000)
    assert settings.hosts() == {"gateway.example", "10.0.0.1"}
    assert {"UNDERSTUDY_PORT=9000", "UNDERSTUDY_WORKERS=3", "UNDERSTUDY_LIMITS__JSON_BYTES=1000"} <= set(
        settings.lines()
    )


def test_a_near_miss_of_a_setting_is_told_and_names_of_others_are_not() -> None:
    lines = misspelt(["UNDERSTUDY_SPOOOL", "UNDERSTUDY_LIMIT__JSON_BYTES", "understudy_prt", "UNDERSTUDY_PORT", "PATH"])
    assert [line.split(";")[1] for line in lines] == [
        " did you mean UNDERSTUDY_LIMITS__JSON_BYTES?",
        " did you mean UNDERSTUDY_SPOOL?",
        " did you mean UNDERSTUDY_PORT?",
    ]
    assert not misspelt(["UNDERSTUDY_URL", "UNDERSTUDY_KEY", "UNDERSTUDY_DATA", "UNDERSTUDY_LIMITS__JSON_BYTES"])


def test_a_gateway_on_loopback_knows_only_its_own_names_and_one_on_a_network_any() -> None:
    assert Settings().hosts() == {"127.0.0.1", "localhost", "::1"}
    assert Settings(host="0.0.0.0").hosts() == frozenset()
    assert Settings(allowed_hosts=["*"]).hosts() == frozenset()


def test_two_more_workers_than_cores_that_this_process_may_use() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    assert Settings().workers == available_cores() + 2


def test_no_more_calls_than_cores_run_at_full_speed_on_an_embedded_engine() -> None:
    assert Settings().parallelism() == available_cores()
    assert Settings(workers=1).parallelism() == 1
    assert Settings(engine="triton", triton_url="a:1,b:1", triton_calls=40).parallelism() == 80


def test_a_model_that_is_not_what_its_card_says_keeps_the_gateway_from_starting(tmp_path: Path) -> None:
    folder = publish_tiny(tmp_path / "repo")
    (folder / "1" / "model.onnx").write_bytes(b"tampered")
    with pytest.raises(RuntimeError, match=r"DigestMismatch|differs from the sha256"):
        InProcess(create_app(Settings(model_repo=tmp_path / "repo")))


def test_the_gateway_is_not_ready_before_its_models_are(repository: Path) -> None:
    app = create_app(Settings(model_repo=repository))
    assert not getattr(app.state, "ready", False)
    with httpx.Client(transport=InProcess(app), base_url="http://localhost") as client:
        assert client.get("/v2/health/ready").status_code == 200
    assert app.state.ready is False


AFTER_WARMING = """
import sys
sys.path.insert(0, {here!r})
import numpy as np
from contract import graphs
from service.app import create_app
from service.settings import Settings
from understudy.inprocess import InProcess
from wires import WIRES, call, malonaldehyde
import httpx
from pathlib import Path
compiled = [graphs._pairs_in_vacuum, graphs._fill, graphs._pad]
many = np.stack(np.unravel_index(np.arange(343), (7, 7, 7)), -1) * 1.6
items = [
    malonaldehyde(),
    {{"numbers": [6] * 343, "positions": many}},
    {{"numbers": [6] * 343, "positions": many, "cell": np.eye(3) * 11.2, "pbc": True}},
    {{"numbers": [6], "positions": [[0, 0, 0]], "cell": np.eye(3) * 2.5, "pbc": True}},
    {{"numbers": [6, 1], "positions": [[0, 0, 0], [0, 0, 1]], "cell": np.eye(3) * 9, "pbc": [True, False, False]}},
]
app = create_app(Settings(model_repo=Path({repo!r})))
with httpx.Client(transport=InProcess(app), base_url="http://localhost") as gateway:
    before = [len(f.signatures) for f in compiled]
    for wire in WIRES:
        for chosen in ([item] for item in items):
            assert call(wire, chosen)(gateway, "anything").status_code == 200
        assert call(wire, items)(gateway, "anything").status_code == 200
    print(before, [len(f.signatures) for f in compiled])
"""


def test_nothing_is_compiled_after_the_gateway_is_ready(repository: Path) -> None:
    script = AFTER_WARMING.format(here=str(Path(__file__).parent), repo=str(repository))
    shown = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    before, after = shown.stdout.split("] ")
    assert before + "]" == after.strip()


@contextmanager
def command(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`understudy serve` as a child process."""
    program = [sys.executable, "-m", "understudy", "serve", *arguments]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_the_command_tells_what_it_serves_and_ends_when_it_is_told_to(repository: Path) -> None:
    port = free_port()
    with command("--port", str(port), "--model-repo", str(repository), "--workers", "1") as process:
        assert process.stderr is not None
        told = []
        while not told or "Serving" not in told[-1]:
            told.append(process.stderr.readline())
            assert told[-1], told
        assert [line.split()[0] for line in told[:3]] == ["Loading,", "anything", "tiny"]
        assert "onnxruntime" in told[3]
        assert "on cpu" in told[3]
        assert f"http://127.0.0.1:{port}" in told[-1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            wait_for_listening(client)
            assert results(rest_json([M])(client))[0]["in_domain"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert "Traceback" not in process.stderr.read()


def wait_for_listening(client: httpx.Client) -> None:
    for _ in range(200):
        try:
            assert client.get("/v2/health/ready").status_code == 200
            return
        except httpx.ConnectError:
            time.sleep(0.05)
    raise AssertionError("nobody listens")


def corrupt(root: Path) -> Path:
    (publish_tiny(root) / "1" / "model.onnx").write_bytes(b"tampered")
    return root


def empty(root: Path) -> Path:
    root.mkdir()
    return root


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (corrupt, "differs from the sha256"),
        (empty, "there is no model in"),
        (lambda root: root, "there is no model in"),
    ],
    ids=["corrupt", "empty", "missing"],
)
def test_the_command_says_in_one_line_why_it_cannot_serve(
    tmp_path: Path, prepare: Callable[[Path], Path], said: str
) -> None:
    with command("--port", str(free_port()), "--model-repo", str(prepare(tmp_path / "repo"))) as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said in told
    assert "Traceback" not in told


def test_the_command_says_so_when_its_port_is_taken(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with command("--port", str(port), "--model-repo", str(repository)) as process:
            _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert str(port) in told
    assert "Traceback" not in told


def test_a_name_of_two_addresses_is_listened_to_on_both_at_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    nowhere = (socket.AF_INET6, *stream[1:], ("2001:db8::1", 0, 0, 0))
    found = [nowhere, (*stream, ("127.0.0.2", 0)), (*stream, ("127.0.0.1", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    listeners = _listeners(Settings(host="localhost", port=0))
    try:
        (first, port), (second, same) = (listener.getsockname() for listener in listeners)
        assert {first, second} == {"127.0.0.1", "127.0.0.2"}
        assert port == same != 0
    finally:
        for listener in listeners:
            listener.close()


def test_the_command_shows_its_settings_and_refuses_wrong_ones() -> None:
    with command("--show-settings", UNDERSTUDY_PORT="9001") as process:
        shown, _ = process.communicate(timeout=60)
    assert "UNDERSTUDY_PORT=9001" in shown
    with command("--port", "1", "--model-repo", "/nowhere", UNDERSTUDY_SPOOOL="/tmp") as process:
        _, told = process.communicate(timeout=60)
    assert "did you mean UNDERSTUDY_SPOOL?" in told
    with command("--show-settings", UNDERSTUDY_PORT="many") as process:
        _, told = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "PORT" in told


def post(port: int, call: Any) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 60)
    headers = {**call.headers, "Host": "localhost", "Content-Length": str(len(call.body))}
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    connection.sendall(f"POST {call.path.format(model='anything')} HTTP/1.1\r\n{lines}\r\n".encode() + call.body)
    return connection


def test_callers_who_hang_up_leave_the_queue_and_those_who_stay_are_answered(
    serve: Callable[[Settings], int], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = GatedEngine()
    monkeypatch.setattr("service.app.open_engine", lambda settings: engine)
    port = serve(Settings(model_repo=repository, workers=1))
    engine.close()
    running = post(port, rest_json([M]))
    assert engine.begun.acquire(timeout=30.0)
    leaving = [post(port, rest_json([M])) for _ in range(12)]
    staying = post(port, rest_json([M]))
    lane = '{graph="model.onnx",model="anything"}'
    wait_for(port, f"understudy_waiting{lane}", 13)
    for connection in leaving:
        connection.close()
    wait_for(port, f"understudy_cancelled_total{lane}", 12)
    running.close()
    assert wait_for(port, f"understudy_stopped_total{lane}") == 1
    engine.gate.set()
    with staying:
        answer = b""
        while b"}]}" not in answer:
            received = staying.recv(65_536)
            assert received, answer
            answer += received
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["results"][0]["domain"]["in_domain"]
    assert wait_for(port, 'understudy_answers_total{method="POST",route="/v1/predict/{model}",status="499"}') == 13
    assert wait_for(port, f"understudy_samples_total{lane}") == 2
