"""The client and the command with rock images, in front of a real gateway."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from flow_model import NAME, parabola, publish_flow_model
from test_fields import blobs
from tiny import tiny_repository
from typer.testing import CliRunner
from understudy import Client
from understudy.cli import app
from understudy.errors import BadRequest, InvalidImage, OutOfDomain
from understudy.inprocess import InProcess

from service.app import create_app
from service.settings import Settings


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tiny_repository(tmp_path_factory.mktemp("fields"))
    publish_flow_model(root, tmp_path_factory.mktemp("staging"))
    return root


@pytest.fixture(scope="module")
def client(repo: Path) -> Iterator[Client]:
    with Client(transport=InProcess(create_app(Settings(model_repo=repo, workers=2)))) as client:
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
    repo: Path, serve: Callable[[Settings], int], tmp_path: Path
) -> None:
    image = blobs((24, 24, 24), 0.5)
    np.save(tmp_path / "rock.npy", image)
    url = f"http://127.0.0.1:{serve(Settings(model_repo=repo, workers=2))}"
    asked = ["permeability", str(tmp_path / "rock.npy"), "--voxel-um", "2", "--model", NAME, "--url", url]

    shown = CliRunner().invoke(app, asked)
    assert shown.exit_code == 0, shown.output
    assert "porosity 0.5" in shown.output

    field = ["--axis", "z", "--field", str(tmp_path / "u.npy"), "--json"]
    said = answer_of(CliRunner().invoke(app, [*asked, *field]))
    assert said["k_voxel2"]["z"] == pytest.approx(parabola(image, 2), rel=1e-5)
    assert np.load(tmp_path / "u.npy").shape == image.shape


def test_an_order_that_is_none_is_refused_and_not_taken_for_the_usual_one(tmp_path: Path) -> None:
    np.save(tmp_path / "rock.npy", blobs())
    asked = CliRunner().invoke(app, ["permeability", str(tmp_path / "rock.npy"), "--voxel-um", "2", "--order", "Z"])
    assert asked.exit_code == 2
    assert "--order" in asked.output


def test_a_cube_from_the_middle_is_simulated_by_the_installed_solver(
    repo: Path, serve: Callable[[Settings], int], tmp_path: Path
) -> None:
    from training.simulators.creeping_flow import solve_flow

    image = blobs((24, 24, 24), 0.5)
    np.save(tmp_path / "rock.npy", image)
    url = f"http://127.0.0.1:{serve(Settings(model_repo=repo, workers=2))}"
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
