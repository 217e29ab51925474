"""The loop of active learning, the same whatever is learnt.

    generation 0:  random inputs -> reference
    generation g:  fit a committee on all labels so far
                   explore in waves, collecting inputs on which it disagrees, until enough of them or of waves
                   reference labels them; compare its answers with the committee that asked
    stop when exploration survives and new labels teach little, or after the last generation

(Smith et al., Nat. Commun. 12, 1257 (2021); Santos et al. for pores; Diaw et al. for closures.) Every finished fit,
wave and label is on disk at once, and all chance derives from (seed, generation, wave): a loop that is killed at any
point goes on as if it had not been.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor, Future, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from training.active.errors import WorkersLost
from training.active.store import Arrays, Sample, Store

Model = TypeVar("Model")


class LoopConfig(BaseModel):
    """How long to go on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    bootstrap: int = Field(40, ge=2, description="random inputs of generation 0")
    generations: int = Field(5, ge=1)
    labels_a_generation: int = Field(40, ge=1)
    waves_a_generation: int = Field(8, ge=1, description="exploration ends after so many even with too few labels")
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Wave:
    """What one wave of exploration brought: inputs with the reason for each, and a report of numbers."""

    found: Sequence[tuple[Arrays, dict[str, Any]]]
    report: dict[str, Any]


class Problem(Protocol[Model]):
    """What a method must bring to the loop."""

    def bootstrap(self, count: int, rng: np.random.Generator) -> list[Arrays]:
        """Random inputs to begin with."""

    def fit(self, labelled: Sequence[Sample], generation: int, folder: Path) -> Model:
        """A committee trained on these labels; resumes what it left in `folder`."""

    def explore(self, model: Model, seed: int, store: Store) -> Wave:
        """One wave of exploration."""

    def reference(self, sample: Arrays) -> Arrays | None:
        """The label of one input; None if the reference did not converge."""

    def judge(self, model: Model, new: Sequence[Sample]) -> dict[str, Any]:
        """The committee against the new labels, before it has learnt from them."""

    def finished(self, generations: Sequence[dict[str, Any]]) -> str:
        """Why the loop may stop now, or an empty text."""


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Model]):
    """The committee of the last fit, the record, and why the loop ended."""

    model: Model
    store: Store
    ended: str


def run_loop(
    problem: Problem[Model], config: LoopConfig, folder: Path, executor: Executor, *, title: str = "active learning"
) -> Outcome[Model]:
    """Run the loop, or go on with one that was interrupted.

    Args:
        problem: what is learnt.
        config: how long.
        folder: holds active.db, and one folder a generation for the fit.
        executor: runs the reference; one that does so in other processes needs a problem that can be pickled.
        title: for the progress display.

    Raises:
        WorkersLost: the executor broke; what was labelled is kept.
    """
    console = Console(stderr=True)
    store = Store(folder / "active.db")
    _bootstrap(problem, config, store)
    _label(problem, store, 0, executor, f"{title}: labelling the first inputs")
    while len(store.generations()) < config.generations and not problem.finished(store.generations()):
        generation = len(store.generations()) + 1
        model = problem.fit(store.labelled(generation - 1), generation, folder / f"generation-{generation:02d}")
        _explore(problem, model, config, store, generation, title)
        _label(problem, store, generation, executor, f"{title}: labelling generation {generation}")
        report = _report(problem, model, store, generation)
        store.close_generation(generation, report)
        console.print(_line(report), highlight=False)
    ended = problem.finished(store.generations()) or f"the last of {config.generations} generations"
    last = len(store.generations()) + 1
    model = problem.fit(store.labelled(), last, folder / f"generation-{last:02d}")
    return Outcome(model, store, ended)


def _bootstrap(problem: Problem[Model], config: LoopConfig, store: Store) -> None:
    if store.count(0):
        return
    first = problem.bootstrap(config.bootstrap, np.random.default_rng([config.seed, 0]))
    store.add_wave(0, 0, [(arrays, {"reason": "random"}) for arrays in first], {})


def _explore(
    problem: Problem[Model], model: Model, config: LoopConfig, store: Store, generation: int, title: str
) -> None:
    """Waves until there is enough to label; what a killed loop had found stays."""
    with _progress() as progress:
        task = progress.add_task(f"{title}: exploring, generation {generation}", total=config.labels_a_generation)
        progress.update(task, completed=store.count(generation))
        for wave in range(len(store.waves(generation)), config.waves_a_generation):
            if (room := config.labels_a_generation - store.count(generation)) <= 0:
                break
            seed = int(np.random.default_rng([config.seed, generation, wave]).integers(2**31))
            brought = problem.explore(model, seed, store)
            store.add_wave(generation, wave, brought.found[:room], brought.report)
            progress.update(task, completed=store.count(generation))


def _label(problem: Problem[Model], store: Store, generation: int, executor: Executor, what: str) -> None:
    waiting = store.unlabelled(generation)
    with _progress() as progress, _workers_that_stay():
        task = progress.add_task(what, total=len(waiting))
        asked: dict[Future[Arrays | None], Sample] = {executor.submit(problem.reference, s.input): s for s in waiting}
        for answer in as_completed(asked):
            _record(store, asked[answer], answer.result)
            progress.advance(task)


@contextmanager
def _workers_that_stay() -> Iterator[None]:
    try:
        yield
    except BrokenExecutor as error:
        kept = "What was labelled is kept, and the same command goes on."
        raise WorkersLost(f"a worker that labelled has ended, perhaps for want of memory. {kept}") from error


def _record(store: Store, sample: Sample, result: Callable[[], Arrays | None]) -> None:
    label = result()
    store.set_label(sample.number, label, "" if label is not None else "not converged")


def _report(problem: Problem[Model], model: Model, store: Store, generation: int) -> dict[str, Any]:
    new = [sample for sample in store.labelled(generation) if sample.generation == generation]
    waves = store.waves(generation)
    return {
        "generation": generation,
        "labels": len(store.labelled(generation)),
        "new_labels": len(new),
        "waves": waves,
        **(problem.judge(model, new) if new else {}),
    }


def _line(report: dict[str, Any]) -> str:
    numbers = (f"{k} {v:.4g}" for k, v in report.items() if isinstance(v, float))
    return f"generation {report['generation']}: {report['labels']} labels; {', '.join(numbers)}"


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)
