"""Keys: who is let in over which route and wire, whose key is whose, and what is never told."""

import asyncio
import json
import logging
import os
import socket
import stat
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import tritonclient.grpc as triton
from conftest import in_process
from grpc_gateway import Running, message, run, stub
from tritonclient.grpc import service_pb2 as pb
from typer.testing import CliRunner
from understudy import Client, NotAllowed
from understudy.inprocess import InProcess
from wires import kserve_binary, malonaldehyde, rest_json

from service.access import Access, Unprotected, need_of, need_of_rpc
from service.api.routes import add_routes
from service.app import create_app
from service.errors import Forbidden, NoKey
from service.keys import LOOK_AGAIN_S, Key, KeyRing, KeysFileError, add_key, hash_of, new_token, read_keys
from service.keys_command import key as key_command
from service.settings import Settings
from service.tenants import Tenant

M = malonaldehyde()
HEALTH = ("/v2/health/live", "/v2/health/ready")


@pytest.fixture(scope="module")
def tokens() -> dict[str, str]:
    return {name: new_token() for name in ("user", "operator", "expired", "unknown")}


@pytest.fixture(scope="module")
def keys_file(tmp_path_factory: pytest.TempPathFactory, tokens: dict[str, str]) -> Path:
    path = tmp_path_factory.mktemp("keys") / "keys.toml"
    add_key(path, Key(tenant="lab", sha256=hash_of(tokens["user"])))
    add_key(path, Key(tenant="ops", sha256=hash_of(tokens["operator"]), role="operator"))
    add_key(path, Key(tenant="old", sha256=hash_of(tokens["expired"]), expires=date(2020, 1, 1)))
    return path


@pytest.fixture(scope="module")
def locked(repository: Path, keys_file: Path) -> Iterator[httpx.Client]:
    """A gateway that asks for keys."""
    with in_process(Settings(model_repo=repository, workers=1, keys_file=keys_file, canary_fraction=0)) as client:
        yield client


@pytest.fixture(scope="module")
def both_ports(repository: Path, keys_file: Path) -> Iterator[Running]:
    """The same behind real sockets, with gRPC."""
    running = run(Settings(model_repo=repository, workers=1, keys_file=keys_file))
    yield running
    running.stop()


def every_route(gateway: httpx.Client, key: str) -> list[tuple[str, str]]:
    """Methods and paths of the whole application, asked for by its own document, and what is in no document."""
    document = gateway.get("/openapi.json", headers={"x-api-key": key}).json()
    listed = [(method.upper(), path) for path, methods in document["paths"].items() for method in methods]
    more = ["/", "/docs", "/openapi.json", "/docs-assets/favicon.png", "/nothing", "/v1/jobs/7", "//metrics", "/v2/"]
    return listed + [("GET", path) for path in more] + [("DELETE", "/v1/models/tiny"), ("PUT", "/v2/health/live")]


# ---------------------------------------------------------------- HTTP


@pytest.mark.parametrize("kind", ["none", "unknown", "expired", "empty", "not a bearer", "the hash itself"])
def test_without_a_good_key_every_route_but_health_is_closed(
    locked: httpx.Client, tokens: dict[str, str], kind: str
) -> None:
    headers = {
        "none": {},
        "unknown": {"authorization": f"Bearer {tokens['unknown']}"},
        "expired": {"x-api-key": tokens["expired"]},
        "empty": {"authorization": "Bearer "},
        "not a bearer": {"authorization": f"Basic {tokens['user']}"},
        "the hash itself": {"x-api-key": hash_of(tokens["user"])},
    }[kind]
    closed = [(m, p) for m, p in every_route(locked, tokens["operator"]) if m != "GET" or p not in HEALTH]
    assert len(closed) > 18
    for method, path in closed:
        answer = locked.request(
            method, path.format(model="tiny", version="1", command="load", upload="x"), headers=headers
        )
        assert (answer.status_code, answer.json()["code"]) == (401, "no_key"), (method, path)
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert "x-request-id" in answer.headers


@pytest.mark.parametrize("path", HEALTH)
def test_health_is_open_and_says_no_more_than_yes(locked: httpx.Client, path: str) -> None:
    assert locked.get(path).status_code == 200
    assert locked.get(path).content == b""
    assert locked.get(path, headers={"x-api-key": "wrong"}).status_code == 200


@pytest.mark.parametrize("header", ["Authorization", "X-API-Key"])
def test_a_good_key_opens_what_its_role_may(locked: httpx.Client, tokens: dict[str, str], header: str) -> None:
    for role, statuses in (("user", (200, 403)), ("operator", (200, 200))):
        said = {header: tokens[role] if header == "X-API-Key" else f"bearer {tokens[role]}"}
        assert rest_json([M])(locked, **said).status_code == 200
        assert kserve_binary([M])(locked, **said).status_code == 200
        found = tuple(locked.get(path, headers=said).status_code for path in ("/v1/models", "/metrics"))
        assert found == statuses
    refused = locked.get("/metrics", headers={"x-api-key": tokens["user"]}).json()
    assert refused["code"] == "forbidden"


SPELLINGS = [
    "/v2/health/live/../../../metrics", "/v2/health/live%2f..%2fmetrics", "/metrics?/v2/health/live", "/%6detrics",
    "/metrics#/v2/health/live", "/V2/HEALTH/LIVE", "/v2/health/live/",
]  # fmt: skip


@pytest.mark.parametrize("path", SPELLINGS)
def test_no_spelling_of_a_path_gets_past_the_key(both_ports: Running, path: str) -> None:
    with socket.create_connection(("127.0.0.1", both_ports.ports.http), 30) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))
    assert int(answer.split()[1]) in (400, 401), answer[:200]


def test_every_route_says_what_it_takes() -> None:
    from fastapi import FastAPI

    app = FastAPI(docs_url=None, redoc_url=None)
    add_routes(app)
    paths = {(m, r.path): need_of(m, r.path) for r in app.routes for m in getattr(r, "methods", None) or ()}
    assert {p for (m, p), need in paths.items() if need == "nothing"} == set(HEALTH)
    assert {need for (m, p), need in paths.items() if m == "POST" and not p.startswith("/v1/admin")} == {"use"}
    assert need_of("DELETE", "/v1/models/tiny") == need_of("POST", "/v1/admin/models/tiny/load") == "operate"
    assert need_of("POST", "/v2/health/live") == need_of("GET", "/v1/admin/models") == "operate"


# ---------------------------------------------------------------- gRPC


def test_every_grpc_method_but_health_takes_a_key(both_ports: Running, tokens: dict[str, str]) -> None:
    with grpc.insecure_channel(both_ports.ports.address) as channel:
        calls = stub(channel)
        for method in pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods:
            request = getattr(pb, method.input_type.name)()
            for metadata in ((), (("authorization", f"Bearer {tokens['expired']}"),), (("x-api-key", "x"),)):
                call = getattr(calls, method.name)
                asked: Any = iter([request]) if method.client_streaming else request
                if need_of_rpc(method.name) == "nothing":
                    call(asked, metadata=metadata, timeout=30.0)
                    continue
                with pytest.raises(grpc.RpcError) as refusal:
                    list(call(asked, metadata=metadata, timeout=30.0))
                assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED, method.name
                told = dict(refusal.value.trailing_metadata())
                assert json.loads(told["problem-bin"])["code"] == "no_key"
        with pytest.raises(grpc.RpcError) as refusal:
            channel.unary_unary("/nobody.Knows/This")(b"", timeout=30.0)
        assert refusal.value.code() == grpc.StatusCode.UNAUTHENTICATED


def test_a_stream_without_a_key_ends_although_nothing_is_sent(both_ports: Running) -> None:
    async def scene() -> grpc.StatusCode:
        async with grpc.aio.insecure_channel(both_ports.ports.address) as channel:
            return await stub(channel).ModelStreamInfer(timeout=30.0).code()

    assert asyncio.run(scene()) == grpc.StatusCode.UNAUTHENTICATED


def test_grpc_takes_the_same_keys(both_ports: Running, tokens: dict[str, str]) -> None:
    with triton.InferenceServerClient(both_ports.ports.address) as client:
        for headers in ({"authorization": f"Bearer {tokens['user']}"}, {"x-api-key": tokens["user"]}):
            assert client.get_model_metadata("tiny", headers=headers).name == "tiny"
        with pytest.raises(triton.InferenceServerException) as refusal:
            client.load_model("tiny", headers={"x-api-key": tokens["user"]})
        assert "PERMISSION_DENIED" in str(refusal.value.status())


def test_the_tenant_of_a_call_is_that_of_its_key(
    both_ports: Running, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.api import kserve_grpc, rest

    seen: list[Tenant] = []
    for module, name in ((kserve_grpc, "tenant_of_call"), (rest, "tenant_of")):
        real = getattr(module, name)

        def spy(given: Any, real: Any = real) -> Tenant:
            seen.append(real(given))
            return seen[-1]

        monkeypatch.setattr(module, name, spy)
    with grpc.insecure_channel(both_ports.ports.address) as channel:
        for role in ("user", "operator"):
            stub(channel).ModelInfer(message([M]), metadata=[("x-api-key", tokens[role])], timeout=30.0)
    with httpx.Client(base_url=f"http://127.0.0.1:{both_ports.ports.http}") as client:
        assert rest_json([M])(client, **{"x-api-key": tokens["user"]}).status_code == 200
    assert [tenant.name for tenant in seen] == ["lab", "ops", "lab"]


# ---------------------------------------------------------------- nothing is told


def test_a_key_is_in_no_log_no_error_and_no_metric(
    locked: httpx.Client, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG)
    planted = [tokens["user"], tokens["unknown"], hash_of(tokens["user"])]

    async def breaks(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("an accident")

    told = []
    for token in planted[:2]:
        told.append(locked.get("/v1/models", headers={"x-api-key": token}).text)
        told.append(rest_json([M], timeout_s="never")(locked, Authorization=f"Bearer {token}").text)
    monkeypatch.setattr("service.plane.Plane.predict", breaks)
    answer = rest_json([M])(locked, Authorization=f"Bearer {tokens['user']}", **{"x-api-key": tokens["user"]})
    assert answer.status_code == 500
    told += [answer.text, locked.get("/metrics", headers={"x-api-key": tokens["operator"]}).text]
    output = capfd.readouterr()
    logged = output.out + output.err + caplog.text
    assert "accident" in logged
    for secret in planted:
        assert secret not in logged
        assert not any(secret in text for text in told)


def test_keys_are_compared_in_a_time_that_tells_nothing(keys_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[str] = []

    def compare(one: str, other: str) -> bool:
        compared.append(one)
        return one == other

    monkeypatch.setattr("service.keys.hmac.compare_digest", compare)
    ring = KeyRing(keys_file)
    for token in ("", "x" * 10_000, "us_wrong"):
        compared.clear()
        assert ring.find(token) is None
        assert len(compared) == 3


# ---------------------------------------------------------------- the file


def test_a_new_key_is_shown_once_and_kept_as_a_hash(tmp_path: Path) -> None:
    for name in ("keys.toml", "keys.json"):
        path = tmp_path / name
        tokens = []
        for arguments in ("lab --weight 2 --budget 1e6", "ops --operator --expires 2099-12-31"):
            made = CliRunner().invoke(key_command, ["new", *arguments.split(), "--file", str(path)])
            assert made.exit_code == 0, made.output
            tokens.append(made.stdout.strip())
        lab, ops = read_keys(path)
        assert [hash_of(token) for token in tokens] == [lab.sha256, ops.sha256]
        assert not any(token in path.read_text() for token in tokens)
        assert (lab.tenant, lab.role, lab.weight, lab.budget_slots_per_s) == ("lab", "user", 2.0, 1e6)
        assert (ops.role, ops.expires) == ("operator", date(2099, 12, 31))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        listed = CliRunner().invoke(key_command, ["list", "--file", str(path)])
        assert "lab" in listed.output
        assert lab.sha256 not in listed.output


def test_tokens_are_long_and_never_the_same() -> None:
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert min(map(len, tokens)) >= 46


@pytest.mark.parametrize(
    ("text", "said"),
    [("keys = 3", "keys"), ("[[keys]]\ntenant = 'a b'\nsha256 = '0'", "tenant"), ("[[keys", "not toml"),
     (f"[[keys]]\ntenant = 'a'\nsha256 = '{'0' * 64}'\nweight = -1", "weight"),
     (f"[[keys]]\ntenant = 'a'\nsha256 = '{'0' * 64}'\nrole = 'root'", "role"),
     (f"[[keys]]\ntenant = 'a'\nsha256 = '{'0' * 64}'\ntoken = 'secret'", "token")],
)  # fmt: skip
def test_a_wrong_keys_file_is_refused_by_field_and_never_quoted(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(KeysFileError, match=said) as refusal:
        read_keys(path)
    assert "secret" not in str(refusal.value)
    with pytest.raises(KeysFileError):
        create_app(Settings(keys_file=path))


def test_a_key_that_is_taken_out_of_the_file_is_soon_refused(tmp_path: Path) -> None:
    path, now = tmp_path / "keys.json", [0.0]
    first, second = new_token(), new_token()
    add_key(path, Key(tenant="a", sha256=hash_of(first), budget_slots_per_s=1.0, burst_slots=5.0))
    ring = KeyRing(path, clock=lambda: now[0])
    found = ring.find(first)
    assert found is not None
    add_key(path, Key(tenant="b", sha256=hash_of(second)))
    now[0] += LOOK_AGAIN_S
    assert ring.find(second) is not None
    again = ring.find(first)
    assert again is not None
    assert again[1].budget is found[1].budget  # no fresh budget for touching the file
    path.write_text("{")
    os.utime(path, ns=(1, 1))
    now[0] += LOOK_AGAIN_S
    assert ring.find(first) is not None  # what cannot be read changes nothing
    path.write_text('{"keys": []}')
    now[0] += LOOK_AGAIN_S
    assert ring.find(first) is None


def test_a_key_is_good_until_the_end_of_its_last_day(tmp_path: Path) -> None:
    token, today = new_token(), [date(2026, 5, 1)]
    add_key(tmp_path / "keys.toml", Key(tenant="a", sha256=hash_of(token), expires=date(2026, 5, 1)))
    ring = KeyRing(tmp_path / "keys.toml", today=lambda: today[0])
    assert ring.find(token) is not None
    today[0] = date(2026, 5, 2)
    assert ring.find(token) is None


# ---------------------------------------------------------------- without keys


def test_a_gateway_that_others_can_reach_starts_only_with_keys_or_on_the_operator_s_word(keys_file: Path) -> None:
    for host in ("127.0.0.1", "localhost", "::1"):
        Access.of(Settings(host=host)).admit("operate", "", "")
    for host in ("0.0.0.0", "::", "10.0.0.7", "gateway.example"):
        with pytest.raises(Unprotected, match="--open"):
            Access.of(Settings(host=host))
        opened = Access.of(Settings(host=host, open=True))
        assert opened.admit("use", "", "") is None
        with pytest.raises(Forbidden):
            opened.admit("operate", "", "")
        with pytest.raises(NoKey):
            Access.of(Settings(host=host, keys_file=keys_file)).admit("use", "", "")


# ---------------------------------------------------------------- the client


def test_the_client_sends_its_key_or_that_of_the_environment(
    repository: Path, keys_file: Path, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(model_repo=repository, workers=1, keys_file=keys_file, canary_fraction=0)
    with Client(transport=InProcess(create_app(settings)), key=tokens["user"]) as client:
        assert client.predict("tiny", M, priority="bulk").energy < 0
        assert tokens["user"] not in repr(client)
        stranger = Client(transport=client._settings["transport"])
        with pytest.raises(NotAllowed, match="X-API-Key"):
            stranger.models()
        monkeypatch.setenv("UNDERSTUDY_KEY", tokens["user"])
        known = Client(transport=client._settings["transport"])
        assert [model.name for model in known.models()] == ["anything", "tiny"]
