"""Frames whose errors are told apart."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.io import write

from contract.card import DataSource
from training.data.dataset import ragged, uniform
from training.data.extxyz import read_extxyz
from training.data.provenance import Provenance
from training.data.strata import strata_of

SOURCE = DataSource(
    name="made", origin="here", licence="CC0-1.0", sha256="0" * 64, count=1, level_of_theory="none", citation="none"
)


def test_frames_of_one_composition_are_told_apart_by_their_energy() -> None:
    data = uniform([1, 1], np.zeros((4, 2, 3)), [-5.0, -4.5, -3.5, 1.0], [SOURCE])
    found = {name: np.flatnonzero(inside).tolist() for name, inside in strata_of(data).items()}
    assert found == {"0 to 1 eV": [0, 1], "1 to 2 eV": [2], "above 3 eV": [3]}


def test_molecules_are_told_apart_by_size_and_by_what_the_data_call_them() -> None:
    sizes = [3, 8, 9, 40]
    data = ragged([[6] * n for n in sizes], [np.zeros((n, 3)) for n in sizes], np.zeros(4), [SOURCE])
    found = {name: np.flatnonzero(inside).tolist() for name, inside in strata_of(data).items()}
    assert found == {"1 to 8 atoms": [0, 1], "9 to 16 atoms": [2], "over 24 atoms": [3]}


def test_kinds_are_read_with_the_frames_and_follow_a_selection(tmp_path: Path) -> None:

    frames = [Atoms("CO", [[0, 0, 0], [0, 0, 1.1 + 0.1 * i]]) for i in range(3)] + [Atoms("N2", [[0, 0, 0], [0, 0, 1]])]
    for atoms, kind in zip(frames, ["near", "far", "near", "far"], strict=True):
        atoms.info = {"REF_energy": -1.0, "kind": kind}
    path = tmp_path / "frames.extxyz"
    write(path, frames, format="extxyz")
    origin = Provenance(name="made", origin="here", licence="CC0-1.0", level_of_theory="none", citation="none")
    data = read_extxyz(path, origin)
    assert strata_of(data)["near"].tolist() == [True, False, True, False]
    assert strata_of(data.select([1, 2, 3]))["far"].tolist() == [True, False, True]
