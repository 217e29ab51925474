"""A small run and files labelled by it, so that every error is known."""

from collections.abc import Callable, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest
from ase import Atoms
from ase.io import write

from contract.repository import ModelRepository
from contract.structures import Structure, checked_structure
from contract.units import HARTREE_EV
from training.assessment.judged import Judged, ask, judged
from training.checkpoint import Run, save_run

SHAPES = {
    "water": ([8, 1, 1], [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]),
    "methane": ([6, 1, 1, 1, 1], 0.63 * np.array([[0, 0, 0], [1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]])),
    "co2": ([6, 8, 8], [[0.0, 0.0, 0.0], [0.0, 0.0, 1.16], [0.0, 0.0, -1.16]]),
}
SHIFT_EV = 0.05


def shaken(name: str, count: int, seed: int) -> list[Structure]:
    """Conformers of one molecule."""
    numbers, still = SHAPES[name]
    moves = np.random.default_rng(seed).normal(scale=0.05, size=(count, len(numbers), 3))
    return [checked_structure(numbers, np.array(still) + move) for move in moves]


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory, network_of: Callable) -> Callable[..., Path]:
    """Writes a run of two members: run_folder(seed)."""
    root = tmp_path_factory.mktemp("runs")

    def made(seed: int) -> Path:
        folder = root / f"seed-{seed}"
        network = network_of(members=2, seed=seed, dtype=None).float()
        save_run(folder, Run(network, {"H": -13.0, "C": -1030.0, "O": -2040.0, "Al": 0.0}, {}))
        return folder

    return made


@pytest.fixture(scope="session")
def model(run_folder: Callable[..., Path]) -> Judged:
    """The model that made the labels."""
    return judged(str(run_folder(0)), ModelRepository(Path("nowhere")))


def labels_of(model: Judged, structures: Sequence[Structure]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Its energies and forces."""
    said = ask(model, structures)
    return said.energy, np.split(said.forces, np.cumsum([len(s) for s in structures])[:-1])


@pytest.fixture(scope="session")
def hdf5(tmp_path_factory: pytest.TempPathFactory, model: Judged) -> Path:
    """Three molecules in COMP6's format; every energy is SHIFT_EV lower than the model's, one water is far too high."""
    path = tmp_path_factory.mktemp("comp6") / "small.h5"
    with h5py.File(path, "w") as file:
        for seed, name in enumerate(SHAPES):
            structures = shaken(name, 6, seed)
            energy, forces = labels_of(model, structures)
            energy = energy - SHIFT_EV
            if name == "water":
                energy[-1] += 10.0
            group = file.create_group(f"small/{name}")
            group["coordinates"] = np.stack([s.positions for s in structures])
            group["energies"] = energy / HARTREE_EV
            group["forces"] = np.stack(forces) / HARTREE_EV
            group["species"] = structures[0].numbers
    return path


@pytest.fixture(scope="session")
def extxyz(tmp_path_factory: pytest.TempPathFactory, model: Judged) -> Path:
    """Frames of three molecules whose energies are SHIFT_EV lower than the model's, and one with iron."""
    path = tmp_path_factory.mktemp("xyz") / "frames.xyz"
    structures = [s for seed, name in enumerate(SHAPES) for s in shaken(name, 8, seed)]
    frames = []
    for i, (structure, energy, forces) in enumerate(zip(structures, *labels_of(model, structures), strict=True)):
        atoms = Atoms(structure.numbers, structure.positions)
        atoms.info |= {"REF_energy": energy - SHIFT_EV, "temperature": "300 K" if i % 2 else "600 K"}
        atoms.arrays["REF_forces"] = forces
        frames.append(atoms)
    iron = Atoms("Fe", [[0.0, 0.0, 0.0]])
    iron.info["REF_energy"], iron.arrays["REF_forces"] = -34000.0, np.zeros((1, 3))
    write(path, [*frames, iron], format="extxyz")
    return path
