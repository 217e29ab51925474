"""ANI-1x, ANI-1ccx and COMP6: HDF5 with one group a molecule that holds all its conformers, in hartree and angstrom.

ANI-1x: Smith et al., Sci. Data 7, 134 (2020). COMP6: Smith et al., J. Chem. Phys. 148, 241733 (2018). Files disagree on
the sign of what they call forces, so it is declared or measured from energy differences, never assumed.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from contract.elements import NUMBERS
from contract.units import HARTREE_EV
from training.data.cuts import cut_energy, drop_duplicates, drop_unlabelled
from training.data.dataset import Dataset, flat
from training.data.errors import UnreadableData
from training.data.force_agreement import force_agreement
from training.data.provenance import Provenance

ForcesAre = Literal["forces", "gradient", "measured"]
_COORDINATES: Final = ("coordinates", "positions")
_SPECIES: Final = ("species", "atomic_numbers", "numbers")


class AniKeys(BaseModel):
    """Names of the arrays in a molecule's group; None looks for the usual ones and insists that just one fits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    coordinates: str | None = None
    species: str | None = None
    energy: str | None = None
    forces: str | Literal[False] | None = Field(default=None, description="false: train on energies alone")


@dataclass(frozen=True, slots=True)
class _Names:
    coordinates: str
    species: str
    energy: str
    forces: str | None


@dataclass(frozen=True, slots=True)
class _Molecule:
    """Conformers c of N atoms: numbers [c, N], coordinates and forces [c, N, 3], energy [c], group [c] from 0."""

    numbers: NDArray[np.int64]
    coordinates: NDArray[np.float64]
    energy: NDArray[np.float64]
    forces: NDArray[np.float64] | None
    group: NDArray[np.int64]


def read_ani_hdf5(
    path: Path,
    provenance: Provenance,
    keys: AniKeys | None = None,
    forces_are: ForcesAre = "measured",
    max_energy_ev: float | None = None,
) -> Dataset:
    """Read every molecule; conformers of one molecule are one group, frames without these labels are dropped.

    Args:
        path: HDF5 file.
        provenance: what the file does not say of itself.
        keys: names of the arrays; several levels of theory in one file must be told apart here; default detected.
        forces_are: `forces` (-dE/dr), `gradient` (+dE/dr), or `measured`: from energy differences of close conformers.
        max_energy_ev: conformers higher than this above the lowest of the same molecule are left out; None keeps all.

    Raises:
        UnreadableData: another format, several arrays that could be the energy, a force sign that cannot be measured.
    """
    try:
        with h5py.File(path, "r") as file:
            molecules, names = _read(file, keys or AniKeys(), path)
    except OSError as error:
        raise UnreadableData(f"{path} cannot be read as HDF5: {error}") from None
    dataset = drop_unlabelled(_joined(molecules, provenance, path, names))
    dataset = drop_duplicates(_signed(dataset, forces_are, path))
    return dataset if max_energy_ev is None else cut_energy(dataset, max_energy_ev, "group")


def _read(file: Any, keys: AniKeys, path: Path) -> tuple[list[_Molecule], _Names]:
    groups = list(_groups(file, (keys.coordinates,) if keys.coordinates else _COORDINATES))
    if not groups:
        raise UnreadableData(f"{path} has no group with {keys.coordinates or ' or '.join(_COORDINATES)}.")
    names = _names(groups[0], keys, path)
    return [_molecule(group, names, path) for group in groups], names


def _groups(group: Any, coordinates: tuple[str, ...]) -> Iterator[Any]:
    """Groups that hold coordinates, at any depth, in the order of their names."""
    if any(name in group for name in coordinates):
        yield group
        return
    for child in group.values():
        if isinstance(child, h5py.Group):
            yield from _groups(child, coordinates)


def _names(group: Any, keys: AniKeys, path: Path) -> _Names:
    coordinates = keys.coordinates or next(name for name in _COORDINATES if name in group)
    shape = group[coordinates].shape
    energy = keys.energy or _only(_energy_candidates(group, shape[0]), "energy", group, path)
    forces = keys.forces
    if forces is None:
        forces = _only(_force_candidates(group, shape, energy), "forces", group, path) or False
    species = keys.species or _only([name for name in _SPECIES if name in group][:1], "species", group, path)
    return _Names(coordinates, species, energy, forces or None)


def _energy_candidates(group: Any, conformers: int) -> list[str]:
    plain = [name for name in ("energy", "energies") if name in group]
    found = [name for name, array in group.items() if "energ" in name and array.shape[:1] == (conformers,)]
    return plain or found


def _force_candidates(group: Any, shape: tuple[int, ...], energy: str) -> list[str]:
    """Arrays of the coordinates' shape with such a name; where names carry a level, only those of the energy's."""
    found = [n for n, array in group.items() if ("force" in n or "grad" in n) and array.shape == shape]
    level, dot, _ = energy.rpartition(".")
    return [name for name in found if name.startswith(level + dot)] if dot else found


def _only(candidates: list[str], what: str, group: Any, path: Path) -> str:
    """The single candidate; an empty string for forces that are not there."""
    if len(candidates) == 1:
        return candidates[0]
    if not candidates and what == "forces":
        return ""
    choice = ", ".join(candidates or group)
    raise UnreadableData(
        f"{path}, group {group.name}: {len(candidates)} arrays could be the {what}. Name one in `keys`: {choice}."
    )


def _molecule(group: Any, names: _Names, path: Path) -> _Molecule:
    coordinates = _array(group, names.coordinates, path)
    conformers, atoms = coordinates.shape[:2]
    numbers = _numbers(group[names.species][()], f"{path}, group {group.name}")
    if numbers.shape[-1:] != (atoms,) or coordinates.shape != (conformers, atoms, 3):
        raise UnreadableData(
            f"{path}, group {group.name}: coordinates {list(coordinates.shape)} and species {list(numbers.shape)} do "
            "not belong together; expected [c, N, 3] and [N]."
        )
    rows = np.broadcast_to(numbers, (conformers, atoms))
    return _Molecule(
        numbers=rows,
        coordinates=coordinates,
        energy=_array(group, names.energy, path).reshape(conformers),
        forces=None if names.forces is None else _array(group, names.forces, path),
        group=np.unique(rows, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64),
    )


def _array(group: Any, name: str, path: Path) -> NDArray[np.float64]:
    if name not in group:
        raise UnreadableData(f"{path}, group {group.name} has no array {name!r}; it has {', '.join(group)}.")
    return np.asarray(group[name][()], np.float64)


def _numbers(species: Any, place: str) -> NDArray[np.int64]:
    """Atomic numbers from numbers, or from symbols as text or bytes."""
    array = np.asarray(species)
    if array.dtype.kind in "iu":
        return array.astype(np.int64)
    words = [w.decode("ascii", "replace") if isinstance(w, bytes) else str(w) for w in array.reshape(-1).tolist()]
    unknown = sorted(set(words) - set(NUMBERS))
    if unknown:
        raise UnreadableData(f"{place}: species {', '.join(unknown)} are no chemical symbols.")
    return np.array([NUMBERS[word] for word in words], np.int64).reshape(array.shape)


def _joined(molecules: list[_Molecule], provenance: Provenance, path: Path, names: _Names) -> Dataset:
    """All molecules in one data set, in eV; forces still with the file's sign."""
    starts = np.cumsum([0] + [int(m.group.max(initial=-1)) + 1 for m in molecules])
    counts = [len(m.energy) for m in molecules]
    forces = [m.forces for m in molecules if m.forces is not None]
    labels = f"Labels: {names.energy}" + (f", {names.forces}." if names.forces else ", no forces.")
    return flat(
        numbers=np.concatenate([m.numbers.reshape(-1) for m in molecules]),
        positions=np.concatenate([m.coordinates.reshape(-1, 3) for m in molecules]),
        sizes=np.repeat([m.numbers.shape[1] for m in molecules], counts),
        energy=HARTREE_EV * np.concatenate([m.energy for m in molecules]),
        sources=[provenance.source(path, sum(counts), labels)],
        forces=HARTREE_EV * np.concatenate([f.reshape(-1, 3) for f in forces]) if forces else None,
        groups=np.concatenate([m.group + start for m, start in zip(molecules, starts[:-1], strict=True)]),
    )


def _signed(dataset: Dataset, forces_are: ForcesAre, path: Path) -> Dataset:
    """Forces as -dE/dr, with a note that says how the sign was known."""
    if dataset.forces is None or forces_are == "forces":
        return dataset
    if forces_are == "gradient":
        return replace(dataset, forces=-dataset.forces).noting("The file holds gradients; negated to forces.")
    agreement = force_agreement(dataset)
    if agreement is None or not agreement.conclusive:
        raise UnreadableData(
            f"{path}: the sign of the forces cannot be measured ({agreement or 'too few close conformers'}). Declare "
            "forces_are as `forces` (-dE/dr) or `gradient` (+dE/dr)."
        )
    if agreement.slope > 0:
        return dataset.noting(f"Force sign measured as -dE/dr ({agreement}).")
    return replace(dataset, forces=-dataset.forces).noting(f"Gradients (measured: {agreement}); negated to forces.")
