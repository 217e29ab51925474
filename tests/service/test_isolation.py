"""The isolation contract: nobody's answer depends on who shares the batch, in random mixes and on live traffic."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from conftest import in_process
from stage import VirtualWorkers, settle, virtual
from structlog.testing import capture_logs
from wires import malonaldehyde

from contract.repository import ModelRepository
from contract.structures import Structure, checked_structure
from service.engines import Runner, Stop, Tensors
from service.engines.onnxruntime import OnnxRuntime
from service.errors import EngineFault, NonFiniteAnswer
from service.families.potential import Potential, Prediction
from service.followers import WAITING, Followers
from service.followers.canary import Canary, same
from service.lanes import Bounds, Lane, Terms, Turns
from service.models import compute_of
from service.plane import Answer, Exchange, Options
from service.settings import Settings
from service.tolerance import Tolerance

MIXES = 10_000
MODEL_REPO = Path(__file__).parents[2] / "model_repo"


def random_structures(count: int, seed: int) -> list[Structure]:
    """Clusters, crystals, slabs, wires, lone atoms and pairs of 1 to 500 atoms.

    All stand on one grid and many share it exactly, so that atoms of different structures coincide; each comes with a
    twin of equal size and other coordinates, to take its place in a batch.
    """
    rng = np.random.default_rng(seed)
    grid = 1.3 * np.stack(np.meshgrid(*[np.arange(8.0)] * 3, indexing="ij"), -1).reshape(-1, 3)
    structures = []
    for n in range(count // 2):
        large = n in (0, 75)
        atoms = (500 if n else 200) if large else int(rng.choice([1, 2, 5, 9, 20, 60], p=[0.1, *[0.18] * 5]))
        places = grid if large else grid[(grid < 6.0).all(axis=1)]
        cell, pbc = (np.eye(3) * (10.4 if large else 6.5), rng.random(3) < 0.6) if rng.random() < 0.5 else (None, None)
        numbers = rng.choice([1, 6, 8], atoms)
        for noise in (0.0, 0.05):
            positions = places[rng.permutation(len(places))[:atoms]] + rng.normal(0.0, noise, (atoms, 3))
            structures.append(checked_structure(numbers, positions, cell, pbc))
    return structures


MARK = 3
"""Only the structure for which an engine call goes wrong has so many atoms."""


def marked() -> Structure:
    return checked_structure([6, 8, 1], [[0, 0, 0], [0, 0, 1.2], [0.9, 0, -0.5]])


@dataclass
class FaultyRunner:
    """The real engine, but for calls with a marked structure: NaN in its results, or a crash of the whole call."""

    runner: Runner
    fault: str = "none"
    calls: int = 0

    def __call__(self, tensors: Tensors, stop: Stop | None = None) -> dict[str, np.ndarray]:
        self.calls += 1
        outputs = self.runner(tensors, stop)
        bad = np.flatnonzero(np.bincount(tensors["structure"]) == MARK)
        if bad.size and self.fault == "crash":
            raise RuntimeError("the engine crashed")
        if bad.size and self.fault == "NaN":
            outputs["forces"] = outputs["forces"].copy()
            outputs["forces"][np.isin(tensors["structure"], bad)] = np.nan
        return outputs


class Company:
    """One model's lane on virtual time, in which whatever is asked for at once shares a batch."""

    def __init__(self, root: Path, name: str, structures: list[Structure]) -> None:
        stored = ModelRepository(root).load(name)
        self.family = Potential.of(stored.card)
        self.runner = FaultyRunner(OnnxRuntime(1).open(stored, "model.onnx"))
        self.samples = [self.family.encode(structure) for structure in structures]
        compute = compute_of(self.family, self.runner)
        self.alone = [compute([sample])[0] for sample in self.samples]
        self.marked = self.family.encode(marked())
        self.turns = Turns(VirtualWorkers(1))
        self.lane = Lane(compute, Bounds(10**9, 10**6, 10**9, 0.0), self.turns)

    async def mix(self, chosen: Sequence[int], fault: str, rng: np.random.Generator) -> list[Any]:
        """The outcomes of structures, and behind them that of a mate with a fault, from one batch in any order."""
        self.runner.fault, self.runner.calls = fault, 0
        mates = [self.marked] if fault != "none" else []
        asked: list[asyncio.Task[Any]] = [None] * (len(chosen) + len(mates))  # type: ignore[list-item]
        samples = [*(self.samples[n] for n in chosen), *mates]
        self.turns.free = 0
        for place in rng.permutation(len(samples)):
            asked[place] = asyncio.create_task(self.lane.submit([samples[place]], Terms(1e6, caller=int(place))))
        await settle()
        if fault == "leaves the queue":
            asked[-1].cancel()
            await settle()
        self.turns.release()
        if fault == "leaves the batch":
            asked[-1].cancel()
        return await asyncio.gather(*asked, return_exceptions=True)


FAULTS = {
    "none": (),
    "NaN": NonFiniteAnswer,
    "crash": EngineFault,
    "leaves the queue": asyncio.CancelledError,
    "leaves the batch": asyncio.CancelledError,
}


def assert_same_in_every_company(company: Company, mixes: int) -> None:
    """Random mixes, half of them again with one structure replaced by another of its size, a third with a bad mate."""
    rng = np.random.default_rng(2)

    async def scene() -> None:
        for n in range(mixes // 2):
            fault = str(rng.choice([*FAULTS], p=[0.8, *[0.05] * 4]))
            chosen = rng.integers(0, len(company.samples), int(rng.integers(2, 5)))  # the same one twice is allowed
            refilled = chosen.copy()
            refilled[n % len(chosen)] ^= 1  # its twin
            for mix in (chosen, refilled):
                outcomes = await company.mix(mix, fault, rng)
                for one, outcome in zip(mix, outcomes, strict=False):
                    assert same(company.alone[one], outcome[0], Tolerance()), (fault, mix)
                if fault != "none":
                    assert isinstance(outcomes[-1], FAULTS[fault])
                assert company.runner.calls == (1 + len(outcomes) if fault in ("NaN", "crash") else 1)

    with capture_logs():
        virtual(scene)


@pytest.mark.slow
def test_ten_thousand_random_mixes_change_no_answer(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.lanes.lane.PADDING", float("inf"))
    assert_same_in_every_company(Company(repository, "tiny", random_structures(300, seed=1)), MIXES)


def test_a_shipped_model_gives_the_same_answer_in_every_company(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.lanes.lane.PADDING", float("inf"))
    structures = [structure for structure in random_structures(80, seed=3) if len(structure) <= 60]
    assert_same_in_every_company(Company(MODEL_REPO, "malonaldehyde", structures), 100)


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
    return list(compute([family.encode(structure) for structure in random_structures(4, seed=5)[:3]]))


@pytest.mark.parametrize(("shift_ev", "violations"), [(0.0, 0), (0.02, 3)])
def test_the_canary_reports_an_answer_that_depends_on_company(
    repository: Path, shift_ev: float, violations: int
) -> None:
    lane = Lane(lambda *_: [], Bounds(1, 1, 1, 0.0), Turns(VirtualWorkers(1)))
    model: Any = SimpleNamespace(
        card=SimpleNamespace(name="tiny", version="1", checks=[]),
        stored=SimpleNamespace(digest="0"),
        lanes={"model.onnx": lane},
    )
    answer = Answer(model, predictions(repository))
    plane: Any = OtherAnswers(answer, shift_ev)
    canary = Canary(plane, 1.0)
    exchange = Exchange([p.sample.structure for p in answer.predictions], Options(), answer)
    assert canary.wants(exchange)
    asyncio.run(canary.follow(exchange))
    assert (canary.checked, canary.violations) == (3, violations)
    assert lane.together == (violations == 0)


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
