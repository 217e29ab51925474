"""Images that come in parts: gone on with after a lost connection, bounded, nobody else's, gone when forgotten."""

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import in_process
from flow_model import NAME, parabola, publish_flow_model
from test_fields import PATH, blobs
from tiny import tiny_repository

from service.errors import UnknownUpload
from service.settings import Limits, Settings
from service.spool import Spool, SpoolUnusable
from service.tenants import Tenant
from service.uploads import Uploads

IMAGE = blobs((24, 16, 16))
BITS = np.packbits(IMAGE).tobytes()
QUERY = {"voxel_size_um": 2.0, "axes": "z", "shape": "24,16,16", "dtype": "bits"}
RAW = {"Content-Type": "application/octet-stream"}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root: Path = tiny_repository(tmp_path_factory.mktemp("fields"))
    publish_flow_model(root, tmp_path_factory.mktemp("staging"))
    limits = Limits(upload_bytes=5_000, uploads=3, body_grace_s=1.0)
    return Settings(model_repo=root, workers=2, limits=limits)


@pytest.fixture(scope="module")
def gateway(settings: Settings) -> Iterator[httpx.Client]:
    with in_process(settings) as client:
        yield client


def create(gateway: httpx.Client, size: int = len(BITS), status: int = 201) -> Any:
    answer = gateway.post("/v1/uploads", params={"bytes": size})
    assert answer.status_code == status, answer.text
    return answer.json()


def append(gateway: httpx.Client, name: str, offset: int, content: bytes) -> httpx.Response:
    return gateway.patch(f"/v1/uploads/{name}", params={"offset": offset}, content=content)


def test_parts_make_the_image_and_its_name_takes_the_place_of_a_body(gateway: httpx.Client) -> None:
    name = create(gateway)["upload"]
    assert append(gateway, name, 0, BITS[:300]).json()["received"] == 300
    early = gateway.post(PATH, params={**QUERY, "upload": name}, headers=RAW)
    assert (early.status_code, early.json()["received"]) == (409, 300)
    again = append(gateway, name, 0, BITS)
    assert (again.status_code, again.json()["received"]) == (409, 300)
    assert gateway.get(f"/v1/uploads/{name}").json()["received"] == 300
    assert append(gateway, name, 300, BITS[300:]).json()["received"] == len(BITS)
    for _ in range(2):  # as often as one likes
        said = gateway.post(PATH, params={**QUERY, "upload": name}, headers=RAW).raise_for_status().json()
        assert said["k_voxel2"]["z"] == pytest.approx(parabola(IMAGE, 2), rel=1e-5)
    assert gateway.delete(f"/v1/uploads/{name}").status_code == 204
    assert gateway.get(f"/v1/uploads/{name}").json()["code"] == "unknown_upload"
    assert gateway.post(PATH, params={**QUERY, "upload": name}, headers=RAW).status_code == 404


def test_more_than_may_be_is_refused_and_room_comes_back(gateway: httpx.Client) -> None:
    assert create(gateway, 5_001, 413)["unit"] == "bytes"
    assert create(gateway, 0, 413)["code"] == "request_too_large"
    first = create(gateway, 4_000)["upload"]
    assert create(gateway, 2_000, 429)["code"] == "queue_full"
    assert append(gateway, first, 0, b"0" * 4_001).status_code == 413
    gateway.delete(f"/v1/uploads/{first}")
    names = [create(gateway, 10)["upload"] for _ in range(3)]
    create(gateway, 10, 429)
    for name in names:
        gateway.delete(f"/v1/uploads/{name}")
    assert gateway.post("/v1/uploads").json()["field"] == "bytes"
    assert gateway.patch("/v1/uploads/nothing", params={"offset": 0}, content=b"0").status_code == 404


def test_what_came_before_a_connection_was_lost_is_kept(settings: Settings, serve: Callable[[Settings], int]) -> None:
    port = serve(settings)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as gateway:
        name = create(gateway)["upload"]
        head = f"PATCH /v1/uploads/{name}?offset=0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BITS)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", port)) as lost:
            lost.sendall(head.encode() + BITS[:200])
            time.sleep(0.3)
        for _ in range(100):
            if append(gateway, name, 200, BITS[200:]).status_code == 200:
                break
            time.sleep(0.05)
        assert gateway.get(f"/v1/uploads/{name}").json()["received"] == len(BITS)
        said = gateway.post(PATH, params={**QUERY, "upload": name}, headers=RAW).raise_for_status().json()
        assert said["k_voxel2"]["z"] == pytest.approx(parabola(IMAGE, 2), rel=1e-5)
        gateway.delete(f"/v1/uploads/{name}")


def test_an_upload_expires_and_is_nobody_elses() -> None:
    async def scene() -> None:
        spool = Spool(None, 1_000)
        uploads = Uploads(spool, Limits(upload_idle_s=0.05))
        ours, other = Tenant("ours"), Tenant("other")
        upload = uploads.create(ours, 100)
        assert (uploads.get(ours, upload.name), spool.used_bytes) == (upload, 100)
        with pytest.raises(UnknownUpload):
            uploads.get(other, upload.name)
        await asyncio.sleep(0.2)
        with pytest.raises(UnknownUpload):
            uploads.get(ours, upload.name)
        assert spool.used_bytes == 0

    asyncio.run(scene())


def test_a_spool_is_made_where_it_is_missing_and_one_that_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    Spool(tmp_path / "new" / "spool", 1_000)
    assert (tmp_path / "new" / "spool").is_dir()
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolUnusable, match=r"UNDERSTUDY_SPOOL=.*file cannot be used"):
        Spool(tmp_path / "file", 1_000)


def test_a_name_that_is_asked_of_a_model_of_flow_only(gateway: httpx.Client) -> None:
    answer = gateway.post(PATH.replace(NAME, "tiny"), params={**QUERY, "upload": "x"}, headers=RAW)
    assert answer.json()["code"] == "unknown_model"
