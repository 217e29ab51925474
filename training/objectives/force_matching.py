"""Force matching: the mean square error of forces, when forces are all that is known.

    L = mean over components of  w_b |F - F_hat|^2,    w_b = 1 / Var(F) of the state that frame b is of

The mapped forces of a coarse-grained frame scatter about the mean force of its beads, as the atoms that are left out
do. It is the mean square that is smallest at the mean force, so no mean absolute error joins it here; it ends at the
variance of that scatter, not at zero. In units of the variance it is 1 - R^2.
"""

from dataclasses import dataclass

from torch import Tensor

from training.networks.hipnn import Batch, HipNN
from training.objectives.losses import Labels, Objective


@dataclass(frozen=True)
class ForceMatching:
    """Forces alone, through the network's own adjoint; one member at a time. There is no energy to learn from."""

    def __call__(self, network: HipNN, batch: Batch, labels: Labels) -> Objective:
        """The objective of a batch; labels need forces, their energies are not looked at."""
        if labels.forces is None:
            raise ValueError("force matching needs forces; the data have none")
        if network.config.members != 1:
            raise ValueError("force matching trains one member at a time")
        square = (network.evaluate(batch).forces - labels.forces).square().mean(dim=1)
        loss = (square * _of_atoms(labels.weight, batch, square)).mean()
        return Objective(loss, {"forces": loss.item()})


def _of_atoms(weight: Tensor | None, batch: Batch, like: Tensor) -> Tensor:
    return like.new_ones(1) if weight is None else weight[0, batch.structure]
