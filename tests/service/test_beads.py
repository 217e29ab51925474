"""A model of beads: the list of models says what its symbols stand for, and a bulk system is judged by its density."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny import publish_tiny
from understudy import Client
from understudy.inprocess import InProcess
from understudy.tables import models_table

from service.app import create_app
from service.settings import Settings

BEADS = {"O": {"label": "water", "stands_for": "one molecule H2O, at its centre of mass", "mass_u": 18.015}}
DOMAIN = {
    "elements": ["O"],
    "formulas": None,
    "min_distance_angstrom": {},
    "periodic": True,
    "beads": BEADS,
    "states": [{"kelvin": 300.0, "density_g_cm3": 0.9}, {"kelvin": 600.0, "density_g_cm3": 0.5}],
}


@pytest.fixture
def client(tmp_path: Path) -> Any:
    root = tmp_path / "model_repo"
    publish_tiny(root, "beads", domain=DOMAIN, energy_is="free energy")
    with Client(transport=InProcess(create_app(Settings(model_repo=root, workers=1)))) as client:
        yield client


def _lattice(density: float) -> dict[str, Any]:
    """27 beads in a cubic cell of this density, g/cm^3."""
    length = (27 * 18.015 * 1.66053907 / density) ** (1 / 3)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3) * length / 3
    return {"numbers": [8] * 27, "positions": grid, "cell": length * np.eye(3), "pbc": True}


@pytest.mark.parametrize(
    ("density", "verdict"), [(0.7, "in"), (0.91, "in"), (0.95, "edge"), (0.46, "edge"), (1.1, "out"), (0.3, "out")]
)
def test_a_density_is_judged_by_the_states_on_the_card(client: Client, density: float, verdict: str) -> None:
    domain = client.predict("beads", _lattice(density)).domain
    assert domain.verdict == verdict
    assert (
        verdict == "in"
        or f"The density is {density:.3f} g/cm3; the training data reach from 0.5 to 0.9." in domain.reasons
    )


def test_the_list_of_models_says_what_a_symbol_stands_for(client: Client) -> None:
    (model,) = client.models()
    assert model.beads == {"O": "water"}
    table = models_table([model])
    assert "O = water" in list(table.columns[4].cells)
