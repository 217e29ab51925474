"""Labelled frames to judge a model by: files as they are, with what is odd about them said and not refused."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import ase.io
import numpy as np

from training.assessment.errors import NothingToJudge
from training.assessment.judged import Judged
from training.data.ani_hdf5 import AniKeys, ForcesAre, read_ani_hdf5
from training.data.checks import Finding, UnsoundData, inspect
from training.data.dataset import Dataset
from training.data.extxyz import EnergyUnit, read_extxyz
from training.data.provenance import Provenance

HDF5: Final = (".h5", ".hdf5")
_FATAL: Final = ("no_frames", "empty_frames", "not_finite", "singular_cell", "coincident_atoms")


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read; what is not needed for their format is left alone.

    Attributes:
        energy_unit: of extended xyz; forces are in it per angstrom.
        forces_are: of HDF5: `forces` (-dE/dr), `gradient`, or `measured` from energy differences.
        keys: names of the arrays of HDF5.
        by: a key of extended xyz whose values part the frames, such as config_type.
    """

    energy_unit: EnergyUnit = "eV"
    forces_are: ForcesAre = "measured"
    keys: AniKeys | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """One file that was read: its frames, the kind of each (empty without a key), what is odd, what was left out."""

    path: Path
    dataset: Dataset
    kinds: list[str]
    findings: list[Finding]
    unknown: int = 0


def read_labelled(path: Path, how: Reading) -> Labelled:
    """Read extended xyz, or HDF5 with one group a molecule.

    Raises:
        DataError: not in its format, or labels that are no numbers.
    """
    declared = Provenance(name=path.name, origin=str(path), licence="?", level_of_theory="?", citation="?")
    if path.suffix in HDF5:
        dataset, kinds = read_ani_hdf5(path, declared, how.keys, how.forces_are), list[str]()
    else:
        dataset = read_extxyz(path, declared, energy_unit=how.energy_unit)
        kinds = _kinds(path, how.by, dataset)
    findings = inspect(dataset)
    if fatal := [finding for finding in findings if finding.code in _FATAL]:
        raise UnsoundData(fatal)
    return Labelled(path, dataset, kinds, findings)


def answerable(read: Labelled, models: Sequence[Judged]) -> Labelled:
    """The frames of which every model knows the elements.

    Raises:
        NothingToJudge: none.
    """
    known = np.array([all(model.knows(structure) for model in models) for structure in read.dataset])
    if not known.any():
        names = " and ".join(model.name for model in models)
        raise NothingToJudge(f"{read.path}: no frame has only elements that {names} know")
    kinds = [kind for kind, keep in zip(read.kinds, known, strict=True) if keep] if read.kinds else []
    return Labelled(read.path, read.dataset.select(known), kinds, read.findings, int((~known).sum()))


def _kinds(path: Path, by: str | None, dataset: Dataset) -> list[str]:
    """The value of a key of each frame that was kept."""
    if by is None:
        return []
    values = [str(atoms.info.get(by, "none")) for atoms in ase.io.iread(path, index=":", format="extxyz")]
    return [values[i] for i in dataset.frames]
