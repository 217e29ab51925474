"""The loop on a problem of one number: it learns, its record is whole, and a killed one goes on as if nothing were."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.active.loop import LoopConfig, Wave, run_loop
from training.active.store import Arrays, Sample, Store

CONFIG = LoopConfig(bootstrap=4, generations=3, labels_a_generation=5, waves_a_generation=4, seed=2)


class Parabola:
    """Learns y = x^2 from its labels by a polynomial; exploration asks where it has no label near."""

    def __init__(self, fails: float | None = None) -> None:
        self.fails = fails
        self.asked = 0

    def bootstrap(self, count: int, rng: np.random.Generator) -> list[Arrays]:
        return [{"x": rng.uniform(-1, 1, 1)} for _ in range(count)]

    def fit(self, labelled: Sequence[Sample], generation: int, folder: Path) -> np.ndarray:
        return np.sort(np.concatenate([s.input["x"] for s in labelled]))

    def explore(self, model: np.ndarray, seed: int, store: Store) -> Wave:
        x = np.random.default_rng(seed).uniform(-3, 3, 4)
        far = [v for v in x if np.abs(model - v).min() > 0.05]
        return Wave([({"x": np.array([v])}, {"reason": "far"}) for v in far], {"survival_fs": float(len(x) - len(far))})

    def reference(self, sample: Arrays) -> Arrays | None:
        self.asked += 1
        x = float(sample["x"][0])
        return None if self.fails is not None and x > self.fails else {"y": np.array([x * x])}

    def judge(self, model: np.ndarray, new: Sequence[Sample]) -> dict[str, Any]:
        return {"reach": float(np.ptp(model))}

    def finished(self, generations: Sequence[dict[str, Any]]) -> str:
        return ""


@pytest.fixture
def threads() -> Any:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def test_every_generation_adds_labels_and_is_judged_before_it_is_learnt(tmp_path: Path, threads: Any) -> None:
    outcome = run_loop(Parabola(), CONFIG, tmp_path, threads)
    labelled = outcome.store.labelled()
    assert len(labelled) == 4 + 3 * 5
    assert all(s.label is not None and s.label["y"] == s.input["x"] ** 2 for s in labelled)
    reports = outcome.store.generations()
    assert [r["generation"] for r in reports] == [1, 2, 3]
    assert [r["labels"] for r in reports] == [9, 14, 19]
    assert reports[0]["reach"] < 2.0  # of the model before it saw its own findings
    assert "last of 3" in outcome.ended


def test_a_label_that_did_not_converge_is_never_learnt_nor_asked_again(tmp_path: Path, threads: Any) -> None:
    problem = Parabola(fails=0.5)
    store = run_loop(problem, CONFIG, tmp_path, threads).store
    assert all(s.input["x"][0] <= 0.5 for s in store.labelled())
    assert len(store.labelled()) < 19
    before = problem.asked
    run_loop(problem, CONFIG, tmp_path, threads)
    assert problem.asked == before


@pytest.mark.parametrize("kill_after", [1, 3, 6, 11])
def test_a_loop_killed_at_any_point_ends_as_one_that_was_not(tmp_path: Path, threads: Any, kill_after: int) -> None:
    whole = run_loop(Parabola(), CONFIG, tmp_path / "whole", threads).store.labelled()
    script = textwrap.dedent(f"""
        import os, signal, sys
        from concurrent.futures import ThreadPoolExecutor
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_loop import CONFIG, Parabola
        from training.active.loop import run_loop

        class Dying(Parabola):
            def reference(self, sample):
                if self.asked == {kill_after}:
                    os.kill(os.getpid(), signal.SIGKILL)
                return super().reference(sample)

        with ThreadPoolExecutor(1) as executor:
            run_loop(Dying(), CONFIG, Path({str(tmp_path / "killed")!r}), executor)
    """)
    done = subprocess.run([sys.executable, "-c", script], env=dict(os.environ), capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL
    resumed = run_loop(Parabola(), CONFIG, tmp_path / "killed", threads).store.labelled()
    assert [float(s.input["x"][0]) for s in resumed] == [float(s.input["x"][0]) for s in whole]


def test_facts_are_written_once(tmp_path: Path) -> None:
    store = Store(tmp_path / "active.db")
    assert store.fact("thresholds") is None
    store.set_fact("thresholds", {"force": 0.5})
    with pytest.raises(Exception, match="UNIQUE"):
        store.set_fact("thresholds", {"force": 0.7})
    assert store.fact("thresholds") == {"force": 0.5}
