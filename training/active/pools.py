"""Where reference calculations run: on threads, in processes, or wherever a Parsl configuration puts them.

Threads suit calculators that compute outside of Python's lock or start a program; processes those that do not, such as
GPAW; Parsl a cluster (training/configs/slurm.py). A label is the same wherever it was made.
"""

import multiprocessing
import os
import runpy
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from training.active.errors import NoPool
from training.extras import MissingPackage


@contextmanager
def pool(where: str, workers: int) -> Iterator[Executor]:
    """Workers that label.

    Args:
        where: `threads`, `processes`, or a Python file that defines a Parsl configuration with the name `config`.
        workers: how many threads or processes; a Parsl configuration says so itself.

    Raises:
        NoPool: there is no such file, or it defines no configuration.
        MissingPackage: Parsl is not installed.
    """
    if where == "threads":
        with ThreadPoolExecutor(workers) as threads:
            yield threads
    elif where == "processes":
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=spawn, initializer=_end_with_the_parent) as processes:
            yield processes
    else:
        config = parsl_config(Path(where))
        from parsl.concurrent import ParslPoolExecutor

        beside_python = str(Path(sys.executable).parent)  # Parsl looks for its own programs there by name
        os.environ["PATH"] = os.pathsep.join([beside_python, os.environ.get("PATH", os.defpath)])
        with ParslPoolExecutor(config) as placed:
            yield placed


def parsl_config(path: Path) -> Any:
    """The `parsl.Config` that a Python file defines with the name `config`; the file is executed.

    Raises:
        NoPool: there is no such file, or it defines no configuration.
        MissingPackage: Parsl is not installed.
    """
    if not path.is_file():
        raise NoPool(f"--pool {path}: neither `threads`, `processes` nor a Python file with a Parsl configuration")
    try:
        from parsl import Config
    except ModuleNotFoundError:
        raise MissingPackage("parsl") from None
    config = runpy.run_path(str(path)).get("config")
    if not isinstance(config, Config):
        raise NoPool(f"{path} must define `config = parsl.Config(...)`, and it holds {type(config).__name__}")
    return config


def _end_with_the_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent,), daemon=True).start()


def _exit_after(parent: Any) -> None:
    parent.join()
    os._exit(1)
