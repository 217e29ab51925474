"""Bodies, heads and messages that break the framing (numbers 1 to 10): refused in bounds, with nobody else harmed."""

import gzip
import http.client
import json
import socket
import time
import zlib
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
from cases import M
from running import LIMITS, MODEL, PROTOCOLS, Server, inputs_of, message_of, problem_of, refuse_leaks
from tritonclient.grpc import service_pb2 as pb
from wires import Call, rest_json

BODY = rest_json([M]).body
PATH = f"/v1/predict/{MODEL}"
JSON_LIMIT = LIMITS["JSON_BYTES"]


def ask(server: Server, body: Any = BODY, headers: dict[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """One request on a connection of its own; a body that is an iterator goes in chunks."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        connection.request(
            "POST", PATH, body, {"Content-Type": "application/json", **(headers or {})}, encode_chunked=True
        )
        response = connection.getresponse()
        text = response.read()
        if response.status != 200:
            refuse_leaks(text.decode())
        return response.status, json.loads(text)
    finally:
        connection.close()


def sent(server: Server, *pieces: bytes, pause_s: float = 0.0) -> tuple[int, dict[str, Any]]:
    """Bytes as they are, and what came back before the connection was closed."""
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause_s)
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        status, problem = answer.status, json.loads(answer.read())
        assert connection.recv(1) == b""
    return status, problem


def chunked(chunks: Iterator[bytes]) -> dict[str, Any]:
    return {"body": chunks, "headers": {"Transfer-Encoding": "chunked"}}


@pytest.fixture(autouse=True)
def _everybody_else_is_answered_right(server: Server) -> Iterator[None]:
    expected = server.ask("REST JSON", [M]).results[0]["energy"]
    yield
    for protocol in PROTOCOLS:
        assert server.ask(protocol, [M]).results[0]["energy"] == pytest.approx(expected, abs=1e-4)


def test_1_a_body_of_exactly_the_limit_is_read_and_one_byte_more_is_not(server: Server) -> None:
    assert ask(server, BODY.ljust(JSON_LIMIT))[0] == 200
    status, problem = ask(server, BODY.ljust(JSON_LIMIT + 1))
    assert (status, problem["code"]) == (413, "body_too_large")
    assert (problem["limit"], problem["got"], problem["unit"]) == (JSON_LIMIT, JSON_LIMIT + 1, "bytes")


def test_1_a_large_body_is_refused_without_resetting_the_connection_of_its_sender(server: Server) -> None:
    status, problem = ask(server, b" " * 3 * JSON_LIMIT)
    assert (status, problem["code"], problem["got"]) == (413, "body_too_large", 3 * JSON_LIMIT)


def test_2_a_body_without_a_length_is_counted_while_it_is_read(server: Server) -> None:
    assert ask(server, **chunked(iter([BODY[:100], BODY[100:]])))[0] == 200
    status, problem = ask(server, **chunked(iter([b" " * (JSON_LIMIT // 4)] * 5)))
    assert (status, problem["code"], problem["limit"]) == (413, "body_too_large", JSON_LIMIT)


def test_3_a_body_in_too_many_pieces_is_refused_and_takes_no_memory(server: Server) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    before = server.resident_mib
    status, problem = sent(server, head, *[b"1\r\n \r\n"] * 300, pause_s=0.001)
    # Pieces that arrive together are handed over as one; if that leaves too few, the missing end is too slow.
    assert (status, problem["code"]) in [(400, "too_many_chunks"), (408, "body_too_slow")]
    status, problem = sent(server, head + b"1\r\n \r\n" * 100_000)
    assert status in (400, 408)
    assert server.resident_mib - before < 16


def test_4_a_slow_head_ends_its_own_connection(server: Server) -> None:
    status, problem = sent(server, f"POST {PATH} HTTP/1.1\r\nHost: loc".encode())
    assert (status, problem["code"], problem["limit"]) == (408, "head_too_slow", LIMITS["HEAD_S"])


def test_4_a_connection_that_says_nothing_is_closed(server: Server) -> None:
    assert sent(server)[0] == 408


def test_4_a_head_without_end_is_refused(server: Server) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 60) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\n".encode())
        received = b""
        try:
            for n in range(100_000):
                connection.sendall(f"X-{n}: {'y' * 1_000}\r\n".encode())
        except OSError:
            return  # closed, with so much unread that the refusal was lost on the way
        received = connection.recv(65_536)
    assert received.startswith(b"HTTP/1.1 431")


def test_4_a_slow_body_ends_its_own_connection(server: Server) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 500\r\n\r\n{{".encode()
    status, problem = sent(server, head)
    assert (status, problem["code"]) == (408, "body_too_slow")


CODINGS = {
    "a gzip bomb": (gzip.compress(b" " * 2**26), "gzip", 413, "body_too_large"),
    "a zlib bomb": (zlib.compress(b" " * 2**26), "deflate", 413, "body_too_large"),
    "nested": (gzip.compress(gzip.compress(BODY)), "gzip, gzip", 415, "unsupported_encoding"),
    "zstd": (BODY, "zstd", 415, "unsupported_encoding"),
    "brotli": (BODY, "br", 415, "unsupported_encoding"),
    "cut off": (gzip.compress(BODY)[:-9], "gzip", 400, "broken_compression"),
    "two members": (gzip.compress(BODY) + gzip.compress(b" "), "gzip", 400, "broken_compression"),
    "trailing bytes": (zlib.compress(BODY) + b"x", "deflate", 400, "broken_compression"),
    "no gzip": (BODY, "gzip", 400, "broken_compression"),
    "another coding": (zlib.compress(BODY), "gzip", 400, "broken_compression"),
    "nothing": (b"", "gzip", 400, "broken_compression"),
}


@pytest.mark.parametrize("name", CODINGS)
def test_5_bombs_and_broken_codings_are_refused(server: Server, name: str) -> None:
    body, coding, status, code = CODINGS[name]
    before = server.resident_mib
    got, problem = ask(server, body, {"Content-Encoding": coding})
    assert (got, problem["code"]) == (status, code)
    assert server.resident_mib - before < 24


@pytest.mark.parametrize("length", [b"-1", b"1e3", b"10\r\nContent-Length: 11"], ids=["negative", "no number", "two"])
def test_6_a_wrong_content_length_closes_the_connection(server: Server, length: bytes) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Length: ".encode()
    status, problem = sent(server, head + length + b"\r\n\r\n" + b"{}" * 5)
    assert (status, problem["code"]) == (400, "malformed_http")


@pytest.mark.parametrize("host", ["x/docs?", "a b", "evil.example", "127.0.0.1@evil", "[::1", ""])
def test_7_a_forged_host_is_refused(server: Server, host: str) -> None:
    status, problem = ask(server, BODY, {"Host": host})
    assert (status, problem["code"]) == (400, "invalid_host")


@pytest.mark.parametrize("path", ["/@evil", "//v1/models", "/v1/%2e%2e/docs", "/v1/..%2fdocs", "/v2/repository/load"])
def test_7_paths_that_are_no_routes_are_not_found(server: Server, path: str) -> None:
    response = server.http.get(f"http://127.0.0.1:{server.port}{path}")
    assert (response.status_code, problem_of(response)["code"]) == (404, "not_found")


def test_8_ten_thousand_ranges_are_refused_or_ignored(server: Server) -> None:
    ranges = "bytes=" + ",".join(f"{n}-{n}" for n in range(0, 12_000, 2))
    begin = time.monotonic()
    response = server.http.get("/docs-assets/swagger-ui.css", headers={"Range": ranges})
    assert time.monotonic() - begin < 5.0
    assert response.status_code in (200, 206, 400, 416, 431)
    assert len(response.content) < 4_000_000


DEEP = b'{"structures": [{"numbers": [1], "positions": ' + b"[" * 900 + b"]" * 900 + b"}]}"
JSON_BODIES = {
    "nothing": (b"", 400, "malformed_json"),
    "half an object": (b'{"structures": [', 400, "malformed_json"),
    "a list": (b"[]", 400, "malformed_json"),
    "10,000 levels deep": (b'{"structures": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", 400, "malformed_json"),
    "900 levels deep": (DEEP, 400, "bad_shape"),
    "NaN": (b'{"structures": [{"numbers": [1], "positions": [[NaN, 0, 0]]}]}', 400, "malformed_json"),
    "Infinity": (b'{"structures": [{"numbers": [1], "positions": [[-Infinity, 0, 0]]}]}', 400, "malformed_json"),
    "1e400": (b'{"structures": [{"numbers": [1], "positions": [[1e400, 0, 0]]}]}', 400, "malformed_json"),
    "a lone surrogate": (b'{"structures": "\\ud800"}', 400, "malformed_json"),
    "not UTF-8": (b'{"structures": "\xff"}', 400, "malformed_json"),
    "an integer of 100 digits": (
        b'{"structures": [{"numbers": [1' + b"0" * 100 + b'], "positions": [[0, 0, 0]]}]}',
        400,
        "bad_type",
    ),
    "a string of 100 MB": (b'{"structures": "' + b"x" * 100_000_000 + b'"}', 413, "body_too_large"),
}


@pytest.mark.parametrize("name", JSON_BODIES)
def test_9_json_that_cannot_be_read_is_refused(server: Server, name: str) -> None:
    body, status, code = JSON_BODIES[name]
    before = server.resident_mib
    answered = server.post(Call("/v1/predict/{model}", body))
    assert (answered.status, answered.code) == (status, code)
    assert server.resident_mib - before < 24


def test_9_of_a_key_given_twice_the_last_value_counts(server: Server) -> None:
    body = b'{"structures": 1, "structures": [' + json.dumps(M).encode() + b"]}"
    assert server.post(Call("/v1/predict/{model}", body)).status == 200


def test_10_a_message_over_the_limit_is_refused(server: Server) -> None:
    atoms = LIMITS["BINARY_BYTES"] // 24
    line = {"numbers": [6] * atoms, "positions": np.zeros((atoms, 3))}
    with pytest.raises(grpc.RpcError) as refusal:
        server.stub.ModelInfer(message_of(inputs_of([line]), typed=False))
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_10_a_flood_of_metadata_is_refused(server: Server) -> None:
    flood = [(f"x-{n}", "y" * 1_000) for n in range(100)]
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as refusal:
        channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", metadata=flood)
    assert refusal.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_10_a_stream_that_is_never_half_closed_is_ended(server: Server) -> None:
    held: Any = iter(lambda: time.sleep(3) or pb.ModelInferRequest(), None)
    with pytest.raises(grpc.RpcError) as ended:
        list(server.stub.ModelStreamInfer(held))
    assert ended.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


def test_10_a_call_that_is_reset_before_its_answer_frees_its_place(server: Server) -> None:
    grid = np.stack(np.unravel_index(np.arange(8000), (20, 20, 20)), -1) * 1.5
    large = message_of(inputs_of([{"numbers": [6] * 8000, "positions": grid}]), typed=False)
    calls = [server.stub.ModelInfer.future(large) for _ in range(8)]
    time.sleep(0.1)
    for call in calls:
        call.cancel()
    waiting = [line for line in _metrics(server) if line.startswith("understudy_waiting{")]
    deadline = time.monotonic() + 30.0
    while any(float(line.rpartition(" ")[2]) for line in waiting) and time.monotonic() < deadline:
        time.sleep(0.05)
        waiting = [line for line in _metrics(server) if line.startswith("understudy_waiting{")]
    assert waiting
    assert not any(float(line.rpartition(" ")[2]) for line in waiting)


def _metrics(server: Server) -> list[str]:
    return server.http.get("/metrics").text.splitlines()
