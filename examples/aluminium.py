"""Aluminium with every energy, force and stress from the gateway: lattice constant, vacancy, a hot crystal.

make serve                                   # in another terminal
python examples/aluminium.py [model]
"""

import os
import sys

import numpy as np
from ase import units
from ase.build import bulk
from ase.filters import FrechetCellFilter
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from understudy import UnderstudyCalculator

URL = os.environ.get("UNDERSTUDY_URL", "http://127.0.0.1:8000")
STEPS = int(os.environ.get("UNDERSTUDY_EXAMPLE_STEPS", "200"))
TIME_STEP_FS = 2.0
TEMPERATURE_K = 600


def main(model: str) -> None:
    cube = bulk("Al", "fcc", a=4.0, cubic=True)
    cube.calc = UnderstudyCalculator(URL, model)
    BFGS(FrechetCellFilter(cube), logfile=None).run(fmax=0.005, steps=100)
    lattice_constant, per_atom = cube.cell.lengths().mean(), cube.get_potential_energy() / len(cube)
    print(f"crystal   lattice constant {lattice_constant:.3f} angstrom, {per_atom:.3f} eV/atom")

    crystal = bulk("Al", "fcc", a=lattice_constant, cubic=True).repeat(3)
    del crystal[0]
    crystal.calc = UnderstudyCalculator(URL, model)
    BFGS(crystal, logfile=None).run(fmax=0.01, steps=100)
    print(f"vacancy   {crystal.get_potential_energy() - len(crystal) * per_atom:.2f} eV")

    thermalize_momenta(crystal, temperature_K=TEMPERATURE_K, rng=np.random.default_rng(0))
    Stationary(crystal)
    dynamics = VelocityVerlet(crystal, timestep=TIME_STEP_FS * units.fs)
    energies = []
    dynamics.attach(lambda: energies.append(crystal.get_total_energy()), interval=1)
    dynamics.run(STEPS)
    per_atom = 1e3 * (np.max(energies) - np.min(energies)) / len(crystal)
    print(f"dynamics  {STEPS} steps of {TIME_STEP_FS} fs: total energy within {per_atom:.3f} meV/atom")
    print(f"          last frame in the model's domain: {crystal.calc.results['domain'].in_domain}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "aluminium-student")
