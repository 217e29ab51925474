"""Energies and uncertainties of many structures in one call; the gateway batches them.

python examples/many_structures.py [model]
"""

import os
import sys
from pathlib import Path

import numpy as np
from ase.io import read
from understudy import Client

URL = os.environ.get("UNDERSTUDY_URL", "http://127.0.0.1:8000")


def main(model: str) -> None:
    molecule = read(Path(__file__).with_name("malonaldehyde.xyz"))
    generator = np.random.default_rng(0)
    frames = []
    for displacement in np.linspace(0.0, 0.25, 6):
        frame = molecule.copy()
        frame.positions += displacement * generator.normal(size=frame.positions.shape)
        frames.append(frame)
    with Client(URL) as client:
        answers = client.predict(model, frames)
    print("rms displacement   energy      committee std   in domain")
    for displacement, answer in zip(np.linspace(0.0, 0.25, 6), answers, strict=True):
        spread, inside = answer.energy_std, answer.domain.in_domain
        print(f"{displacement:8.2f} angstrom {answer.energy:9.3f} eV {spread:10.3f} eV   {inside}")
        for reason in answer.domain.reasons:
            print(f"    {reason}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "malonaldehyde")
