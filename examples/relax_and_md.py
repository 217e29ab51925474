"""Relax malonaldehyde, then run constant-energy dynamics, with every force from the gateway.

make serve                                   # in another terminal
python examples/relax_and_md.py [model]
"""

import os
import sys
from pathlib import Path

import numpy as np
from ase import units
from ase.io import read
from ase.md.velocitydistribution import Stationary, thermalize_momenta
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from understudy import UnderstudyCalculator

URL = os.environ.get("UNDERSTUDY_URL", "http://127.0.0.1:8000")
STEPS = int(os.environ.get("UNDERSTUDY_EXAMPLE_STEPS", "400"))
TIME_STEP_FS = 0.25
TEMPERATURE_K = 300


def main(model: str) -> None:
    atoms = read(Path(__file__).with_name("malonaldehyde.xyz"))
    atoms.calc = UnderstudyCalculator(URL, model)
    BFGS(atoms, logfile=None).run(fmax=0.02, steps=200)
    energy, spread = atoms.get_potential_energy(), atoms.calc.results["energy_std"]
    print(f"relaxed   energy {energy:.4f} eV, committee std {spread:.4f} eV")
    print(f"          largest force {np.abs(atoms.get_forces()).max():.4f} eV/angstrom")

    thermalize_momenta(atoms, temperature_K=TEMPERATURE_K, rng=np.random.default_rng(0))
    Stationary(atoms)
    dynamics = VelocityVerlet(atoms, timestep=TIME_STEP_FS * units.fs)
    energies = []
    dynamics.attach(lambda: energies.append(atoms.get_total_energy()), interval=1)
    dynamics.run(STEPS)
    per_atom = 1e3 * (np.max(energies) - np.min(energies)) / len(atoms)
    print(f"dynamics  {STEPS} steps of {TIME_STEP_FS} fs: total energy within {per_atom:.3f} meV/atom")
    print(f"          last frame in the model's domain: {atoms.calc.results['domain'].in_domain}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "malonaldehyde")
