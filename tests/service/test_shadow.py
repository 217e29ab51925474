"""A version that follows live traffic: its differences on record, and a promotion that reads them."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import in_process
from test_versions import M, energy, metrics, publish, settings, tell
from wires import rest_json

from service.followers.shadow import Difference


@pytest.fixture
def root(tmp_path: Path) -> Path:
    publish(tmp_path / "repo", "1")
    return tmp_path / "repo"


@pytest.fixture
def gateway(root: Path) -> Iterator[httpx.Client]:
    with in_process(settings(root)) as client:
        yield client


def followed(gateway: httpx.Client, requests: int, items: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    """The shadow's record after it has followed so many requests more."""
    wanted = record(gateway)["requests"] + requests
    for _ in range(50 * requests):
        assert rest_json(items or [M])(gateway).status_code == 200
        if record(gateway)["requests"] >= wanted:
            return record(gateway)
        time.sleep(0.01)
    raise AssertionError(record(gateway))


def record(gateway: httpx.Client) -> dict[str, Any]:
    shadow: dict[str, Any] = gateway.get("/v1/models/tiny").json()["shadow"]
    return shadow


def test_a_shadow_that_agrees_is_promoted_after_enough_requests(gateway: httpx.Client, root: Path) -> None:
    publish(root, "2")
    assert "follows version 1" in tell(gateway, "shadow", version="2")["done"]
    followed(gateway, 1)
    refused = tell(gateway, "promote", 409, version="2")
    assert "of 5 requests" in refused["detail"]
    shown = followed(gateway, 5)
    assert shown["structures"] == shown["requests"] >= 5
    assert shown["energy_max_mev_per_atom"] < 1e-3
    assert shown["forces_max_ev_per_angstrom"] < 1e-5
    assert shown["latency_ratio"] > 0
    assert (shown["failed"], shown["drift"]) == (0, [])
    told = tell(gateway, "promote", version="2")
    assert (told["promoted"], told["shadow"]) == ("2", None)


def test_a_shift_of_20_mev_per_atom_is_flagged_and_not_promoted_without_force(
    gateway: httpx.Client, root: Path
) -> None:
    before = energy(gateway)
    publish(root, "2", 20.0)
    tell(gateway, "shadow", version="2")
    shown = followed(gateway, 6)
    assert shown["energy_rms_mev_per_atom"] == pytest.approx(20.0, rel=1e-3)
    assert shown["energy_max_mev_per_atom"] == pytest.approx(20.0, rel=1e-3)
    refused = tell(gateway, "promote", 409, version="2")
    assert "differ by 20 meV/atom" in refused["detail"]
    counts = metrics(gateway)
    labels = '{model="tiny",version="2"}'
    assert counts[f"understudy_shadow_drifted{labels}"] == 1
    assert counts[f"understudy_shadow_energy_rms_mev_per_atom{labels}"] == pytest.approx(20.0, rel=1e-3)
    assert counts[f"understudy_shadow_requests_total{labels}"] >= 6
    assert energy(gateway) == pytest.approx(before, abs=1e-6)  # no caller has seen anything of it
    assert tell(gateway, "promote", version="2", force=True)["promoted"] == "2"


def test_a_shadow_that_gives_no_answer_where_there_was_one_is_not_promoted(gateway: httpx.Client, root: Path) -> None:
    publish(root, "2", domain={"elements": ["H", "C"]})
    tell(gateway, "shadow", version="2")
    shown = followed(gateway, 6)
    assert shown["failed"] == shown["requests"]
    assert "O, which model 'tiny' does not know" in shown["drift"][0]
    assert "gave no answer" in tell(gateway, "promote", 409, version="2")["detail"]


def test_structures_out_of_the_domain_are_counted_apart(gateway: httpx.Client, root: Path) -> None:
    publish(root, "2", 20.0)
    tell(gateway, "shadow", version="2")
    shown = followed(gateway, 6, [{"numbers": [6, 8], "positions": [[0, 0, 0], [0, 0, 1.2]]}])
    assert (shown["structures"], shown["drift"]) == (0, [])
    assert shown["outside"] == shown["requests"]
    assert "compared on 0 structures" in tell(gateway, "promote", 409, version="2")["detail"]


def test_a_shadow_ends_by_command_by_its_unloading_and_with_other_weights(gateway: httpx.Client, root: Path) -> None:
    publish(root, "2", 20.0)
    publish(root, "3", 20.0)
    tell(gateway, "shadow", version="2")
    followed(gateway, 1)
    assert tell(gateway, "reload")["shadow"]["requests"] >= 1  # the same weights
    assert tell(gateway, "shadow", version="3")["shadow"]["requests"] == 0
    tell(gateway, "unload", version="3")
    assert record(gateway) is None
    tell(gateway, "shadow", version="2")
    assert tell(gateway, "shadow")["shadow"] is None
    assert "nothing to follow" in tell(gateway, "shadow", 409, version="1")["detail"]


def test_differences_are_summed_without_being_kept() -> None:
    found = Difference()
    values = np.random.default_rng(0).normal(size=(7, 3))
    for part in np.array_split(values, 3):
        found.add(part)
    assert found.rms == pytest.approx(float(np.sqrt((values**2).mean())))
    assert (found.count, found.largest) == (21, pytest.approx(float(np.abs(values).max())))
    found.add(float("nan"))
    assert found.rms == found.largest == float("inf")
