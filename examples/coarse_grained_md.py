"""Methanol with one bead a molecule: canonical dynamics of beads, with every force from the gateway.

make serve                                   # in another terminal
python examples/coarse_grained_md.py [kelvin] [g/cm3]
"""

import os
import sys

import numpy as np
from ase import Atoms, units
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import thermalize_momenta
from understudy import Client, UnderstudyCalculator

URL = os.environ.get("UNDERSTUDY_URL", "http://127.0.0.1:8000")
STEPS = int(os.environ.get("UNDERSTUDY_EXAMPLE_STEPS", "400"))
MODEL = "methanol-cg"
TIME_STEP_FS = 5.0
G_PER_CM3 = 1.66053907  # one u in a cubic angstrom


def main(kelvin: float, density: float) -> None:
    symbol, bead = next(iter(Client(URL).card(MODEL)["domain"]["beads"].items()))
    atoms = lattice(symbol, bead["mass_u"], density, per_edge=5)
    atoms.calc = UnderstudyCalculator(URL, MODEL)
    rng = np.random.default_rng(0)
    thermalize_momenta(atoms, temperature_K=kelvin, rng=rng)
    dynamics = Langevin(
        atoms, TIME_STEP_FS * units.fs, temperature_K=kelvin, friction=2e-3 / units.fs, rng=rng, fixcm=False
    )
    print(f"{symbol} stands for {bead['stands_for']}")
    dynamics.run(STEPS // 2)
    distances = []
    dynamics.attach(lambda: distances.append(atoms.get_all_distances(mic=True)[np.triu_indices(len(atoms), 1)]), 20)
    dynamics.run(STEPS // 2)
    r, g = radial_distribution(np.array(distances), len(atoms), atoms.get_volume())
    print(f"{len(atoms)} beads, {STEPS} steps of {TIME_STEP_FS:g} fs at {kelvin:g} K and {density:g} g/cm3")
    for near, value in zip(r, g, strict=True):
        print(f"  r {near:4.2f} angstrom   g {value:5.2f}  {'#' * round(20 * value)}")
    domain = atoms.calc.results["domain"]
    print(f"last frame in the model's domain: {domain.in_domain}" + "".join(f"\n  {why}" for why in domain.reasons))


def lattice(symbol: str, mass: float, density: float, per_edge: int) -> Atoms:
    """Beads on a cubic lattice of this density in g/cm^3."""
    length = (per_edge**3 * mass * G_PER_CM3 / density) ** (1 / 3)
    grid = np.stack(np.meshgrid(*[np.arange(per_edge)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    atoms = Atoms([symbol] * len(grid), grid * length / per_edge, cell=length * np.eye(3), pbc=True)
    atoms.set_masses([mass] * len(grid))
    return atoms


def radial_distribution(distances: np.ndarray, beads: int, volume: float) -> tuple[np.ndarray, np.ndarray]:
    """Radii (angstrom) and g(r) from the distances of all pairs, [frames, pairs]."""
    edges = np.linspace(2.6, 8.0, 19)
    shells = 4 / 3 * np.pi * np.diff(edges**3)
    expected = len(distances) * beads * (beads - 1) / 2 * shells / volume
    return (edges[1:] + edges[:-1]) / 2, np.histogram(distances, edges)[0] / expected


if __name__ == "__main__":
    given = [float(value) for value in sys.argv[1:3]]
    main(*(given + [300.0, 0.79][len(given) :]))
