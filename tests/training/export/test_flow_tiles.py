"""The graphs for tiles: together they are the committee, whatever the image, the tile and the number of scales."""

from pathlib import Path

import numpy as np
import pytest
import torch

from contract.conduction import in_memory
from contract.flow import flow_inputs
from contract.tiles import COARSE, FINEST, TiledFlow
from training.export.flow_tiles import export_tiles
from training.gate.engines import onnx_engine
from training.networks.msnet import MSNetConfig
from training.networks.permeability import PermeabilityCommittee


@pytest.fixture(scope="module", params=[2, 3])
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, PermeabilityCommittee]:
    torch.manual_seed(request.param)
    committee = PermeabilityCommittee.of(MSNetConfig(scales=request.param, filters=2), 2, 1.7, 0.9)
    for part in (part for network in committee.networks for part in network.scale_networks):
        torch.nn.init.normal_(part.last.weight, std=0.3)
    committee.trend.normal_(std=0.1)
    folder = tmp_path_factory.mktemp("tiles")
    export_tiles(committee, folder)
    return folder, committee


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "length"), [((26, 17, 30), 12), ((9, 40, 11), 16), ((16, 16, 16), 32)])
def test_an_image_in_tiles_is_the_image_whole(
    exported: tuple[Path, PermeabilityCommittee], shape: tuple[int, int, int], length: int
) -> None:
    folder, committee = exported
    image = np.random.default_rng(0).random(shape) < 0.7
    image[: shape[0] // 2] |= np.random.default_rng(1).random((shape[0] // 2, *shape[1:])) < 0.6  # uneven
    inputs = flow_inputs(image, 0, committee.config.divisor)
    coarse, finest = onnx_engine(folder / COARSE), onnx_engine(folder / FINEST)
    flow = TiledFlow(inputs.distance, inputs.estimate, length, np.empty_like(inputs.distance), in_memory)
    flow.run(coarse, finest)
    assert flow.passes == 5
    with torch.no_grad():
        velocity, member_flow = committee(*(torch.from_numpy(v) for v in inputs.tensors().values()))
    np.testing.assert_allclose(flow.velocity, velocity[0], atol=2e-4 * float(velocity.abs().max()))
    np.testing.assert_allclose(flow.member_flow, member_flow, rtol=1e-3)
    np.testing.assert_allclose(flow.flux, velocity[0].numpy().sum(axis=(0, 1)), rtol=1e-3, atol=1e-3)


def test_a_network_of_one_scale_has_nothing_to_cut(tmp_path: Path) -> None:
    export_tiles(PermeabilityCommittee.of(MSNetConfig(scales=1, filters=2), 1, 1.0, 1.0), tmp_path)
    assert not list(tmp_path.iterdir())
