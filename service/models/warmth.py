"""Which shapes a model has run: every usual one before it is served, so that no caller meets a first run."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from service.engines import Runner, Stop, Tensors


@dataclass(slots=True)
class Warm:
    """The shape buckets that a model's graphs have run.

    Attributes:
        first_runs: buckets that were run for the first time after the model was ready; 0 is what we want.
    """

    first_runs: int = 0
    _seen: set[tuple[str, int]] = field(default_factory=set)

    def warmed(self, file: str, runner: Runner, batches: Iterable[Tensors]) -> Runner:
        """Run these batches, and give back a runner that notices a bucket which was not among them."""
        for tensors in batches:
            runner(tensors)
            self._seen.add((file, _bucket(tensors)))

        def run(tensors: Tensors, stop: Stop | None = None) -> dict[str, NDArray[Any]]:
            bucket = (file, _bucket(tensors))
            if bucket not in self._seen:
                self._seen.add(bucket)
                self.first_runs += 1
            return runner(tensors, stop)

        return run


def _bucket(tensors: Tensors) -> int:
    """Neighbour slots per atom: the one size of a batch that is a standard one."""
    return int(tensors["neighbours"].shape[1])
