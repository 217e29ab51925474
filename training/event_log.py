"""Scalars for TensorBoard (`tensorboard --logdir runs`), beside the curves that every report holds."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from training.extras import MissingPackage


@contextmanager
def event_log(folder: Path, first_step: int) -> Iterator[Callable[[int, Mapping[str, float]], None]]:
    """What writes scalars by name at a step.

    Args:
        folder: of the event files.
        first_step: what an interrupted run had logged from this step on is hidden.

    Raises:
        MissingPackage: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        raise MissingPackage("tensorboard") from None
    writer = SummaryWriter(folder, purge_step=first_step)

    def log(step: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    try:
        yield log
    finally:
        writer.close()
