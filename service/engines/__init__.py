"""What runs the graphs. An engine knows tensors and nothing of chemistry."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from contract.errors import UnderstudyError
from contract.repository import StoredModel

Tensors: TypeAlias = Mapping[str, NDArray[Any]]


class Stop:
    """Tells a running call, from another thread, that nobody waits for it any more.

    Attributes:
        asked: it was told.
    """

    __slots__ = ("_how", "asked")

    def __init__(self) -> None:
        self.asked = False
        self._how: Callable[[], None] | None = None

    def ask(self) -> None:
        """Stop the call, if it can be stopped; it may as well run to its end."""
        self.asked = True
        if self._how is not None:
            self._how()

    def by(self, how: Callable[[], None]) -> None:
        """A runner says how its call is stopped; at once, if that was asked for before."""
        self._how = how
        if self.asked:
            how()


class Runner(Protocol):
    """One graph, ready to run; safe to call from several threads at once."""

    def __call__(self, tensors: Tensors, stop: Stop | None = None) -> dict[str, NDArray[Any]]:
        """All outputs of the graph by name.

        Args:
            tensors: the inputs by name.
            stop: while it runs the call may be told to stop; it then raises whatever the engine raises. A runner that
                cannot be stopped leaves this alone.
        """


@dataclass(frozen=True, slots=True)
class Description:
    """What runs the graphs.

    Attributes:
        engine: such as "onnxruntime".
        version: of that engine.
        device: what the last opened graph really runs on, such as "cpu" or "cuda".
    """

    engine: str
    version: str
    device: str

    def __str__(self) -> str:
        return f"{self.engine} {self.version} on {self.device}"


class Engine(Protocol):
    """Opens the graphs of verified models.

    Attributes:
        concurrency: calls that run at once.
    """

    concurrency: int

    @property
    def description(self) -> Description:
        """Name, version and device, for people and receipts."""

    def opens(self, stored: StoredModel, file: str) -> bool:
        """Whether a model has this graph in a form that the engine runs."""

    def open(self, stored: StoredModel, file: str) -> Runner:
        """Make one graph of a model ready, by the name of its ONNX file, such as "model.onnx".

        Raises:
            RepositoryError: the file must not, or cannot, be loaded.
            EngineUnavailable: what the settings ask for is not there.
        """

    def is_there(self) -> bool:
        """Whether a call made now would find somebody to run it."""

    def close(self) -> None:
        """Let go of what the engine holds; its runners must not be called any more."""


class EngineUnavailable(UnderstudyError):
    """The engine or device that the settings name cannot be had here; says what to do."""
