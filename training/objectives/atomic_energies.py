"""Energies, forces, and a teacher's atomic energies: the loss of a light student.

Matin et al., Digital Discovery (2025), doi:10.1039/D5DD00085H. Only sums of atomic energies can be observed, so how a
teacher shares its energy among atoms is knowledge that labels do not hold: N more numbers of each configuration, and no
second derivative. Student and teacher must subtract the same atomic references.
"""

from dataclasses import dataclass

from training.networks.hipnn import Batch, HipNN
from training.objectives.forces import plus_virial
from training.objectives.losses import Labels, Objective, rmse_plus_mae


@dataclass(frozen=True)
class AtomicEnergyObjective:
    """RMSE + MAE of energies, force components (eV/angstrom), atomic energies and virials (eV) of a single network.

    Args:
        energy_weight, force_weight, atomic_weight: dimensionless; an atomic weight of 0 asks for no teacher.
        virial_weight: of the components of dE/dstrain; 0 where the data have no stress.
    """

    energy_weight: float = 1.0
    force_weight: float = 1.0
    atomic_weight: float = 1.0
    virial_weight: float = 0.0

    def __call__(self, network: HipNN, batch: Batch, labels: Labels) -> Objective:
        """The objective of a batch; labels need forces, and atomic energies if they are weighed.

        Raises:
            ValueError: they lack them, or the network has several members.
        """
        if labels.forces is None or network.config.members != 1:
            raise ValueError("this objective trains one member at a time, on data with forces")
        answer = network.evaluate(batch)
        each = None if labels.weight is None else labels.weight[:, batch.structure]
        thrice = None if each is None else each.repeat_interleave(3, dim=1)
        on_energy = rmse_plus_mae(answer.energy - labels.energy, labels.weight)
        on_forces = rmse_plus_mae((answer.forces - labels.forces).unsqueeze(0).flatten(1), thrice)
        total = self.energy_weight * on_energy + self.force_weight * on_forces
        terms = {"energy": on_energy.item(), "forces": on_forces.item()}
        if self.atomic_weight:
            if labels.atomic_energy is None:
                raise ValueError("atomic_weight is set, but nobody gave atomic energies; set it to 0 or name a teacher")
            on_atoms = rmse_plus_mae(answer.atomic_energy - labels.atomic_energy, each)
            total, terms["atomic energies"] = total + self.atomic_weight * on_atoms, on_atoms.item()
        found = Objective(total, terms)
        return found if not self.virial_weight else plus_virial(found, self.virial_weight, answer.virial, labels)
