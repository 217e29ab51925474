"""Every shipped model through the embedded engine: the numbers it was admitted with, and physics over HTTP."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from understudy import Client
from understudy.inprocess import InProcess
from wires import malonaldehyde

from contract.repository import ModelRepository, StoredModel
from service.app import create_app
from service.engines.onnxruntime import OnnxRuntime
from service.settings import Settings

SHIPPED = Path(__file__).parents[2] / "model_repo"
NAMES = ModelRepository(SHIPPED).names() if SHIPPED.is_dir() else []

pytestmark = pytest.mark.skipif(not NAMES, reason="no model_repo in this checkout: publish a model into it")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(transport=InProcess(create_app(Settings(model_repo=SHIPPED, workers=2)))) as client:
        yield client


@pytest.fixture(params=NAMES)
def shipped(request: pytest.FixtureRequest) -> StoredModel:
    return ModelRepository(SHIPPED).load(request.param)


def test_the_embedded_engine_reproduces_the_reference(shipped: StoredModel) -> None:
    with np.load(shipped.file("reference.npz")) as stored:
        inputs = {name.removeprefix("in/"): stored[name] for name in stored.files if name.startswith("in/")}
        expected = {name.removeprefix("out/"): stored[name] for name in stored.files if name.startswith("out/")}
    outputs = OnnxRuntime(1).open(shipped, "model.onnx")(inputs)
    for name, array in expected.items():
        np.testing.assert_allclose(outputs[name], array, rtol=1e-5, atol=1e-4, err_msg=name)


@pytest.mark.physics
def test_served_forces_are_the_derivative_of_the_served_energy(client: Client, shipped: StoredModel) -> None:
    if shipped.card.family != "potential":
        pytest.skip("not a potential")
    domain = shipped.potential_card.domain
    if not {"C", "H", "O"} <= {*domain.elements} or "C3H4O2" not in (domain.formulas or ["C3H4O2"]):
        pytest.skip("not a model of malonaldehyde")
    item, step = malonaldehyde(), 1e-3
    positions = np.array(item["positions"])
    moved = []
    for atom, axis, sign in np.ndindex(9, 3, 2):
        changed = positions.copy()
        changed[atom, axis] += step * (1 if sign else -1)
        moved.append({**item, "positions": changed})
    energies = np.array([p.energy for p in client.predict(shipped.card.name, moved)]).reshape(9, 3, 2)
    slopes = (energies[..., 1] - energies[..., 0]) / (2 * step)
    prediction = client.predict(shipped.card.name, item)
    np.testing.assert_allclose(prediction.forces, -slopes, atol=3e-3)


def test_a_molecule_of_the_domain_is_in_it_and_another_is_not(client: Client, shipped: StoredModel) -> None:
    if shipped.card.family != "potential" or shipped.potential_card.domain.formulas != ["C3H4O2"]:
        pytest.skip("not a model of malonaldehyde alone")
    water = {"numbers": [8, 1, 1], "positions": [[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]}
    inside, outside = client.predict(shipped.card.name, [malonaldehyde(), water])
    assert inside.domain.in_domain
    assert not outside.domain.in_domain
    assert "not trained on H2O:" in outside.domain.reasons[0]
