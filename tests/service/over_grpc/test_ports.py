"""The ports of `understudy serve`: taken, switched off, told, and closed in order."""

import asyncio
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_gateway import gated, triton_inputs
from messages import ENERGY, M

from service.access import Access
from service.api.grpc_server import PortTaken, start
from service.doors import grpc_door
from service.models import Models
from service.plane import Plane
from service.settings import Limits, Settings


def test_a_port_that_is_taken_is_told_at_once(repository: Path) -> None:
    async def scene() -> None:
        async with gated(repository) as here:
            plane = Plane(Models([]), Limits(), ThreadPoolExecutor(1))
            with pytest.raises(PortTaken, match="taken"):
                await start(plane, here.counts, here.address, Access(None))

    asyncio.run(scene())


def test_without_a_grpc_port_only_http_is_served(repository: Path) -> None:
    async def said(settings: Settings) -> str:
        async with grpc_door(
            Plane(Models([]), Limits(), ThreadPoolExecutor(1)), settings, Counter(), Access(None)
        ) as line:
            return line

    assert asyncio.run(said(Settings(grpc_port=None))) == "gRPC is switched off"


def test_the_environment_switches_the_port_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().grpc_port == 8001
    monkeypatch.setenv("UNDERSTUDY_GRPC_PORT", "none")
    assert Settings().grpc_port is None


@contextmanager
def served(repository: Path, *options: str, before: str = "pass") -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own, after some other statement."""
    script = f"import sys; {before}; from understudy.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "serve", "--model-repo", str(repository), "--workers", "1", *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_until_ready(process: subprocess.Popen[str]) -> list[str]:
    lines = []
    assert process.stderr is not None
    for line in process.stderr:
        lines.append(line)
        if line.startswith("Serving at"):
            return lines
    raise AssertionError("".join(lines))


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def test_the_command_tells_both_ports_and_ends_in_order_when_it_is_told_to(repository: Path) -> None:
    http, port = free_port(), free_port()
    with served(repository, "--port", str(http), "--grpc-port", str(port)) as process:
        lines = lines_until_ready(process)
        assert f"gRPC at 127.0.0.1:{port}\n" in lines
        assert lines[-1].startswith(f"Serving at http://127.0.0.1:{http} ")
        with triton.InferenceServerClient(f"127.0.0.1:{port}") as client:
            answer = client.infer("tiny", triton_inputs([M]))
            np.testing.assert_allclose(answer.as_numpy("energy"), [ENERGY], atol=1e-4)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def test_without_its_libraries_http_is_served_all_the_same_and_the_command_says_how_to_get_grpc(
    repository: Path,
) -> None:
    http = free_port()
    with served(repository, "--port", str(http), before="sys.modules['tritonclient'] = None") as process:
        (line,) = [line for line in lines_until_ready(process) if "gRPC" in line]
        assert "pip install 'tritonclient[grpc]" in line
        assert httpx.get(f"http://127.0.0.1:{http}/v2/health/ready").status_code == 200
        process.terminate()
        assert process.wait(60) == 0


def test_a_port_chosen_on_purpose_that_is_taken_ends_the_start_with_the_reason(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with served(repository, "--port", str(free_port()), "--grpc-port", port) as process:
            _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"gRPC cannot listen on 127.0.0.1:{port}" in said


def test_an_http_port_that_is_taken_ends_the_start_before_anything_is_loaded(repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with served(repository, "--port", str(port), "--no-grpc") as process:
            _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith(f"Cannot serve: HTTP cannot listen on 127.0.0.1:{port}: Address already in use")
