"""How far two answers are apart, structure by structure, as a fraction of what they say.

A structure's answer may be near zero, where a fraction means nothing: an energy or virial counts as at least 0.5 eV per
atom, an atomic energy as 1 eV and a force as 1 eV/angstrom.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.card import Check
from training.gate.engines import Arrays

PARITY: Final[Mapping[str, float]] = {
    "energy": 1e-5,
    "forces": 5e-5,
    "virial": 2e-5,
    "atomic_energy": 5e-6,
    "member_forces": 5e-5,
    "member_virial": 2e-5,
}
_EV_PER_ATOM: Final = 0.5
_FLOOR: Final = 1.0


def deviations(got: Arrays, expected: Arrays, structure: NDArray[np.int64]) -> dict[str, float]:
    """Largest deviation of each tensor in `expected` over the structures of a batch; infinite where not a number.

    Args:
        got: output tensors of the `potential` signature.
        expected: likewise; what it does not hold is not compared.
        structure: int64 [N], which structure an atom belongs to.
    """
    return {name: _deviation(name, got.get(name), value, structure) for name, value in expected.items()}


def worst(found: Iterable[tuple[str, Mapping[str, float]]]) -> dict[str, tuple[float, str]]:
    """The largest deviation of each tensor over labelled batches, and the batch's label."""
    largest: dict[str, tuple[float, str]] = {}
    for label, each in found:
        for name, value in each.items():
            if name not in largest or value > largest[name][0]:
                largest[name] = (value, label)
    return largest


def agreement(
    name: str, found: Iterable[tuple[str, Mapping[str, float]]], bounds: Mapping[str, float] = PARITY
) -> list[Check]:
    """One check per tensor: the worst deviation over labelled batches against its bound."""
    return [
        Check(
            name=f"{name}: {tensor.replace('_', ' ')}", measured=value, bound=bounds[tensor], unit="relative", detail=at
        )
        for tensor, (value, at) in worst(found).items()
    ]


def differing(got: Arrays, expected: Arrays) -> int:
    """How many numbers are not bitwise the same; not a number equals itself."""
    return sum(int((~_same(got[name], value)).sum()) for name, value in expected.items())


def count(name: str, faults: Iterable[str], unit: str) -> Check:
    """A check that nothing of a kind is there; the first faults are named."""
    listed = list(faults)
    return Check(name=name, measured=float(len(listed)), bound=0.0, unit=unit, detail=", ".join(listed[:5]))


def _same(a: NDArray[np.generic], b: NDArray[np.generic]) -> NDArray[np.bool_]:
    return np.asarray((a == b) | (np.isnan(a) & np.isnan(b)))


def _deviation(
    name: str, got: NDArray[np.generic] | None, expected: NDArray[np.generic], structure: NDArray[np.int64]
) -> float:
    if got is None or got.shape != expected.shape:
        return np.inf
    scale = _SCALES[name](np.abs(expected.astype(np.float64)), structure)
    largest = float((np.abs(got.astype(np.float64) - expected.astype(np.float64)) / scale).max())
    return largest if np.isfinite(largest) else np.inf


def _per_atom(size: NDArray[np.float64], structure: NDArray[np.int64]) -> NDArray[np.float64]:
    """Energies [M, B]: the energy itself."""
    return np.asarray(np.maximum(size, _EV_PER_ATOM * np.bincount(structure)))


def _virial(size: NDArray[np.float64], structure: NDArray[np.int64]) -> NDArray[np.float64]:
    """[B, 3, 3]: the largest component of the structure."""
    return np.asarray(np.maximum(size.max(axis=(1, 2)), _EV_PER_ATOM * np.bincount(structure))[:, None, None])


def _largest_atom(size: NDArray[np.float64], structure: NDArray[np.int64]) -> NDArray[np.float64]:
    """Atoms [N, ...]: the largest value of the structure."""
    largest = np.full(int(structure.max()) + 1, _FLOOR)
    np.maximum.at(largest, structure, size.reshape(len(size), -1).max(axis=1))
    return largest[structure].reshape(-1, *[1] * (size.ndim - 1))


def _largest_atom_of_members(size: NDArray[np.float64], structure: NDArray[np.int64]) -> NDArray[np.float64]:
    """Members and atoms [M, N, ...]: the largest value of the structure in that member."""
    return np.stack([_largest_atom(each, structure) for each in size])


def _virial_of_members(size: NDArray[np.float64], structure: NDArray[np.int64]) -> NDArray[np.float64]:
    """[M, B, 3, 3]: the largest component of the structure in that member."""
    return np.stack([np.broadcast_to(_virial(each, structure), each.shape) for each in size])


_SCALES: Final[dict[str, Callable[[NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]]]] = {
    "energy": _per_atom,
    "virial": _virial,
    "forces": _largest_atom,
    "atomic_energy": _largest_atom_of_members,
    "member_forces": _largest_atom_of_members,
    "member_virial": _virial_of_members,
}
