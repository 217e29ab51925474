"""The torsion of butane in one call: 37 conformers, each with its standard deviation.

python examples/torsion_scan.py [model]
"""

import os
import sys

import numpy as np
from ase.build import molecule
from understudy import Client

URL = os.environ.get("UNDERSTUDY_URL", "http://127.0.0.1:8000")
KCAL_MOL = 23.060548  # in an eV


def main(model: str) -> None:
    butane = molecule("trans-butane")
    chain = _carbon_chain(butane)
    angles = np.arange(0, 361, 10)
    frames = []
    for angle in angles:
        frame = butane.copy()
        frame.set_dihedral(*chain, angle, indices=_beyond(butane, chain))
        frames.append(frame)
    with Client(URL) as client:
        answers = client.predict(model, frames)
    lowest = min(answer.energy for answer in answers)
    print("torsion   energy           std of the total   domain")
    for angle, answer in zip(angles, answers, strict=True):
        above, std = KCAL_MOL * (answer.energy - lowest), KCAL_MOL * answer.energy_std
        print(f"{angle:5d}°  {above:6.2f} kcal/mol   {std:6.2f} kcal/mol   {answer.domain.verdict}")


def _carbon_chain(butane):
    """Indices of the four carbons in the order in which they are bonded."""
    carbons = [i for i, symbol in enumerate(butane.symbols) if symbol == "C"]
    bonded = {i: [j for j in carbons if j != i and butane.get_distance(i, j) < 1.7] for i in carbons}
    start = next(i for i in carbons if len(bonded[i]) == 1)
    chain = [start]
    while len(chain) < len(carbons):
        chain.append(next(j for j in bonded[chain[-1]] if j not in chain))
    return chain


def _beyond(butane, chain):
    """Atoms that turn: nearer to the last two carbons than to the first two."""
    distances = butane.get_all_distances()
    return [i for i in range(len(butane)) if distances[i, chain[2:]].min() < distances[i, chain[:2]].min()]


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "organic")
