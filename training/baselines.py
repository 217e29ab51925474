"""What a trained model must be better than to be of any use."""

import numpy as np
from numpy.typing import NDArray

from contract.card import Comparison
from training.batches import reference_energies
from training.data.strata import strata_of
from training.evaluation import Strata, force_metrics_by_stratum, metrics_by_stratum
from training.pipelines.preparation import Prepared

MEAN_PREDICTOR = "mean predictor"


def mean_predictor(prepared: Prepared) -> Comparison:
    """Errors, on the test part, of what needs no network: the energy expected of the composition, and no forces.

    Where all frames have one composition that is the mean energy of the training part.
    """
    test = prepared.part("test")
    error = reference_energies(test, prepared.references) - test.energy
    return mean_predictor_of(error, test.forces, test.sizes, strata_of(test))


def mean_predictor_of(
    error: NDArray[np.float64], forces: NDArray[np.float64] | None, sizes: NDArray[np.int64], strata: Strata
) -> Comparison:
    """The same from the energies themselves.

    Args:
        error: eV [n], atomic references minus reference energy.
        forces: eV/angstrom [A, 3], or None where the data have none.
        sizes: atoms of each frame [n].
        strata: masks [n] by name.
    """
    metrics = metrics_by_stratum(error, strata)
    if forces is not None:
        metrics += force_metrics_by_stratum(forces, sizes, strata)
    notes = "Atomic references fitted on the training part, the mean energy for one composition; forces are zero."
    return Comparison(name=MEAN_PREDICTOR, metrics=metrics, notes=notes)
