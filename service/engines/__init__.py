"""What runs the graphs. An engine knows tensors and nothing of chemistry."""

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from contract.repository import StoredModel

Tensors: TypeAlias = Mapping[str, NDArray[Any]]


class Runner(Protocol):
    """One graph, ready to run; safe to call from several threads at once."""

    def __call__(self, tensors: Tensors) -> dict[str, NDArray[Any]]:
        """All outputs of the graph by name."""


class Engine(Protocol):
    """Opens the graphs of verified models.

    Attributes:
        name: such as "onnxruntime 1.31.1".
        provider: what the last opened graph really runs on, such as "CPUExecutionProvider".
        concurrency: calls that may usefully run at once.
        threads: threads of one call.
    """

    name: str
    provider: str
    concurrency: int
    threads: int

    def open(self, stored: StoredModel, file: str) -> Runner:
        """Load one graph file of a model, such as "model.onnx".

        Raises:
            RepositoryError: the file must not, or cannot, be loaded.
        """
