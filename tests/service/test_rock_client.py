"""The client and the command with rock images, in front of a real gateway."""

import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from flow_model import NAME, parabola
from test_fields import blobs
from typer.testing import CliRunner
from understudy import Client, rock_flows
from understudy.cli import app
from understudy.errors import BadRequest, InvalidImage, OutOfDomain
from understudy.inprocess import InProcess
from understudy.rock_checks import pores_as_asked, scattered
from understudy.rocks import RockOptions

from service.app import create_app
from service.settings import Limits, Settings


@pytest.fixture(scope="module")
def client(rocks_repo: Path) -> Iterator[Client]:
    with Client(transport=InProcess(create_app(Settings(model_repo=rocks_repo, workers=2)))) as client:
        yield client


def answer_of(done: Result) -> dict[str, Any]:
    """The last line; the gateway in this process may log before it."""
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_an_array_gets_its_permeability_and_its_field(client: Client) -> None:
    image = blobs()
    answer = client.permeability(image, 3.5, axes="x,z", model=NAME)
    field = client.velocity(image, 3.5, "x", model=NAME)
    assert answer.k_voxel2 == pytest.approx({a: parabola(image, i) for a, i in (("x", 0), ("z", 2))}, rel=1e-5)
    assert field.mean() == pytest.approx(answer.k_voxel2["x"], rel=1e-5)
    assert answer.receipt is not None
    assert answer.receipt.options["voxel_size_um"] == 3.5


def test_files_of_every_kind_are_the_same_rock(client: Client, tmp_path: Path) -> None:
    image = blobs()
    wanted = client.permeability(image, 2.0, model=NAME).k_mD
    np.save(tmp_path / "rock.npy", image)
    np.savez(tmp_path / "bits.npz", image=np.packbits(image), shape=np.array(image.shape))
    np.savez(tmp_path / "labels.npz", image=(~image).astype("u1"), note=np.array(1))
    (tmp_path / "rock.raw").write_bytes(image.astype("u1").tobytes(order="F"))
    raw = client.permeability(
        tmp_path / "rock.raw", 2.0, shape=image.shape, dtype="uint8", order="F", pore_value=1, model=NAME
    )
    assert client.permeability(tmp_path / "rock.npy", 2.0, model=NAME).k_mD == wanted
    assert client.permeability(tmp_path / "bits.npz", 2.0, model=NAME).k_mD == wanted
    assert client.permeability(tmp_path / "labels.npz", 2.0, pore_value=0, model=NAME).k_mD == wanted
    assert raw.k_mD == wanted


def test_raw_bytes_of_the_other_byte_order_are_read_and_simulated_as_such(client: Client, tmp_path: Path) -> None:
    image = blobs()
    (tmp_path / "rock.raw").write_bytes(np.where(image, 7, 256).astype(">u2").tobytes())
    options: RockOptions = {
        "shape": image.shape,
        "dtype": "uint16",
        "byte_order": "big",
        "pore_value": 7,
        "model": NAME,
    }
    answer = client.permeability(tmp_path / "rock.raw", 2.0, **options)
    assert answer.k_mD == client.permeability(image, 2.0, model=NAME).k_mD
    np.testing.assert_array_equal(pores_as_asked(tmp_path / "rock.raw", options, answer), image)


def test_eight_parts_are_asked_alone_and_those_that_cannot_be_have_their_meaning(client: Client) -> None:
    image = blobs((20, 20, 20), 0.5)
    image[:10, :10, :10], image[10:, :10, :10] = False, True
    parts = scattered(client, image, 2.0, {"axes": "x,z", "model": NAME})
    assert parts["k_mD"]["z"][:1] + parts["k_mD"]["z"][4:5] == [0.0, None]
    alone = client.permeability(image[10:, 10:, :10], 2.0, axes="z", model=NAME)
    assert parts["k_mD"]["z"][6] == pytest.approx(alone.k_mD["z"])
    assert parts["porosity"][6] == pytest.approx(alone.porosity)
    assert set(parts["k_mD"]) == {"x", "z"}


def test_what_cannot_be_sent_or_answered_is_an_error_with_a_remedy(client: Client, tmp_path: Path) -> None:
    (tmp_path / "rock.raw").write_bytes(b"0")
    (tmp_path / "rock.docx").write_bytes(b"0")
    (tmp_path / "rock.npz").write_bytes(b"0")
    for name, words in {"rock.raw": "--shape", "rock.docx": ".npy", "rock.npz": "cannot be read"}.items():
        with pytest.raises(InvalidImage, match=words):
            client.permeability(tmp_path / name, 2.0, model=NAME)
    with pytest.raises(BadRequest, match="pore_value"):
        client.permeability(np.arange(512).reshape(8, 8, 8) % 2, 2.0, model=NAME)
    with pytest.raises(OutOfDomain):
        client.permeability(~blobs(porosity=0.1), 2.0, model=NAME, on_out_of_domain="refuse")


def test_the_command_prints_a_table_or_json_writes_the_field_and_simulates_a_part(
    rocks_repo: Path, serve: Callable[[Settings], int], tmp_path: Path
) -> None:
    image = blobs((24, 24, 24), 0.5)
    np.save(tmp_path / "rock.npy", image)
    url = f"http://127.0.0.1:{serve(Settings(model_repo=rocks_repo, workers=2))}"
    asked = ["permeability", str(tmp_path / "rock.npy"), "--voxel-um", "2", "--model", NAME, "--url", url]

    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "porosity 0.5" in shown.output
    assert "velocity in the solid 0" in shown.output
    parts = answer_of(CliRunner().invoke(app, [*asked, "--scatter", "--json"]))["parts"]
    assert [len(k) for k in parts["k_mD"].values()] == [8, 8, 8]
    assert "eight parts" in CliRunner().invoke(app, [*asked, "--scatter"]).output
    picture = CliRunner().invoke(app, [*asked, "--axis", "z", "--field", str(tmp_path / "u.png")])
    assert picture.exit_code == 0, picture.output
    assert (tmp_path / "u.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

    field = ["--axis", "z", "--field", str(tmp_path / "u.npy"), "--json"]
    said = answer_of(CliRunner().invoke(app, [*asked, *field]))
    assert said["k_voxel2"]["z"] == pytest.approx(parabola(image, 2), rel=1e-5)
    assert np.load(tmp_path / "u.npy").shape == image.shape


def test_an_order_that_is_none_is_refused_and_not_taken_for_the_usual_one(tmp_path: Path) -> None:
    np.save(tmp_path / "rock.npy", blobs())
    asked = CliRunner().invoke(app, ["permeability", str(tmp_path / "rock.npy"), "--voxel-um", "2", "--order", "Z"])
    assert asked.exit_code == 2
    assert "--order" in asked.output


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["--field", "u.npy"], "add --axis"),
        (["--axis", "z", "--field", "u.csv"], ".vti"),
        (["--axis", "z", "--field", "no/u.npy"], "no folder"),
    ],
)
def test_a_field_that_cannot_be_written_is_refused_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("rock.npy", blobs())
    nowhere = ["--url", "http://127.0.0.1:9"]
    refused = CliRunner().invoke(app, ["permeability", "rock.npy", "--voxel-um", "2", *nowhere, *asked])
    assert refused.exit_code == 2
    assert said in refused.output


def test_a_cube_from_the_middle_is_simulated_by_the_installed_solver(
    rocks_repo: Path, serve: Callable[[Settings], int], tmp_path: Path
) -> None:
    from training.simulators.creeping_flow import solve_flow

    image = blobs((24, 24, 24), 0.5)
    np.save(tmp_path / "rock.npy", image)
    url = f"http://127.0.0.1:{serve(Settings(model_repo=rocks_repo, workers=2))}"
    asked = ["permeability", str(tmp_path / "rock.npy"), "--voxel-um", "2", "--model", NAME, "--url", url]
    verified = CliRunner().invoke(app, [*asked, "--axis", "y", "--verify", "16", "--json"])
    checked = answer_of(verified)["verification"]
    k = solve_flow(image[4:20, 4:20, 4:20], 1).permeability * 4e-12 / 9.869233e-16
    assert checked["shape"] == [16, 16, 16]
    assert checked["simulated_k_mD"]["y"] == pytest.approx(k)


def test_the_rock_of_the_examples_conducts_along_every_axis(project: Path) -> None:
    from contract.voxels import pores_of

    with np.load(project / "examples" / "rock.npz") as arrays:
        image = np.unpackbits(arrays["image"]).reshape(arrays["shape"]).astype(bool)
    assert all(pores_of(image, axis).percolates for axis in range(3))


def test_files_of_other_programs_are_the_same_rock(client: Client, tmp_path: Path) -> None:
    import netCDF4
    import tifffile
    import zarr

    image = blobs()
    labels = image.astype("u1")
    wanted = client.permeability(image, 2.0, model=NAME).k_mD
    with netCDF4.Dataset(tmp_path / "rock.nc", "w") as data:
        for name, length in zip("xyz", image.shape, strict=True):
            data.createDimension(name, length)
        data.createVariable("segmented", "u1", ("x", "y", "z"))[...] = labels
        data.createVariable("x", "f8", ("x",))[...] = np.arange(image.shape[0])
    zarr.save_array(tmp_path / "rock.zarr", labels)
    with zarr.storage.ZipStore(tmp_path / "rock.zarr.zip", mode="w") as store:
        zarr.create_array(store, data=labels)
    group = zarr.open_group(tmp_path / "group.zarr", mode="w")
    group.create_array("image", data=labels)
    group.create_array("distance", data=np.zeros(image.shape))
    (tmp_path / "slices").mkdir()
    for z in range(image.shape[2]):
        tifffile.imwrite(tmp_path / "slices" / f"{z:03}.tif", labels[:, :, z].T)
    for name in ("rock.nc", "rock.zarr", "rock.zarr.zip", "group.zarr", "slices"):
        assert client.permeability(tmp_path / name, 2.0, pore_value=1, model=NAME).k_mD == wanted, name


def test_hostile_files_are_refused_before_they_take_memory(client: Client, tmp_path: Path) -> None:
    import netCDF4
    import zarr

    zarr.create_array(tmp_path / "huge.zarr", shape=(10**5,) * 3, chunks=(64, 64, 64), dtype="u1")
    with zarr.storage.ZipStore(tmp_path / "bomb.zarr.zip", mode="w") as store:
        zarr.create_array(store, data=np.ones((4, 4, 4), "u1"))
    with zipfile.ZipFile(tmp_path / "bomb.zarr.zip", "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../elsewhere", b"0" * 2**24)
    with netCDF4.Dataset(tmp_path / "two.nc", "w") as data:
        data.createDimension("x", 4)
        for name in ("one", "other"):
            data.createVariable(name, "u1", ("x", "x", "x"))
    (tmp_path / "cut.nc").write_bytes(b"CDF\x01\x00\x00")
    (tmp_path / "empty.zarr").mkdir()
    expected = {"huge.zarr": "claims", "bomb.zarr.zip": "entries", "two.nc": "one, other"}
    for name, words in {**expected, "cut.nc": "cannot be read", "empty.zarr": "cannot be read"}.items():
        with pytest.raises(InvalidImage, match=words):
            client.permeability(tmp_path / name, 2.0, model=NAME)
    assert not (tmp_path.parent.parent / "elsewhere").exists()


def test_a_large_image_goes_up_in_parts_and_progress_comes_down(
    rocks_repo: Path, serve: Callable[[Settings], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rock_flows, "IN_PARTS", 1_000)
    monkeypatch.setattr(rock_flows, "PART", 3_000)
    image, steps = blobs((36, 24, 20), 0.45), list[tuple[int, int]]()
    port = serve(
        Settings(model_repo=rocks_repo, workers=2, limits=Limits(whole_voxels=1_000, tile_length=16, uploads=1))
    )
    with Client(f"http://127.0.0.1:{port}") as client:
        for _ in range(2):  # the first upload is gone when the second is made
            answer = client.permeability(image, 2.0, axes="x", model=NAME, on_progress=lambda *step: steps.append(step))
        assert answer.k_voxel2 == pytest.approx({"x": parabola(image, 0)}, rel=1e-5)
        assert steps[-1][0] == steps[-1][1] > 20
        with pytest.raises(OutOfDomain):
            client.permeability(
                ~blobs((36, 24, 20), 0.05), 2.0, axes="x", model=NAME, on_out_of_domain="refuse", on_progress=print
            )
        assert client.velocity(image, 2.0, "x", model=NAME).mean() == pytest.approx(parabola(image, 0), rel=1e-5)


def test_the_field_is_written_as_its_file_is_named(
    rocks_repo: Path, serve: Callable[[Settings], int], tmp_path: Path
) -> None:
    import zarr

    np.save(tmp_path / "rock.npy", blobs())
    url = f"http://127.0.0.1:{serve(Settings(model_repo=rocks_repo, workers=2))}"
    asked = ["permeability", str(tmp_path / "rock.npy"), "--voxel-um", "2", "--model", NAME, "--url", url]
    for name in ("u.npy", "u.vti", "u.zarr", "u.zarr.zip", "u.docx"):
        done = CliRunner().invoke(app, [*asked, "--axis", "y", "--field", str(tmp_path / name)])
        assert done.exit_code == (2 if name == "u.docx" else 0), done.output
    field = np.load(tmp_path / "u.npy")
    np.testing.assert_array_equal(zarr.open(tmp_path / "u.zarr", mode="r")[...], field)
    with zarr.storage.ZipStore(tmp_path / "u.zarr.zip", mode="r") as store:
        np.testing.assert_array_equal(zarr.open(store, mode="r")[...], field)
    assert (tmp_path / "u.vti").read_bytes().startswith(b"<?xml")
