"""Permeability by unmodified tritonclients over both protocols: the same numbers as over REST."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from flow_model import NAME, parabola, publish_flow_model
from grpc_gateway import Ports, run
from test_fields import NPY, PATH, blobs, npy
from tiny import tiny_repository
from tritonclient.utils import InferenceServerException

from service.settings import Limits, Settings

IMAGE = blobs()


@pytest.fixture(scope="module")
def ports(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ports]:
    root: Path = tiny_repository(tmp_path_factory.mktemp("fields"))
    publish_flow_model(root, tmp_path_factory.mktemp("staging"))
    running = run(Settings(model_repo=root, workers=2, limits=Limits(whole_voxels=10_000)))
    yield running.ports
    running.stop()


@pytest.fixture(params=["http", "grpc"])
def wire(request: pytest.FixtureRequest, ports: Ports) -> Iterator[tuple[Any, Any]]:
    if request.param == "http":
        with triton_http.InferenceServerClient(f"127.0.0.1:{ports.http}") as client:
            yield triton_http, client
    else:
        with triton_grpc.InferenceServerClient(ports.address) as client:
            yield triton_grpc, client


def inputs(module: Any, image: np.ndarray = IMAGE, **others: np.ndarray) -> list[Any]:
    arrays = {"image": image.astype(np.uint8), "voxel_size_um": np.array([2.0]), "pore_values": np.array([1])}
    made = []
    for name, array in {**arrays, **others}.items():
        kind = {"u": "UINT8", "f": "FP64", "i": "INT64", "b": "BOOL"}[array.dtype.kind]
        made.append(module.InferInput(name, list(array.shape), kind))
        made[-1].set_data_from_numpy(array)
    return made


def test_the_numbers_are_those_of_rest(wire: tuple[Any, Any], ports: Ports) -> None:
    module, client = wire
    answer = client.infer(NAME, inputs(module))
    url = f"http://127.0.0.1:{ports.http}{PATH}"
    said = httpx.post(url, content=npy(IMAGE), headers=NPY, params={"voxel_size_um": 2.0}).json()
    for name in ("k_m2", "k_mD", "k_voxel2", "connected_porosity", "flux_std"):
        assert answer.as_numpy(name) == pytest.approx(list(said[name].values()), rel=1e-6), name
    assert answer.as_numpy("porosity") == pytest.approx([said["porosity"]])
    assert answer.as_numpy("in_domain").all()
    np.testing.assert_allclose(answer.as_numpy("k_mD_interval_95"), list(said["interval_95"]["k_mD"].values()))
    assert answer.as_numpy("velocity") is None


def test_axes_are_chosen_and_the_velocity_comes_when_it_is_asked_for(wire: tuple[Any, Any]) -> None:
    module, client = wire
    asked = [module.InferRequestedOutput(name) for name in ("velocity", "k_voxel2")]
    answer = client.infer(NAME, inputs(module, axes=np.array([2, 0])), outputs=asked)
    velocity, k = answer.as_numpy("velocity"), answer.as_numpy("k_voxel2")
    assert velocity.shape == (2, *IMAGE.shape)
    assert k == pytest.approx([parabola(IMAGE, 2), parabola(IMAGE, 0)], rel=1e-5)
    assert velocity.mean(axis=(1, 2, 3)) == pytest.approx(k, rel=1e-5)


def test_a_large_image_is_run_in_tiles_here_too(wire: tuple[Any, Any]) -> None:
    module, client = wire
    image = blobs((40, 30, 20), 0.45)
    answer = client.infer(NAME, inputs(module, image, axes=np.array([1])))
    assert answer.as_numpy("k_voxel2") == pytest.approx([parabola(image, 1)], rel=1e-5)


def test_metadata_configuration_index_and_statistics_know_the_model(wire: tuple[Any, Any]) -> None:
    module, client = wire
    client.infer(NAME, inputs(module))
    told: dict[str, Any] = {} if module is triton_http else {"as_json": True}
    metadata = client.get_model_metadata(NAME, **told)
    assert [tensor["name"] for tensor in metadata["inputs"]] == ["image", "voxel_size_um", "axes", "pore_values"]
    assert "velocity" not in [tensor["name"] for tensor in metadata["outputs"]]
    assert metadata["platform"] == "understudy_field"
    assert client.get_model_config(NAME, **told)
    assert client.is_model_ready(NAME)
    index = client.get_model_repository_index(**told)
    assert NAME in [entry["name"] for entry in (index if isinstance(index, list) else index["models"])]
    statistics = json.dumps(client.get_inference_statistics(NAME, **told))
    assert NAME in statistics


@pytest.mark.parametrize("name", ["check", "escalate"])
def test_what_only_potentials_have_is_refused(wire: tuple[Any, Any], name: str) -> None:
    module, client = wire
    words = {"check": "teacher", "escalate": "always"}
    with pytest.raises(InferenceServerException, match="potentials"):
        client.infer(NAME, inputs(module), parameters={f"us_{name}": words[name]})


def test_a_velocity_as_json_is_refused_with_the_remedy(ports: Ports) -> None:
    with triton_http.InferenceServerClient(f"127.0.0.1:{ports.http}") as client:
        asked = [triton_http.InferRequestedOutput("velocity", binary_data=False)]
        with pytest.raises(InferenceServerException, match="binary_data"):
            client.infer(NAME, inputs(triton_http), outputs=asked)
