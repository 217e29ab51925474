"""The isolation contract: nobody's answer depends on who shares the batch, in random mixes and on live traffic."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import in_process
from wires import malonaldehyde

from contract.repository import ModelRepository
from contract.structures import Structure, checked_structure
from service.engines.onnxruntime import OnnxRuntime
from service.families.potential import Potential, Prediction
from service.followers import WAITING, Followers
from service.followers.canary import Canary, same
from service.models import compute_of
from service.plane import Answer, Exchange, Options
from service.settings import Settings

MIXES = 10_000
MODEL_REPO = Path(__file__).parents[2] / "model_repo"


def random_structures(count: int, seed: int) -> list[Structure]:
    """Clusters, crystals, lone atoms and pairs of 1 to 60 atoms; many share coordinates with one another."""
    rng = np.random.default_rng(seed)
    grid = 1.3 * np.stack(np.meshgrid(*[np.arange(5.0)] * 3, indexing="ij"), -1).reshape(-1, 3)
    structures = []
    for _ in range(count):
        atoms = int(rng.choice([1, 2, 5, 9, 20, 60]))
        positions = grid[rng.permutation(len(grid))[:atoms]] + rng.normal(0.0, 0.05, (atoms, 3))
        cell, pbc = (np.eye(3) * 6.5, True) if rng.random() < 0.3 else (None, None)
        structures.append(checked_structure(rng.choice([1, 6, 8], atoms), positions, cell, pbc))
    return structures


def assert_same_in_every_company(root: Path, name: str, structures: list[Structure], mixes: int) -> None:
    stored = ModelRepository(root).load(name)
    family = Potential.of(stored.card)
    compute = compute_of(family, OnnxRuntime(1).open(stored, "model.onnx"))
    samples = [family.encode(structure) for structure in structures]
    alone = [compute([sample])[0] for sample in samples]
    rng = np.random.default_rng(2)
    for _ in range(mixes):
        chosen = rng.integers(0, len(samples), int(rng.integers(2, 5)))  # the same one twice is allowed
        mixed = compute([samples[n] for n in chosen])
        assert all(same(alone[n], prediction) for n, prediction in zip(chosen, mixed, strict=True))


def test_ten_thousand_random_mixes_change_no_answer(repository: Path) -> None:
    assert_same_in_every_company(repository, "tiny", random_structures(300, seed=1), MIXES)


def test_a_shipped_model_gives_the_same_answer_in_every_company() -> None:
    assert_same_in_every_company(MODEL_REPO, "malonaldehyde", random_structures(60, seed=3), 100)


def body(structures: list[dict[str, Any]], **options: Any) -> dict[str, Any]:
    return {"structures": structures, **options}


def stretched(by: float) -> dict[str, Any]:
    molecule = malonaldehyde()
    return {**molecule, "positions": (np.asarray(molecule["positions"]) * by).tolist()}


def test_deterministic_answers_are_bitwise_the_same_in_every_company(gateway: httpx.Client) -> None:
    one = stretched(1.0)
    asked = [[one], [stretched(1.01), one], [one, stretched(0.99), {"numbers": [6], "positions": [[0, 0, 0]]}]]
    answers = [gateway.post("/v1/predict/tiny", json=body(s, deterministic=True)).json()["results"] for s in asked]
    first, second, third = answers[0][0], answers[1][1], answers[2][0]
    assert first == second == third


def test_deterministic_can_be_asked_in_the_query_and_over_kserve(gateway: httpx.Client) -> None:
    xyz = "2\n\nC 0 0 0\nO 0 0 1.2\n"
    head = {"content-type": "chemical/x-xyz"}
    assert gateway.post("/v1/predict/tiny?deterministic=true", content=xyz, headers=head).status_code == 200
    refused = gateway.post("/v1/predict/tiny?deterministic=perhaps", content=xyz, headers=head)
    assert (refused.status_code, refused.json()["field"]) == (400, "deterministic")
    inputs = [
        {"name": "numbers", "datatype": "INT64", "shape": [2], "data": [6, 8]},
        {"name": "positions", "datatype": "FP64", "shape": [2, 3], "data": [0, 0, 0, 0, 0, 1.2]},
    ]
    for flag, status in ((True, 200), ("yes", 400)):
        asked = {"inputs": inputs, "parameters": {"us_deterministic": flag}}
        assert gateway.post("/v2/models/tiny/infer", json=asked).status_code == status


def test_the_canary_checks_live_traffic_and_finds_nothing(repository: Path) -> None:
    with in_process(Settings(model_repo=repository, workers=2, canary_fraction=1.0)) as client:

        def ask(n: int) -> int:
            return client.post("/v1/predict/tiny", json=body([stretched(1 + n / 1000), stretched(1.0)])).status_code

        with ThreadPoolExecutor(8) as callers:
            assert set(callers.map(ask, range(40))) == {200}
        counts = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if line[0] != "#")
    assert float(counts["understudy_isolation_checks_total"]) > 0
    assert float(counts["understudy_isolation_violations_total"]) == 0


class OtherAnswers:
    """A plane whose answer alone is another one: the fault that the canary is there to find."""

    def __init__(self, answer: Answer, shift_ev: float) -> None:
        self.answer = answer
        self.shift_ev = shift_ev

    async def predict(self, asked: Any, structures: Any, options: Options) -> Answer:
        assert options.deterministic
        assert not options.followed
        moved = [replace(p, energy=p.energy + self.shift_ev) for p in self.answer.predictions]
        return Answer(self.answer.model, moved)


def predictions(repository: Path) -> list[Prediction]:
    stored = ModelRepository(repository).load("tiny")
    family = Potential.of(stored.card)
    compute = compute_of(family, OnnxRuntime(1).open(stored, "model.onnx"))
    return list(compute([family.encode(structure) for structure in random_structures(3, seed=5)]))


@pytest.mark.parametrize(("shift_ev", "violations"), [(0.0, 0), (0.02, 3)])
def test_the_canary_reports_an_answer_that_depends_on_company(
    repository: Path, shift_ev: float, violations: int
) -> None:
    model: Any = SimpleNamespace(card=SimpleNamespace(name="tiny", version="1"), stored=SimpleNamespace(digest="0"))
    answer = Answer(model, predictions(repository))
    plane: Any = OtherAnswers(answer, shift_ev)
    canary = Canary(plane, 1.0)
    exchange = Exchange([p.sample.structure for p in answer.predictions], Options(), answer)
    assert canary.wants(exchange)
    asyncio.run(canary.follow(exchange))
    assert (canary.checked, canary.violations) == (3, violations)


def test_a_follower_that_fails_or_is_slow_harms_nobody() -> None:
    class Bad:
        name = "bad"

        def wants(self, exchange: int) -> bool:
            return True

        async def follow(self, exchange: int) -> None:
            await asyncio.sleep(0)
            raise ValueError(exchange)

    async def scene() -> int:
        followers: Followers[int] = Followers()
        followers.add(Bad())
        for n in range(WAITING + 6):
            followers.show(n)
        missed = followers.missed
        await asyncio.sleep(0.01)
        followers.show(11)
        await followers.close()
        return missed

    assert asyncio.run(scene()) == 6
