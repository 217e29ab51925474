"""Images that are run in tiles: the same answers as whole, others in between, progress, room, and who leaves."""

import io
import json
import time
import xml.etree.ElementTree as Xml
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import in_process
from flow_model import NAME
from test_fields import NPY, PATH, blobs, npy

from service.settings import Limits, Settings

TILED = Limits(whole_voxels=1000, tile_length=16)


@pytest.fixture(scope="module")
def whole(rocks_repo: Path) -> Iterator[httpx.Client]:
    with in_process(Settings(model_repo=rocks_repo, workers=2)) as client:
        yield client


@pytest.fixture(scope="module")
def tiled(rocks_repo: Path) -> Iterator[httpx.Client]:
    with in_process(Settings(model_repo=rocks_repo, workers=2, limits=TILED)) as client:
        yield client


def ask(client: httpx.Client, image: np.ndarray, accept: str = "application/json", **query: Any) -> httpx.Response:
    headers = {**NPY, "Accept": accept}
    return client.post(PATH, content=npy(image), headers=headers, params={"voxel_size_um": 2.0, **query})


def test_in_tiles_everything_is_as_whole(whole: httpx.Client, tiled: httpx.Client) -> None:
    image = blobs((45, 38, 29), 0.45)
    one, other = (ask(client, image).raise_for_status().json() for client in (whole, tiled))
    assert set(one["tiles"].values()) == {1}
    assert min(other["tiles"].values()) == 18
    for axis in "xyz":
        assert other["k_mD"][axis] == pytest.approx(one["k_mD"][axis], rel=1e-5)
        assert other["flux_profile"][axis] == pytest.approx(one["flux_profile"][axis], rel=1e-4)
        assert other["interval_95"]["k_mD"][axis] == pytest.approx(one["interval_95"]["k_mD"][axis], rel=1e-5)
        assert other["residuals"][axis] == pytest.approx(one["residuals"][axis], rel=1e-2)
    for name in (
        "porosity",
        "isolated_porosity",
        "connected_porosity",
        "percolates",
        "padded_to",
        "domain",
        "receipt",
        "image",
    ):
        assert other[name] == one[name], name


@pytest.mark.parametrize("axis", ["x", "y", "z"])
def test_the_field_has_no_seams_in_any_format(whole: httpx.Client, tiled: httpx.Client, axis: str) -> None:
    image = blobs((36, 21, 28), 0.45, 1)
    fields = [ask(client, image, "application/x-npy", axis=axis).raise_for_status() for client in (whole, tiled)]
    one, other = (np.load(io.BytesIO(answer.content)) for answer in fields)
    np.testing.assert_allclose(other, one, atol=1e-5 * one.max())
    vti = ask(tiled, image, "application/vnd.vtk.vti", axis=axis).raise_for_status().content
    zarr = ask(tiled, image, "application/zip", axis=axis).raise_for_status().content
    np.testing.assert_array_equal(_of_vti(vti), other)
    np.testing.assert_array_equal(_of_zarr(zarr), other)
    slices = [ask(client, image, "image/png", axis=axis).raise_for_status().content for client in (whole, tiled)]
    assert slices[0][:4] == b"\x89PNG"
    assert slices[0] == slices[1]


def _of_vti(content: bytes) -> np.ndarray:
    head, _, rest = content.partition(b'<AppendedData encoding="raw">_')
    image = Xml.fromstring(head.decode() + "</VTKFile>")[0]
    shape = [int(n) for n in image.attrib["WholeExtent"].split()[1::2]]
    assert image.attrib["Spacing"] == "2.0 2.0 2.0"
    size = int.from_bytes(rest[:8], "little")
    assert rest[8 + size :] == b"</AppendedData></VTKFile>\n"
    return np.frombuffer(rest[8 : 8 + size], "<f4").reshape(shape, order="F")


def _of_zarr(content: bytes) -> np.ndarray:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        about = json.loads(archive.read(".zarray"))
        chunks = [np.frombuffer(archive.read(f"{i}.0.0"), "<f4") for i in range(len(archive.namelist()) - 2)]
    nx, ny, nz = about["shape"]
    return np.concatenate(chunks).reshape(-1, ny, nz)[:nx]


def test_progress_comes_line_by_line_and_the_answer_last(whole: httpx.Client, tiled: httpx.Client) -> None:
    image = blobs((40, 24, 20), 0.45)
    lines = [json.loads(line) for line in ask(tiled, image, "application/x-ndjson", axes="z").text.splitlines()]
    steps = [line["progress"] for line in lines[:-1]]
    assert [step["done"] for step in steps] == list(range(1, steps[-1]["total"] + 1))
    assert lines[-1]["answer"]["k_mD"] == pytest.approx(ask(tiled, image, axes="z").json()["k_mD"])
    (only,) = ask(whole, image, "application/x-ndjson", axes="z").text.splitlines()
    assert "answer" in json.loads(only)


def test_what_goes_wrong_on_the_way_is_the_last_line(tiled: httpx.Client) -> None:
    image = ~blobs((40, 24, 20), 0.05)
    answer = ask(tiled, image, "application/x-ndjson", axes="z", on_out_of_domain="refuse")
    assert answer.status_code == 200
    problem = json.loads(answer.text.splitlines()[-1])["problem"]
    assert (problem["code"], problem["status"]) == ("out_of_domain", 422)


def test_where_nothing_flows_no_tile_is_run(tiled: httpx.Client) -> None:
    image = blobs((40, 24, 20), 0.45)
    image[:, :, 9] = False
    said = ask(tiled, image, axes="z").raise_for_status().json()
    assert (said["k_mD"]["z"], said["percolates"]["z"]) == (0.0, False)
    assert not np.load(io.BytesIO(ask(tiled, image, "application/x-npy", axis="z").content)).any()


def test_bits_of_a_large_image_are_never_unpacked_as_a_whole(rocks_repo: Path) -> None:
    image = blobs((64, 64, 64), 0.45)
    raw = {"Content-Type": "application/octet-stream"}
    query = {"voxel_size_um": 2.0, "axes": "all", "shape": "64,64,64", "dtype": "bits"}
    with in_process(Settings(model_repo=rocks_repo, workers=2, limits=TILED, spool_bytes=8 * 2**20)) as client:
        said = client.post(PATH, content=np.packbits(image).tobytes(), headers=raw, params=query)
        assert set(said.raise_for_status().json()["tiles"].values()) == {64}  # an axis takes the room of the one before
        again = client.post(PATH, content=np.packbits(image).tobytes(), headers=raw, params=query)
        assert again.status_code == 200  # the room was given back


def test_without_room_on_disk_it_says_so(rocks_repo: Path) -> None:
    with in_process(Settings(model_repo=rocks_repo, workers=2, limits=TILED, spool_bytes=10_000)) as client:
        refused = ask(client, blobs((40, 24, 20), 0.45), axes="z")
        assert (refused.status_code, refused.json()["code"]) == (507, "spool_full")


LARGE = blobs((64, 64, 48), 0.45)


def test_others_are_answered_between_tiles(rocks_repo: Path, serve: Callable[[Settings], int]) -> None:
    port = serve(Settings(model_repo=rocks_repo, workers=1, limits=TILED.model_copy(update={"whole_voxels": 10_000})))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120.0) as client, _stream(port, LARGE) as lines:
        step = next(lines)["progress"]
        while step["done"] < step["total"] // 2:  # tiles are under way
            step = next(lines)["progress"]
        assert ask(client, blobs(), axes="z").status_code == 200
        left = [line["progress"]["done"] for line in lines if "progress" in line]
        assert left[-1] - step["done"] > 5


def test_who_leaves_is_worked_for_no_more(rocks_repo: Path, serve: Callable[[Settings], int]) -> None:
    port = serve(Settings(model_repo=rocks_repo, workers=1, limits=TILED))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120.0) as client:
        with _stream(port, LARGE) as lines:
            next(lines)
        deadline = time.monotonic() + 60.0
        while _requests(client) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _requests(client)
        assert ask(client, blobs((40, 24, 20), 0.45), axes="z").status_code == 200


def _requests(client: httpx.Client) -> int:
    """Requests under way on the model."""
    told = {each["model"]: each for each in client.get("/v1/admin/models").json()["models"]}
    return int(told[NAME]["versions"][0]["requests"])


@contextmanager
def _stream(port: int, image: np.ndarray) -> Iterator[Iterator[dict[str, Any]]]:
    url, headers = f"http://127.0.0.1:{port}{PATH}", {**NPY, "Accept": "application/x-ndjson"}
    query = {"voxel_size_um": 2.0, "axes": "z"}
    with httpx.stream("POST", url, content=npy(image), headers=headers, params=query, timeout=120.0) as answer:
        yield (json.loads(line) for line in answer.iter_lines())
