"""What a trained model must be better than to be of any use."""

import numpy as np
from numpy.typing import NDArray

from contract.card import Comparison
from training.batches import reference_energies
from training.evaluation import force_metrics, metrics_by_energy
from training.pipelines.preparation import Prepared

MEAN_PREDICTOR = "mean predictor"


def mean_predictor(prepared: Prepared) -> Comparison:
    """Errors, on the test part, of what needs no network: the energy expected of the composition, and no forces.

    Where all frames have one composition that is the mean energy of the training part.
    """
    test = prepared.part("test")
    error = reference_energies(test, prepared.references) - test.energy
    return mean_predictor_of(error, test.energy, test.forces)


def mean_predictor_of(
    error: NDArray[np.float64], energy: NDArray[np.float64], forces: NDArray[np.float64] | None
) -> Comparison:
    """The same from the energies themselves.

    Args:
        error: eV [n], atomic references minus reference energy.
        energy: eV [n], reference energies.
        forces: eV/angstrom [A, 3], or None where the data have none.
    """
    metrics = metrics_by_energy(error, energy)
    if forces is not None:
        metrics += force_metrics(forces, len(energy))
    notes = "Atomic references fitted on the training part, the mean energy for one composition; forces are zero."
    return Comparison(name=MEAN_PREDICTOR, metrics=metrics, notes=notes)
