"""Rock images asked of a real gateway: every format, every axis, what is refused and what is questioned."""

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import in_process
from flow_model import NAME, parabola
from PIL import Image as Picture
from scipy.ndimage import gaussian_filter

from contract.units import MILLIDARCY_M2
from service.settings import Limits, Settings

NPY = {"Content-Type": "application/x-npy"}
PATH = f"/v1/fields/{NAME}"


def blobs(shape: tuple[int, ...] = (18, 16, 14), porosity: float = 0.4, seed: int = 0) -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return noise > np.quantile(noise, 1 - porosity)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def rocks(rocks_repo: Path) -> Iterator[httpx.Client]:
    with in_process(Settings(model_repo=rocks_repo, workers=2, limits=Limits(image_voxels=100_000))) as client:
        yield client


def ask(rocks: httpx.Client, body: bytes, kind: dict[str, str] = NPY, **query: Any) -> httpx.Response:
    return rocks.post(PATH, content=body, headers=kind, params={"voxel_size_um": 2.0, **query})


def test_the_permeability_along_each_axis_is_the_models_in_three_units(rocks: httpx.Client) -> None:
    image = blobs()
    said = ask(rocks, npy(image)).raise_for_status().json()
    for axis, letter in enumerate("xyz"):
        k = parabola(image, axis)
        assert said["k_voxel2"][letter] == pytest.approx(k, rel=1e-5)
        assert said["k_m2"][letter] == pytest.approx(k * 4e-12, rel=1e-5)
        assert said["k_mD"][letter] == pytest.approx(k * 4e-12 / MILLIDARCY_M2, rel=1e-5)
        low, high = said["interval_95"]["k_mD"][letter]
        assert low < said["k_mD"][letter] < high
    assert said["porosity"] == pytest.approx(image.mean())
    assert said["image"]["voxel_size_um"] == 2.0
    assert said["padded_to"]["z"] == [20, 16, 16]
    assert sum(said["flux_profile"]["z"]) / image.size == pytest.approx(said["k_voxel2"]["z"], rel=1e-4)
    assert said["receipt"]["digest"] == said["digest"]


@pytest.mark.physics
def test_how_far_the_field_is_from_a_flow_is_said_and_which_pores_take_no_part(rocks: httpx.Client) -> None:
    image = blobs()
    image[8:11, 7:10, 6:9] = False
    image[9, 8, 7] = True  # a bubble
    said = ask(rocks, npy(image)).raise_for_status().json()
    assert said["isolated_porosity"] >= 1 / image.size
    for letter, residuals in said["residuals"].items():
        flux = np.array(said["flux_profile"][letter])
        assert residuals["flux_std"] == said["flux_std"][letter]
        assert residuals["flux_largest"] == pytest.approx(np.abs(flux / flux.mean() - 1.0).max())
        assert residuals["velocity_in_solid"] == 0.0
        assert said["connected_porosity"][letter] <= said["porosity"] - said["isolated_porosity"] + 1e-12


def test_a_turned_image_gives_the_same_numbers_on_other_axes_and_voxels_twice_as_large_four_times_as_much(
    rocks: httpx.Client,
) -> None:
    image = blobs()
    said = ask(rocks, npy(image)).json()
    turned = ask(rocks, npy(np.ascontiguousarray(image.transpose(2, 0, 1))), voxel_size_um=4.0).json()
    for before, after in zip("zxy", "xyz", strict=True):
        assert turned["k_mD"][after] == pytest.approx(4.0 * said["k_mD"][before], rel=1e-6)


@pytest.mark.parametrize("order", ["C", "F"])
def test_raw_bytes_bits_and_npy_of_any_type_and_order_are_the_same_image(rocks: httpx.Client, order: str) -> None:
    image = blobs()
    wanted = ask(rocks, npy(image), axes="z").json()["k_voxel2"]
    raw, shape = {"Content-Type": "application/octet-stream"}, "18,16,14"
    big = np.asarray(image, ">u2").tobytes(order=order)  # type: ignore[arg-type]
    bits = np.packbits(image.ravel(order=order)).tobytes()  # type: ignore[arg-type]
    answers = [
        ask(rocks, big, raw, axes="z", shape=shape, dtype="uint16", byte_order="big", order=order, pore_value=1),
        ask(rocks, bits, raw, axes="z", shape=shape, dtype="bits", order=order),
        ask(rocks, npy(np.asarray(image, "i4", order=order)), axes="z", pore_value=1),  # type: ignore[call-overload]
        ask(rocks, npy(image.astype("f4")), axes="z", pore_value=1),
    ]
    assert [answer.raise_for_status().json()["k_voxel2"] for answer in answers] == [wanted] * 4


@pytest.mark.parametrize("compression", [None, "tiff_adobe_deflate", "packbits"])
def test_a_tiff_stack_has_its_pages_along_z_its_rows_along_y_and_its_columns_along_x(
    rocks: httpx.Client, compression: str | None
) -> None:
    image, buffer = blobs(), io.BytesIO()
    pages = [Picture.fromarray((255 * image[:, :, z].T).astype(np.uint8)) for z in range(image.shape[2])]
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:], compression=compression)
    said = ask(rocks, buffer.getvalue(), {"Content-Type": "image/tiff"}, pore_value=255).raise_for_status().json()
    assert said["k_voxel2"] == pytest.approx(ask(rocks, npy(image)).json()["k_voxel2"])


def test_the_field_comes_as_npy_and_a_slice_of_it_as_png(rocks: httpx.Client) -> None:
    image = blobs()
    k = ask(rocks, npy(image), axes="y").json()["k_voxel2"]["y"]
    answer = ask(rocks, npy(image), {**NPY, "Accept": "application/x-npy"}, axis="y").raise_for_status()
    field = np.load(io.BytesIO(answer.content))
    assert field.shape == image.shape
    assert not field[~image].any()
    assert field.mean() == pytest.approx(k, rel=1e-5)
    assert "x-understudy-receipt" in answer.headers
    beside = dict(part.split("=") for part in answer.headers["x-understudy-field"].replace('"', "").split(", "))
    assert beside["axis"] == "y"
    assert float(beside["k_voxel2"]) == pytest.approx(k, rel=1e-5)
    flux = field.sum(axis=(0, 2), dtype=float)
    assert float(beside["flux_std"]) == pytest.approx(flux.std() / flux.mean(), rel=1e-4)
    assert float(beside["velocity_in_solid"]) == 0.0
    for axis, size in {"x": (14, 18), "y": (14, 16), "z": (16, 14)}.items():
        png = ask(rocks, npy(image), {**NPY, "Accept": "image/png"}, axis=axis, slice=3).raise_for_status()
        assert Picture.open(io.BytesIO(png.content)).size == size


def test_the_polarity_is_found_where_it_is_clear_and_said(rocks: httpx.Client) -> None:
    solid = (~blobs(porosity=0.3)).astype(np.uint8)
    said = ask(rocks, npy(solid), axes="z").json()
    assert said["image"]["pore_values"] == [0]
    assert said["porosity"] == pytest.approx(0.3, abs=0.01)
    assert "polarity_detected" in codes(said)
    assert "polarity_detected" not in codes(ask(rocks, npy(solid), axes="z", pore_value=0).json())


def test_what_looks_wrong_is_said(rocks: httpx.Client) -> None:
    inverted = ask(rocks, npy(~blobs(porosity=0.3)), axes="z").json()
    uneven = blobs((16, 16, 16), 0.4)
    uneven[:, :, 9:] |= blobs((16, 16, 7), 0.95, 1)
    assert "suspicious_porosity" in codes(inverted)
    assert (inverted["domain"]["verdict"], inverted["flags"]) == ("edge", ["edge_of_domain"])
    assert "not_representative" in codes(ask(rocks, npy(uneven), axes="z").json())
    assert "unusual_voxel_size" in codes(ask(rocks, npy(blobs()), axes="z", voxel_size_um=3500).json())


def test_narrow_throats_are_told_once_with_their_axes(rocks: httpx.Client) -> None:
    (told,) = (w["text"] for w in ask(rocks, npy(blobs())).json()["warnings"] if w["code"] == "narrow_throats")
    assert all(f"along {axis}" in told for axis in "xyz")
    (told,) = (
        w["text"] for w in ask(rocks, npy(blobs()), axes="z").json()["warnings"] if w["code"] == "narrow_throats"
    )
    assert "along z" in told
    assert "along x" not in told


def test_where_nothing_can_flow_the_permeability_is_zero_with_the_reason(rocks: httpx.Client) -> None:
    image = blobs()
    image[:, :, 7] = False
    said = ask(rocks, npy(image)).json()
    assert said["k_mD"]["z"] == 0.0
    assert said["interval_95"]["k_mD"]["z"] is None
    assert said["percolates"] == {"x": True, "y": True, "z": False}
    assert any("kz is 0" in w["text"] for w in said["warnings"] if w["code"] == "not_percolating")


REFUSED: dict[str, tuple[Any, dict[str, Any], int, str]] = {
    "no voxel size": (blobs(), {"voxel_size_um": ""}, 422, "voxel_size_um"),
    "negative voxel size": (blobs(), {"voxel_size_um": -1}, 422, "positive"),
    "voxel size that is no number": (blobs(), {"voxel_size_um": "nan"}, 422, "positive"),
    "voxels that are no cubes": (blobs(), {"voxel_size_um": "2,2,5"}, 422, "Resample"),
    "grey levels": (np.arange(4096).reshape(16, 16, 16), {}, 422, "Segment"),
    "values between": (np.random.default_rng(0).random((8, 8, 8)), {}, 422, "Segment"),
    "not a number": (np.full((8, 8, 8), np.nan), {}, 422, "Segment"),
    "three labels": (np.arange(512).reshape(8, 8, 8) % 3, {}, 422, "pore_value"),
    "even shares": (np.arange(512).reshape(8, 8, 8) % 2, {}, 422, "pore_value"),
    "a label that is not there": (blobs().astype("u1"), {"pore_value": 7}, 422, "there"),
    "all solid": (np.zeros((8, 8, 8), bool), {}, 422, "solid"),
    "two dimensions": (blobs()[0], {}, 422, "three dimensions"),
    "an axis that is none": (blobs(), {"axes": "w"}, 422, "x, y and z"),
    "a misspelt name": (blobs(), {"voxel_um": 3}, 400, "voxel_size_um"),
    "more than the model takes": (np.pad(blobs(), 12), {}, 413, "voxels"),
    "more than an image may have": (np.zeros((50, 50, 50), bool), {}, 413, "voxels"),
    "refused outside": (~blobs(porosity=0.1), {"on_out_of_domain": "refuse"}, 422, "trained"),
    "other weights": (blobs(), {"model_digest": "0" * 12}, 412, "digest"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_with_the_remedy(rocks: httpx.Client, case: str) -> None:
    array, query, status, words = REFUSED[case]
    answer = ask(rocks, npy(array), **query)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


def tiff(single: dict[int, int], lists: dict[int, int]) -> bytes:
    """One page: tags with one value, and tags with so many values, all from the file's begin."""
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in single.items()]
    entries += [struct.pack("<HHII", tag, 4, count, 0) for tag, count in lists.items()]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + b"\0" * 4


BYTES: dict[str, tuple[bytes, str, dict[str, Any], int]] = {
    "JSON": (b"[[[1]]]", "application/json", {}, 415),
    "an .npy with objects": (npy(np.array([[[1]]], dtype="i8")).replace(b"<i8", b"|O8"), "application/x-npy", {}, 422),
    "an .npy that claims more than it holds": (npy(blobs())[:-9], "application/x-npy", {}, 422),
    "an .npy that claims ninety million": (
        npy(blobs()).replace(b"(18, 16, 14)", b"(9999,999,9)"),
        "application/x-npy",
        {},
        413,
    ),
    "an .npy of endless length": (npy(blobs()).replace(b"(18, 16, 14)", b"(1e999,16,4)"), "application/x-npy", {}, 422),
    "an .npy of more dimensions than an array has": (
        b"\x93NUMPY\x01\x00\xf6\x01%-502b" % repr({"descr": "|u1", "fortran_order": False, "shape": (1,) * 65}).encode()
        + b"1",
        "application/x-npy",
        {},
        422,
    ),
    "an .npy with a long head": (b"\x93NUMPY\x02\x00\x20\x4e\0\0" + b" " * 20_000, "application/x-npy", {}, 422),
    "no .npy": (b"hello", "application/x-npy", {}, 422),
    "raw without a shape": (b"0" * 64, "application/octet-stream", {}, 422),
    "raw of another size": (b"0" * 65, "application/octet-stream", {"shape": "4,4,4", "dtype": "uint8"}, 422),
    "raw of more voxels than can be told": (
        b"0",
        "application/octet-stream",
        {"shape": ",".join(["9" * 4000] * 3), "dtype": "uint8"},
        422,
    ),
    "raw of an odd type": (b"0" * 64, "application/octet-stream", {"shape": "4,4,4", "dtype": "object"}, 422),
    "bits with a tail": (b"\xff" * 4, "application/octet-stream", {"shape": "3,3,3", "dtype": "bits"}, 422),
    "half a TIFF": (b"II*\0\x08\0\0\0\x05\0", "image/tiff", {}, 422),
    "a TIFF with a tag as long as it likes": (tiff({270: 1, 256: 4, 257: 4}, {273: 10**6}), "image/tiff", {}, 422),
    "a TIFF with strips of no size": (tiff({256: 4, 257: 4, 258: 8, 279: 16}, {273: 2}), "image/tiff", {}, 422),
    "a TIFF with more strips than rows": (
        tiff({256: 4, 257: 2, 258: 8, 278: 0}, {273: 4, 279: 4}),
        "image/tiff",
        {},
        422,
    ),
    "no TIFF": (b"hello there", "image/tiff", {}, 422),
}


@pytest.mark.parametrize("case", BYTES)
def test_bodies_that_are_not_what_they_say_are_refused(rocks: httpx.Client, case: str) -> None:
    body, kind, query, status = BYTES[case]
    answer = ask(rocks, body, {"Content-Type": kind}, **query)
    assert answer.status_code == status, answer.text
    assert answer.json()["hint"]


def test_a_model_of_flow_is_listed_has_its_card_and_is_not_asked_for_energies(rocks: httpx.Client) -> None:
    listed = {model["name"]: model["family"] for model in rocks.get("/v1/models").json()["models"]}
    assert listed[NAME] == "field"
    assert rocks.get(f"/v1/models/{NAME}").json()["divisor"] == 4
    assert rocks.get("/v1/limits").json()["models"][NAME] == {"voxels": 60_000}
    assert rocks.post(f"/v1/predict/{NAME}", json={"structures": []}).status_code == 404
    assert rocks.post("/v1/fields/tiny", content=npy(blobs()), headers=NPY).status_code == 404


def codes(said: dict[str, Any]) -> set[str]:
    return {warning["code"] for warning in said["warnings"]}
