"""The `data` section of a training configuration, and the data set it stands for."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from training.data.ani_hdf5 import AniKeys, ForcesAre, read_ani_hdf5
from training.data.checks import require_sound
from training.data.dataset import Dataset
from training.data.errors import DataError, UnreadableData
from training.data.extxyz import EnergyUnit, ExtxyzKeys, read_extxyz
from training.data.fetch import fetch, public_data
from training.data.provenance import Provenance
from training.data.qm22 import EnergyZero, read_qm22

PositiveEV = Annotated[float, Field(gt=0)]


class FileSpec(BaseModel):
    """One file: a public one by name, or one's own by path together with its provenance."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str
    fetch: str | None = Field(None, description="name of a public data set, see `understudy data list`")
    path: Path | None = Field(None, description="file of your own, relative to the working folder")
    provenance: Provenance | None = Field(None, description="required with `path`: no file says this of itself")
    max_energy_ev: PositiveEV | Literal["recommended"] | None = Field(
        None, description="leave out frames higher than this; `recommended` takes the public data set's"
    )
    accept: tuple[str, ...] = Field((), description="codes of findings that you have looked at and accept")

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.fetch is None) == (self.path is None):
            raise ValueError("give either `fetch` (a public data set) or `path` (a file of your own)")
        if self.path is not None and self.provenance is None:
            raise ValueError("`path` needs `provenance`: name, origin, licence, level_of_theory and citation")
        if self.path is not None and self.max_energy_ev == "recommended":
            raise ValueError("max_energy_ev: `recommended` is known for public data sets only; give eV")
        if self.fetch is not None:
            self._check_public(self.fetch)
        return self

    def _check_public(self, name: str) -> None:
        if self.provenance is not None:
            raise ValueError("`provenance` of a public data set is known; leave it out")
        try:
            known = public_data(name).format
        except DataError as error:
            raise ValueError(str(error)) from None
        if known != self.format:
            raise ValueError(f"{name} has format {known}, not {self.format}")

    def file(self, cache: Path | None = None) -> Path:
        """The file on this machine, fetched if it is public and not here yet."""
        if self.fetch is not None:
            return fetch(self.fetch, cache)
        path = self.path or Path()
        if not path.is_file():
            raise UnreadableData(f"{path} is not a file. Relative paths start at the working folder, {Path.cwd()}.")
        return path

    def declared(self) -> Provenance:
        """Provenance as written here or known of the public data set."""
        return self.provenance or public_data(str(self.fetch)).provenance

    def limit_ev(self) -> float | None:
        """The energy cut in eV, None for none."""
        if self.max_energy_ev == "recommended":
            return public_data(str(self.fetch)).recommended_max_energy_ev
        return self.max_energy_ev


class QM22Spec(FileSpec):
    """A molecule of QM-22, or an .npz of the same arrays."""

    format: Literal["qm22"]
    energy_zero: EnergyZero | None = Field(
        None, description="required with `path`: total energies, or relative to zero"
    )

    @model_validator(mode="after")
    def _zero_known(self) -> Self:
        if (self.path is not None) != (self.energy_zero is not None):
            raise ValueError("give `energy_zero` (total or relative) with `path`, and only then")
        return self

    def read(self, path: Path) -> Dataset:
        """The data set in that file."""
        zero = self.energy_zero or public_data(str(self.fetch)).energy_zero
        return read_qm22(path, self.declared(), zero, self.limit_ev())


class ExtxyzSpec(FileSpec):
    """Extended xyz."""

    format: Literal["extxyz"]
    keys: ExtxyzKeys = ExtxyzKeys()
    energy_unit: EnergyUnit = Field("eV", description="forces are in this unit per angstrom")

    def read(self, path: Path) -> Dataset:
        """The data set in that file."""
        return read_extxyz(path, self.declared(), self.keys, self.energy_unit, self.limit_ev())


class AniHdf5Spec(FileSpec):
    """ANI-1x or COMP6 HDF5, one group a molecule."""

    format: Literal["ani_hdf5"]
    keys: AniKeys = AniKeys()
    forces_are: ForcesAre = "measured"

    def read(self, path: Path) -> Dataset:
        """The data set in that file."""
        return read_ani_hdf5(path, self.declared(), self.keys, self.forces_are, self.limit_ev())


DataSpec = Annotated[QM22Spec | ExtxyzSpec | AniHdf5Spec, Field(discriminator="format")]


def load(spec: QM22Spec | ExtxyzSpec | AniHdf5Spec, cache: Path | None = None) -> Dataset:
    """Find, read, cut and check a data set.

    Args:
        spec: the `data` section of a training configuration.
        cache: folder of fetched files; default $UNDERSTUDY_DATA, else the user's cache folder.

    Raises:
        FetchError: a public file that is neither here nor downloadable; says what to put where.
        UnreadableData: a file that is not in its format.
        UnsoundData: labels that must not be trained on, naming the frames.
    """
    dataset = spec.read(spec.file(cache))
    require_sound(dataset, spec.accept)
    return dataset
