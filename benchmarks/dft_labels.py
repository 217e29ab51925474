"""Density-functional labels of small aluminium cells beside those of the EAM potential that the shipped models learnt.

Both come through the references that active learning asks (training/simulators/references.py). Two levels of theory:
how far they are apart says what a reference changes, not that one of them is wrong.
"""

import time
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from numpy.typing import NDArray

from benchmarks.record import Finding
from contract.structures import Structure, checked_structure
from training.sampling.disordered import disordered_cell
from training.simulators.labels import Labels
from training.simulators.references import EamSpec, GpawSpec
from training.validation.metals import GPA

SEED = 0
LATTICE_ANGSTROM = 4.05
DFT = GpawSpec(cutoff_ev=300.0, kpoint_density=2.5)
FINER = GpawSpec(cutoff_ev=400.0, kpoint_density=3.5)


def run() -> Finding:
    """Energies above the crystal, forces, pressures and CPU seconds of both, and what finer settings change."""
    structures = cells()
    labels, seconds = _timed(DFT, list(structures.values()))
    finer, _ = _timed(FINER, [structures["crystal"], structures["crystal, 3 % shorter"]])
    eam = EamSpec().open().label(list(structures.values()))
    parts = {name: _beside(labels, eam, list(structures.values()), i) for i, name in enumerate(structures)}
    for (name, part), spent in zip(parts.items(), seconds, strict=True):
        part["cpu_seconds"] = spent
        part["atoms"] = len(structures[name])
    shorter = {"as the cells": _above(labels, structures["crystal"]), "finer": _above(finer, structures["crystal"])}
    return Finding(
        {
            "cells": parts,
            "all forces": _forces(labels.forces, eam.forces),
            "levels": {"DFT": DFT.open().method, "EAM": EamSpec().open().method},
            "finer settings": {
                "settings": FINER.model_dump(mode="json"),
                "energy of the shorter crystal above the crystal, meV/atom": shorter,
            },
        },
        (__doc__ or "").partition("\n")[2],
        [SEED],
    )


def cells() -> dict[str, Structure]:
    """Cells of up to eight atoms: a crystal, strained, sheared, with a vacancy, rattled, and a disordered one."""
    crystal: Any = bulk("Al", "fcc", a=LATTICE_ANGSTROM, cubic=True)
    rattled, vacancy = crystal.copy(), crystal.repeat((2, 1, 1))
    rattled.rattle(0.2, seed=SEED)
    del vacancy[0]
    disordered = disordered_cell(np.full(8, 13), 2.5, 2.1, np.random.default_rng(SEED))
    return {
        "crystal": _structure(crystal),
        "crystal, 3 % shorter": _structure(_strained(crystal, 0.97 * np.eye(3))),
        "crystal, sheared by 5 %": _structure(_strained(crystal, np.array([[1, 0.05, 0], [0, 1, 0], [0, 0, 1]]))),
        "crystal, rattled by 0.2 angstrom": _structure(rattled),
        "vacancy": _structure(vacancy),
        "disordered": disordered,
    }


def _above(labels: Labels, crystal: Structure) -> float:
    """How far the second cell is above the first, of as many atoms, meV/atom."""
    return 1e3 * float(labels.energy[1] - labels.energy[0]) / len(crystal)


def _timed(spec: GpawSpec, structures: list[Structure]) -> tuple[Labels, list[float]]:
    ticks = [time.process_time()]
    labels = spec.open().label(structures, lambda n: ticks.append(time.process_time()))
    return labels, np.diff(ticks).tolist()


def _beside(ours: Labels, eam: Labels, structures: list[Structure], i: int) -> dict[str, Any]:
    ends = np.cumsum([0, *map(len, structures)])
    forces = slice(ends[i], ends[i + 1])
    atoms = len(structures[i])
    found: dict[str, Any] = {"converged": bool(ours.converged[i])}
    for name, labels in (("DFT", ours), ("EAM", eam)):
        above = labels.energy[i] / atoms - labels.energy[0] / len(structures[0])
        stress = np.full(6, np.nan) if labels.stress is None else labels.stress[i]
        found[name] = {
            "energy above the crystal, meV/atom": 1e3 * float(above),
            "pressure GPa": -float(stress[:3].mean()) * GPA,
        }
    return found | _forces(ours.forces[forces], eam.forces[forces])


def _forces(dft: NDArray[np.float64], eam: NDArray[np.float64]) -> dict[str, float]:
    found = {
        "force of DFT, RMS eV/angstrom": float(np.sqrt((dft**2).mean())),
        "force difference, RMS eV/angstrom": float(np.sqrt(((dft - eam) ** 2).mean())),
    }
    if found["force of DFT, RMS eV/angstrom"] > 0.1:
        found["correlation"] = float(np.corrcoef(dft.ravel(), eam.ravel())[0, 1])
    return found


def _strained(crystal: Any, strain: NDArray[np.float64]) -> Any:
    made = crystal.copy()
    made.set_cell(made.cell.array @ strain, scale_atoms=True)
    return made


def _structure(atoms: Atoms) -> Structure:
    return checked_structure(atoms.numbers, atoms.positions, atoms.cell.array, True)
