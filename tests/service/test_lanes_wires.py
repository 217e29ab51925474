"""How callers say what their request is to the lanes, over every wire."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from tiny import PairEngine
from wires import kserve_json, malonaldehyde, rest_json

from contract.repository import ModelRepository
from service.access import tenant_of, tenant_of_peer
from service.api.kserve import read_asked
from service.lanes import Turns
from service.models import Model, load_model
from service.settings import Limits
from service.tenants import NOBODY, tenant_at
from service.workers import Done, Work

M = malonaldehyde()


@pytest.fixture(scope="module")
def loaded(repository: Path) -> Model:
    """A model, opened."""
    return load_model(ModelRepository(repository).load("tiny"), PairEngine(), Turns(NoWorkers()), Limits())


class NoWorkers:
    count = 1

    def start(self, work: Work, done: Done) -> None:
        raise AssertionError("nothing is run here")


@pytest.mark.parametrize(
    ("priority", "status"), [("bulk", 200), ("interactive", 200), ("urgent", 400), (["bulk"], 400)]
)
def test_priority_is_read_from_the_body(gateway: httpx.Client, priority: Any, status: int) -> None:
    answer = rest_json([M], priority=priority)(gateway)
    assert answer.status_code == status
    if status == 400:
        assert answer.json()["field"] == "priority"


def test_priority_is_read_from_the_query_of_a_file(gateway: httpx.Client) -> None:
    xyz = {"content": "2\n\nC 0 0 0\nO 0 0 1.2\n", "headers": {"content-type": "chemical/x-xyz"}}
    assert gateway.post("/v1/predict/tiny?priority=bulk", **xyz).status_code == 200
    assert gateway.post("/v1/predict/tiny?priority=urgent", **xyz).status_code == 400


@pytest.mark.parametrize(
    ("parameters", "status"),
    [({"priority": 2}, 200), ({"us_priority": "bulk"}, 200), ({"priority": -1}, 400), ({"priority": "2"}, 400),
     ({"priority": True}, 400), ({"us_priority": 2}, 400)],
)  # fmt: skip
def test_priority_is_a_parameter_of_kserve(gateway: httpx.Client, parameters: dict[str, Any], status: int) -> None:
    assert kserve_json([M], parameters=parameters)(gateway).status_code == status


@pytest.mark.parametrize(
    ("parameters", "priority"),
    [({}, "interactive"), ({"priority": 0}, "interactive"), ({"priority": 1}, "interactive"), ({"priority": 2}, "bulk"),
     ({"priority": 9, "us_priority": "interactive"}, "interactive")],
)  # fmt: skip
def test_the_numbers_of_priorities_are_those_of_triton(
    loaded: Model, parameters: dict[str, Any], priority: str
) -> None:
    assert read_asked({"inputs": [], "parameters": parameters}, loaded, 256).choices["priority"] == priority


def test_a_caller_without_a_key_is_known_by_the_address_of_its_machine() -> None:
    assert tenant_of({"client": ("10.0.0.7", 50123)}) == tenant_at("10.0.0.7") == tenant_of_peer("ipv4:10.0.0.7:50124")
    assert tenant_of({"client": ("::1", 1)}) == tenant_at("::1") == tenant_of_peer("ipv6:%5B::1%5D:50123")
    assert tenant_of({}) == tenant_of_peer("unix:/tmp/socket") == NOBODY
