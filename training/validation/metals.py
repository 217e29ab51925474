"""Properties of an fcc metal from any ASE calculator: a model and the reference that labelled it, compared alike.

Energies in eV, lengths in angstrom, moduli in GPa, surface energies in J/m^2. Strains are small and central, and ions
relax.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from ase import units
from ase.build import bulk, fcc100, fcc111
from ase.filters import FrechetCellFilter
from ase.md.langevin import Langevin
from ase.optimize import BFGS
from numpy.typing import NDArray

from contract.units import EV_PER_ANGSTROM3_GPA

GPA: Final = EV_PER_ANGSTROM3_GPA
J_PER_M2: Final = 16.021766208
STRAIN: Final = 0.004
FORCE: Final = 2e-3
_STEPS: Final = 300

MakeCalculator = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class FccProperties:
    """One value each; NaN where a relaxation did not come to rest."""

    lattice_constant: float
    bulk_modulus: float
    c11: float
    c12: float
    c44: float
    vacancy: float
    surface_100: float
    surface_111: float
    hcp_minus_fcc: float
    bcc_minus_fcc: float

    def as_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


def fcc_properties(symbol: str, guess: float, calculator: MakeCalculator) -> FccProperties:
    """Every property of an fcc metal.

    Args:
        symbol: of the element.
        guess: of the lattice constant, angstrom.
        calculator: makes an ASE calculator with stresses.
    """
    cube = _relaxed_cell(bulk(symbol, "fcc", a=guess, cubic=True), calculator)
    a0 = float(cube.cell.lengths().mean())
    per_atom = _energy(cube) / len(cube)
    c11, c12, c44 = _elastic(bulk(symbol, "fcc", a=a0, cubic=True), calculator)
    return FccProperties(
        lattice_constant=a0,
        bulk_modulus=(c11 + 2.0 * c12) / 3.0,
        c11=c11,
        c12=c12,
        c44=c44,
        vacancy=_vacancy(symbol, a0, per_atom, calculator),
        surface_100=_surface(_slab(fcc100, symbol, a0), per_atom, calculator),
        surface_111=_surface(_slab(fcc111, symbol, a0), per_atom, calculator),
        hcp_minus_fcc=_phase(bulk(symbol, "hcp", a=a0 / np.sqrt(2.0)), per_atom, calculator),
        bcc_minus_fcc=_phase(bulk(symbol, "bcc", a=a0 * 0.8), per_atom, calculator),
    )


def cold_curve(symbol: str, lattice_constants: NDArray[np.float64], calculator: MakeCalculator) -> NDArray[np.float64]:
    """Energy an atom of perfect fcc, eV, at each lattice constant."""
    energies = []
    for a in lattice_constants:
        atoms = _with(bulk(symbol, "fcc", a=float(a)), calculator)
        energies.append(_energy(atoms) / len(atoms))
    return np.array(energies)


def melt_rdf(
    symbol: str,
    lattice_constant: float,
    calculator: MakeCalculator,
    *,
    kelvin: float = 1200.0,
    repeat: int = 3,
    melt_steps: int = 1500,
    steps: int = 3000,
    seed: int = 0,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Radial distribution of the melt, r (angstrom) and g(r), at the volume given by the lattice constant.

    The crystal is shaken and driven at three times the temperature first, in NVT, steps of 2 fs.
    """
    atoms = _with(_fcc(symbol, lattice_constant, repeat), calculator)
    rng = np.random.default_rng(seed)
    atoms.rattle(0.3, rng=rng)
    _dynamics(atoms, 3.0 * kelvin, rng).run(melt_steps)
    half = float(atoms.cell.lengths().min()) / 2.0
    edges = np.linspace(0.0, half, 90)
    counts = np.zeros(len(edges) - 1)
    dynamics, frames = _dynamics(atoms, kelvin, rng), 0
    dynamics.run(melt_steps)
    for _ in range(steps // 25):
        dynamics.run(25)
        distances = atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)]
        counts += np.histogram(distances, edges)[0]
        frames += 1
    shell = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    expected = 0.5 * len(atoms) * (len(atoms) - 1) * shell / atoms.get_volume()
    return (edges[1:] + edges[:-1]) / 2.0, counts / (frames * expected)


def _dynamics(atoms: Any, kelvin: float, rng: np.random.Generator) -> Any:
    dynamics: Any = Langevin
    return dynamics(atoms, 2.0 * units.fs, temperature_K=kelvin, friction=0.01 / units.fs, rng=rng, fixcm=False)


def _with(atoms: Any, calculator: MakeCalculator) -> Any:
    atoms.calc = calculator()
    return atoms


def _fcc(symbol: str, a0: float, repeat: int) -> Any:
    atoms: Any = bulk(symbol, "fcc", a=a0, cubic=True)
    return atoms.repeat(repeat)


def _slab(make: Any, symbol: str, a0: float) -> Any:
    return make(symbol, (2, 2, 7), a=a0, vacuum=8.0)


def _energy(atoms: Any) -> float:
    return float(atoms.get_potential_energy())


def _relaxed(atoms: Any) -> bool:
    optimiser: Any = BFGS
    return bool(optimiser(atoms, logfile=None).run(fmax=FORCE, steps=_STEPS))


def _relaxed_cell(atoms: Any, calculator: MakeCalculator) -> Any:
    atoms = _with(atoms, calculator)
    filtered: Any = FrechetCellFilter
    _relaxed(filtered(atoms))
    return atoms


def _elastic(cube: Any, calculator: MakeCalculator) -> tuple[float, float, float]:
    """C11, C12 and C44 by central differences of the stress, GPa."""

    def stress(strain: NDArray[np.float64]) -> NDArray[np.float64]:
        atoms = cube.copy()
        atoms.set_cell(cube.cell.array @ (np.eye(3) + strain), scale_atoms=True)
        atoms = _with(atoms, calculator)
        _relaxed(atoms)
        return np.asarray(atoms.get_stress())

    stretch, shear = np.zeros((3, 3)), np.zeros((3, 3))
    stretch[0, 0] = STRAIN
    shear[1, 2] = shear[2, 1] = STRAIN / 2.0
    along = (stress(stretch) - stress(-stretch)) / (2.0 * STRAIN) * GPA
    across = (stress(shear) - stress(-shear)) / (2.0 * STRAIN) * GPA
    return float(along[0]), float((along[1] + along[2]) / 2.0), float(across[3])


def _vacancy(symbol: str, a0: float, per_atom: float, calculator: MakeCalculator) -> float:
    """E(N - 1) - (N - 1) / N E(N), relaxed."""
    atoms = _fcc(symbol, a0, 3)
    del atoms[0]
    atoms = _with(atoms, calculator)
    return _energy(atoms) - len(atoms) * per_atom if _relaxed(atoms) else float("nan")


def _surface(slab: Any, per_atom: float, calculator: MakeCalculator) -> float:
    """Energy of the two faces of a slab, J/m^2."""
    slab.pbc = True
    atoms = _with(slab, calculator)
    if not _relaxed(atoms):
        return float("nan")
    area = float(np.linalg.norm(np.cross(atoms.cell[0], atoms.cell[1])))
    return (_energy(atoms) - len(atoms) * per_atom) / (2.0 * area) * J_PER_M2


def _phase(atoms: Any, per_atom: float, calculator: MakeCalculator) -> float:
    """Energy an atom above fcc, cell relaxed, eV."""
    atoms = _relaxed_cell(atoms, calculator)
    return _energy(atoms) / len(atoms) - per_atom
