"""Single frames whose labels cannot be right, in files that are sound as a whole: the frames of checks.py's findings.

Energies by composition: E = sum of atomic references + what the geometry adds; the references are fitted by least
absolute deviations, which a few wrong frames do not move. Forces and energies by neighbours: between close frames

    E_j - E_i = -(F_i + F_j) dr / 2

If frame i's forces are c times what they should be, all of its pairs say so with the same c; if its energy is off by d,
all say d. Whom a wrong neighbour makes suspicious is cleared by the others.
"""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.data.dataset import Dataset
from training.data.force_agreement import Pairs, close_frames

FARTHEST_EV_PER_ATOM: Final = 10.0
"""More than any bond costs: diamond has 7.4 eV an atom, N2 4.9."""
FACTOR: Final = 3.0
"""Anharmonic frames far apart may look off by 2: to stop a training takes better grounds."""
OFFSET_EV: Final = 0.1
ANHARMONIC: Final = 0.2
"""Error of the rule as a share of what a harmonic way adds to the energy: that of Morse's potential at 0.2 angstrom."""
_NEIGHBOURS: Final = 4
_FEWEST_PAIRS: Final = 4
_FEWEST_CLEARED: Final = 2
_EXPLAINED: Final = 0.1
_ROUNDS: Final = 30
_SMALLEST: Final = 1e-3
_TINY: Final = 1e-30

Array = NDArray[np.float64]


def beyond_binding(dataset: Dataset) -> tuple[NDArray[np.bool_], Array]:
    """Frames [n] whose energy is farther from that of their composition than any binding, and E / E of composition."""
    counts = dataset.element_counts()[1].astype(np.float64)
    usual = counts @ _least_absolute(counts, dataset.energy)
    far = np.abs(dataset.energy - usual) > FARTHEST_EV_PER_ATOM * dataset.sizes
    return np.asarray(far), np.divide(dataset.energy, usual, out=np.full(len(dataset), np.nan), where=usual != 0.0)


def contradicted_forces(dataset: Dataset) -> tuple[NDArray[np.bool_], Array]:
    """Frames [n] whose forces are another multiple of the energy's gradient than their neighbours', and which one.

    A frame is judged by at least four pairs; data whose frames are far from each other have none that could be.
    """
    pairs = close_frames(dataset, _NEIGHBOURS)
    own = np.concatenate([pairs.along_first, pairs.along_second])
    others = np.concatenate([pairs.along_second, pairs.along_first])
    harmonic = np.tile(pairs.energy, 2) + others
    wanted = -(harmonic + np.tile(pairs.energy, 2))
    odd, factor = _odd(pairs, len(dataset), wanted, own, 1.0, lambda c: (c < 0.0) | (_log(c) > np.log(FACTOR)))
    return odd & _beyond_doubt(pairs, len(dataset), wanted - own, 2.0 * ANHARMONIC * harmonic), factor


def contradicted_energies(dataset: Dataset) -> tuple[NDArray[np.bool_], Array]:
    """Frames [n] whose energy is off what their neighbours' energies and the forces between say, and by what, eV."""
    pairs = close_frames(dataset, _NEIGHBOURS)
    rest = pairs.energy - pairs.work
    found = np.concatenate([-rest, rest])
    odd, offset = _odd(pairs, len(dataset), found, np.ones_like(found), 0.0, lambda d: np.abs(d) > OFFSET_EV)
    harmonic = np.tile(0.5 * (pairs.along_second - pairs.along_first), 2)
    return odd & _beyond_doubt(pairs, len(dataset), found, ANHARMONIC * harmonic), offset


def _beyond_doubt(pairs: Pairs, count: int, difference: Array, doubt: Array) -> NDArray[np.bool_]:
    """Frames [n] whose pairs differ by more in all than anharmonic bonds let them; both [2 p]."""
    judged = np.concatenate([pairs.first, pairs.second])
    return np.asarray(np.bincount(judged, np.abs(difference) - np.abs(doubt), count) > 0.0)


def _odd(
    pairs: Pairs, count: int, found: Array, per_unit: Array, sound: float, is_odd: Callable[[Array], NDArray[np.bool_]]
) -> tuple[NDArray[np.bool_], Array]:
    """Frames whose pairs agree on another number than the sound one.

    Args:
        pairs: p of them.
        count: frames.
        found: what each pair says of its first frame, then of its second, [2 p].
        per_unit: what it would say if the number were 1, [2 p].
        sound: the number of a frame that is in order.
        is_odd: whether numbers [n] are not.
    """
    judged = np.concatenate([pairs.first, pairs.second])
    partner = np.concatenate([pairs.second, pairs.first])

    def suspicious(kept: NDArray[np.bool_], fewest: int) -> tuple[NDArray[np.bool_], Array]:
        def summed(values: Array) -> Array:
            return np.asarray(np.bincount(judged[kept], values[kept], count), np.float64)

        square, product = summed(per_unit**2), summed(per_unit * found)
        number = product / np.maximum(square, _TINY)
        if_odd = summed(found**2) - number * product
        if_sound = if_odd + square * (number - sound) ** 2
        enough = np.bincount(judged[kept], minlength=count) >= fewest
        return enough & is_odd(number) & (if_odd < _EXPLAINED * if_sound), number

    odd, number = suspicious(np.ones(len(judged), bool), _FEWEST_PAIRS)
    again, _ = suspicious(~odd[partner], _FEWEST_CLEARED)
    return odd & again, number


def _least_absolute(counts: Array, energy: Array) -> Array:
    """References [s] that minimise sum |E - counts @ references|, by reweighted least squares."""
    weight = np.ones(len(energy))
    references: Array = np.zeros(counts.shape[1])
    for _ in range(_ROUNDS):
        root = np.sqrt(weight)
        references = np.asarray(np.linalg.lstsq(counts * root[:, None], energy * root, rcond=1e-10)[0], np.float64)
        weight = 1.0 / np.maximum(np.abs(energy - counts @ references), _SMALLEST)
    return references


def _log(factor: Array) -> Array:
    """Size of the logarithm of a factor, whatever its sign."""
    return np.asarray(np.abs(np.log(np.maximum(np.abs(factor), _TINY))))
