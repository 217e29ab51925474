"""Learning rates: the plateau schedule of HIP-NN's authors, and a cosine for a fixed number of epochs.

While the batch may still grow, a plateau multiplies it by 1/factor; afterwards a plateau multiplies the rate by the
factor (lanl/hippynn 0.1.3). Plain state in, plain state out, so that a checkpoint can hold it.
"""

import math
from dataclasses import dataclass, replace

RELATIVE_THRESHOLD = 1e-4


@dataclass(frozen=True, slots=True)
class Plateau:
    """State of the schedule after an epoch.

    Attributes:
        batch_size: configurations a step.
        learning_rate: of Adam.
        best: lowest validation value so far, at epoch `best_epoch`.
        reference: the value that an improvement is measured against.
        bored: epochs since the last improvement or change.
    """

    batch_size: int
    learning_rate: float
    best: float = math.inf
    best_epoch: int = -1
    reference: float = math.inf
    bored: int = 0

    def after(self, epoch: int, value: float, *, max_batch_size: int, factor: float, patience: int) -> "Plateau":
        """The state after an epoch with this validation value."""
        state = replace(self, best=value, best_epoch=epoch) if value < self.best else self
        if value < state.reference * (1.0 - RELATIVE_THRESHOLD):
            return replace(state, reference=value, bored=0)
        if state.bored < patience:
            return replace(state, bored=state.bored + 1)
        if state.batch_size < max_batch_size:
            return replace(state, batch_size=min(int(state.batch_size / factor), max_batch_size), bored=0)
        return replace(state, learning_rate=state.learning_rate * factor, bored=0)


def cosine(epoch: int, epochs: int, learning_rate: float, floor: float = 0.01) -> float:
    """The rate of an epoch: up in the first twentieth, then down a cosine to `floor` of the highest rate."""
    rise = max(1, epochs // 20)
    if epoch < rise:
        return learning_rate * (epoch + 1) / (rise + 1)
    progress = (epoch - rise) / max(1, epochs - 1 - rise)
    return learning_rate * (floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * progress)))
