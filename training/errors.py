"""What stops a training command. Errors of the data, of imports and of the gate have rooms of their own."""

import math

from contract.errors import UnderstudyError


class NotReady(UnderstudyError):
    """A run that is not there, or that cannot be published as it stands."""


class Diverged(UnderstudyError):
    """A loss that is no finite number: nothing that is trained from here on is worth anything."""


def require_finite(*losses: float, during: str) -> None:
    """Stop a training that has left the finite numbers.

    Args:
        losses: of training and validation.
        during: what is trained, and how far it is.

    Raises:
        Diverged: one of the losses is not finite.
    """
    if not all(map(math.isfinite, losses)):
        raise Diverged(
            f"{during}: the loss is {' and '.join(format(loss, 'g') for loss in losses)}. Lower fit.learning_rate or "
            "fit.gradient_clip and begin again with an empty folder; look for labels that are far too large."
        )
