"""Twice the matter is twice the energy; an atom alone has an energy, no force, and no company it needs."""

from dataclasses import replace

import numpy as np

from contract.card import Check
from contract.structures import Structure
from training.gate.deviation import agreement, count, deviations
from training.gate.engines import Arrays
from training.gate.samples import lone_atoms, small_cells
from training.gate.submission import Submission, tiled


def twins(submission: Submission) -> list[Check]:
    """A structure that is twice in a batch gets the same answer twice.

    To rounding, not to the last bit: vectorised kernels may round the few numbers at the end of a tensor otherwise.
    """
    structures = _structures(submission)
    n, b = sum(len(s) for s in structures), len(structures)
    answers = submission.everyday(submission.inputs([*structures, *structures]))
    first = {"energy": answers["energy"][:, :b], "forces": answers["forces"][:n], "virial": answers["virial"][:b]}
    second = {"energy": answers["energy"][:, b:], "forces": answers["forces"][n:], "virial": answers["virial"][b:]}
    atoms = np.repeat(np.arange(b), [len(s) for s in structures])
    return agreement("the same structure twice in a batch", [("", deviations(second, first, atoms))])


def two_copies(submission: Submission) -> list[Check]:
    """Two copies that do not see each other, as one structure: twice the energy and virial, the same forces."""
    single = submission.inputs(_structures(submission))
    together = {"structure": np.tile(single["structure"], 2), "cells": single["cells"]}
    return _doubling("two copies in one structure", submission, single, tiled(single, 2) | together)


def doubled_cell(submission: Submission) -> list[Check]:
    """A crystal described by a cell twice as long: twice the energy and virial, the same forces."""
    cells = small_cells(submission.elements)
    longer = [_supercell(cell, along) for along, cell in enumerate(cells)]
    single, twice = submission.inputs(cells), submission.inputs(longer)
    order = np.argsort(np.tile(single["structure"], 2), kind="stable")
    return _doubling("a cell twice as long", submission, single, twice, order)


def lone_atom(submission: Submission) -> list[Check]:
    """An atom without neighbours: a finite energy, no force, alone in its batch and among others."""
    faults = []
    lone = lone_atoms(submission.elements)
    for label, structures in (("alone", lone[:1]), ("among others", [*lone, *submission.molecules])):
        answers = submission.everyday(submission.inputs(structures))
        atoms = min(len(lone), len(structures))
        faults += [f"energy, {label}"] * int((~np.isfinite(answers["energy"])).sum())
        faults += [f"force, {label}"] * int((answers["forces"][:atoms] != 0.0).sum())
        faults += [f"virial, {label}"] * int((answers["virial"][:atoms] != 0.0).sum())
    return [count("an atom alone", faults, "numbers that are not finite or not zero")]


def _structures(submission: Submission) -> list[Structure]:
    return [*submission.molecules, *small_cells(submission.elements)]


def _doubling(
    name: str, submission: Submission, single: Arrays, twice: Arrays, order: np.ndarray | slice = slice(None)
) -> list[Check]:
    """`order` brings the atoms of two copies, one batch after the other, into the order of `twice`."""
    answers = submission.everyday(single)
    expected = {
        "energy": 2.0 * answers["energy"],
        "virial": 2.0 * answers["virial"],
        "forces": np.tile(answers["forces"], (2, 1))[order],
        "atomic_energy": np.tile(answers["atomic_energy"], 2)[:, order],
    }
    found = deviations(submission.everyday(twice), expected, twice["structure"])
    return agreement(name, [(f"{len(single['cells'])} structures", found)])


def _supercell(structure: Structure, along: int) -> Structure:
    """Two cells of a crystal along one of its lattice vectors."""
    if structure.cell is None:
        raise ValueError("a structure in vacuum has no cell to double")
    longer = structure.cell * np.where(np.arange(3) == along, 2.0, 1.0)[:, None]
    positions = np.concatenate([structure.positions, structure.positions + structure.cell[along]])
    return replace(structure, numbers=np.tile(structure.numbers, 2), positions=positions, cell=longer)
