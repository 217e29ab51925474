"""Frames of organic molecules for a student: shapes of many molecules, labelled by a reference calculator.

    for molecule:  conformers (RDKit), turned torsions, protons on their way along hydrogen bonds, rattled ones,
                   MMFF dynamics at random temperatures
    for pairs of small molecules:  dimers at random contacts
    from all of these:  dynamics of an earlier student, up to where its committee is unsure
    label all; leave out what a labelling committee disagrees on too much, or what is far too high

Molecules are dealt into groups and dimers are made within a group, so that a split by group never shows a molecule of
the test part to the training part.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from ase import Atoms
from ase.io import write
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import Progress

from contract.files import replaced
from contract.repository import sha256_of
from contract.structures import checked_structure
from contract.units import KCAL_MOL_EV
from training.files import write_json
from training.record import config_sha256, revision, versions
from training.sampling.errors import NothingKept
from training.sampling.followed import Followed, follow, published
from training.sampling.molecules import (
    Molecule,
    bridged,
    conformers,
    dimer,
    grown,
    molecules,
    named,
    torsions,
    trajectory,
)
from training.simulators.ani import AniReference
from training.simulators.labels import Labels, Reference
from training.simulators.references import AniSpec, ReferenceSpec


class OrganicConfig(BaseModel):
    """What to sample, and how much of it. Serialised as YAML in training/configs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampling: Literal["organic"] = "organic"
    name: str
    reference: ReferenceSpec | None = Field(None, description="what labels; null where --labeller names networks")
    smiles: tuple[str, ...] = Field((), description="molecules of your own instead of the list's")
    molecules: int | None = Field(None, ge=1, description="how many of them; null for all")
    grown: int = Field(0, ge=0, description="further molecules, grown on those by a substituent")
    groups: int = Field(40, ge=3)
    conformers: int = Field(3, ge=1)
    frames: int = Field(4, ge=1, description="of each conformer's dynamics")
    turned: int = Field(2, ge=0, description="conformers with every torsion at random, a molecule")
    small: int = Field(1, ge=1, description="how many times as much of molecules of at most eight atoms")
    bridges: int = Field(0, ge=0, description="a molecule, where it has a hydrogen bond within itself")
    rattled: int = Field(0, ge=0, description="a molecule")
    dimers: int = Field(60, ge=0, description="a group")
    followed: Followed | None = Field(None, description="dynamics of an earlier student; null for none")
    kelvin: tuple[float, float] = Field((100.0, 1000.0), description="temperatures of the dynamics")
    contacts_angstrom: tuple[float, float] = (1.5, 4.0)
    most_spread_ev: float = Field(
        1.0 * KCAL_MOL_EV,
        gt=0,
        description="std of a labelling committee over the root of the number of atoms, above it a frame is out",
    )
    highest_force_ev: float = Field(20.0, gt=0, description="eV/angstrom; a frame with a larger component is out")
    seed: int = 0


Kind: TypeAlias = Literal["conformer", "torsion", "bridge", "rattled", "dynamics", "dimer", "followed"]
SMALL_ATOMS: Final = 8
RATTLED_ANGSTROM: Final = (0.02, 0.12)


@dataclass(frozen=True, slots=True)
class Shape:
    """One frame before it is labelled."""

    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    group: int
    molecule: str
    kind: Kind


def sample_organic(config: OrganicConfig, labeller: ReferenceSpec, folder: Path) -> Path:
    """Make, label and write frames.

    Args:
        config: what to sample.
        labeller: of these molecules; of the elements that a published ANI ensemble knows, only such are made.
        folder: where frames.extxyz and sampling.json are written.

    Returns:
        The path of frames.extxyz: energy (eV), forces (eV/angstrom), group, molecule and kind of each frame.

    Raises:
        MissingPackage: the labeller is not installed.
        NoSuchMolecule: one of your own is none.
        NothingKept: there is no such molecule, or every frame was left out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reference = labeller.open()
    elements = reference.elements if isinstance(reference, AniReference) else None
    with Progress(transient=True) as progress:
        shapes = list(_shapes(config, elements, progress))
        if config.followed is not None:
            shapes += _followed(shapes, config, config.followed, progress)
        if not shapes:
            raise NothingKept("no molecule is made of the labeller's elements alone, with a shape that RDKit finds")
        task = progress.add_task("labelling frames", total=len(shapes))
        structures = [checked_structure(s.numbers, s.positions) for s in shapes]
        labels = reference.label(structures, lambda n: progress.advance(task, n))
    kept = _kept(shapes, labels, config)
    if not kept.any():
        raise NothingKept(
            f"all {len(shapes)} frames were left out: the labeller failed, its committee's std is above "
            f"most_spread_ev = {config.most_spread_ev:g} a root of the atoms, or a force above highest_force_ev = "
            f"{config.highest_force_ev:g}. Do the labeller's elements and units fit these molecules?"
        )
    path = folder / "frames.extxyz"
    with replaced(path) as part:
        write(part, list(_frames(shapes, labels, kept)), format="extxyz")
    write_json(folder / "sampling.json", _record(config, reference, labeller, shapes, kept, path))
    return path


def _shapes(config: OrganicConfig, elements: frozenset[int] | None, progress: Progress) -> Iterator[Shape]:
    rng = np.random.default_rng(config.seed)
    listed = named(config.smiles) if config.smiles else molecules()
    every = [molecule for molecule in listed if elements is None or elements.issuperset(molecule.numbers.tolist())]
    chosen = [every[i] for i in rng.permutation(len(every))[: config.molecules]]
    chosen += grown(chosen, config.grown, rng)
    task = progress.add_task("shaping molecules", total=len(chosen))
    small: dict[int, list[Shape]] = {}
    for index, molecule in enumerate(chosen):
        group = index % config.groups
        for shape in _of_molecule(molecule, group, config, rng):
            yield shape
            if shape.kind == "dynamics" and (shape.numbers > 1).sum() <= 6:
                small.setdefault(group, []).append(shape)
        progress.advance(task)
    for group, parts in small.items():
        for _ in range(config.dimers):
            a, b = (parts[i] for i in rng.integers(len(parts), size=2))
            positions = dimer(a.positions, b.positions, rng.uniform(*config.contacts_angstrom), rng)
            numbers = np.concatenate([a.numbers, b.numbers])
            yield Shape(numbers, positions, group, f"{a.molecule}.{b.molecule}", "dimer")


def _of_molecule(molecule: Molecule, group: int, config: OrganicConfig, rng: np.random.Generator) -> Iterator[Shape]:
    made = conformers(molecule, config.conformers, int(rng.integers(1, 2**31)))
    often = config.small if len(molecule.numbers) <= SMALL_ATOMS else 1

    def shape(positions: NDArray[np.float64], kind: Kind) -> Shape:
        return Shape(molecule.numbers, positions, group, molecule.smiles, kind)

    def some(count: int) -> Iterator[NDArray[np.float64]]:
        return (made[int(rng.integers(len(made)))] for _ in range(count * often if made else 0))

    for start in made:
        yield shape(start, "conformer")
        kelvin, seed = rng.uniform(*config.kelvin), int(rng.integers(2**31))
        frames = trajectory(molecule, start, kelvin, config.frames * often, seed)
        yield from (shape(positions, "dynamics") for positions in frames)
    for start in some(config.turned):
        turned = torsions(molecule, start, rng)
        if turned is not None:
            hot = trajectory(molecule, turned, 300.0, 1, int(rng.integers(2**31)), steps_between=20)
            yield from (shape(positions, "torsion") for positions in hot)
    for start in some(config.bridges):
        moved = bridged(molecule, start, rng)
        if moved is not None:
            yield shape(moved, "bridge")
    for start in some(config.rattled):
        yield shape(start + rng.normal(scale=rng.uniform(*RATTLED_ANGSTROM), size=start.shape), "rattled")


def _followed(shapes: list[Shape], config: OrganicConfig, how: Followed, progress: Progress) -> list[Shape]:
    """Where the earlier student's dynamics leads from some shapes of each molecule; not where atoms met."""
    rng, of_molecule = np.random.default_rng([config.seed, 2]), dict[str, list[Shape]]()
    for shape in shapes:
        if shape.kind != "dimer" or rng.random() < how.dimers:
            of_molecule.setdefault(shape.molecule, []).append(shape)
    starts = [some[i] for some in of_molecule.values() for i in rng.permutation(len(some))[: how.starts]]
    starts.sort(key=lambda shape: len(shape.numbers))
    task = progress.add_task("following an earlier student", total=len(starts))
    structures = [checked_structure(shape.numbers, shape.positions) for shape in starts]
    ended = follow(structures, how, config.kelvin, config.seed, lambda n: progress.advance(task, n))
    return [
        replace(start, positions=end.structure.positions, kind="followed")
        for start, end in zip(starts, ended, strict=True)
        if end.reason in ("energy", "force", "survived")
    ]


def _kept(shapes: list[Shape], labels: Labels, config: OrganicConfig) -> NDArray[np.bool_]:
    """Frames on which the committee agrees, and that are not far up a wall."""
    atoms = np.array([len(shape.numbers) for shape in shapes])
    starts = np.concatenate([[0], np.cumsum(atoms)[:-1]])
    largest = np.maximum.reduceat(np.abs(labels.forces).max(axis=1), starts)
    spread = labels.energy_std if labels.energy_std is not None else np.zeros(len(shapes))
    kept = labels.converged & (spread <= config.most_spread_ev * np.sqrt(atoms)) & (largest <= config.highest_force_ev)
    return np.asarray(kept)


def _frames(shapes: list[Shape], labels: Labels, kept: NDArray[np.bool_]) -> Iterator[Atoms]:
    ends = np.cumsum([len(shape.numbers) for shape in shapes])
    for i in np.flatnonzero(kept):
        shape, end = shapes[i], ends[i]
        atoms = Atoms(shape.numbers, shape.positions)
        atoms.info = {
            "REF_energy": float(labels.energy[i]),
            "group": f"g{shape.group:03d}",
            "molecule": shape.molecule,
            "kind": shape.kind,
        }
        atoms.arrays["REF_forces"] = labels.forces[end - len(shape.numbers) : end]
        yield atoms


def _record(
    config: OrganicConfig,
    reference: Reference,
    labeller: ReferenceSpec,
    shapes: list[Shape],
    kept: NDArray[np.bool_],
    path: Path,
) -> dict[str, Any]:
    kinds = {shape.kind for shape in shapes}
    return {
        "config": config.model_dump(mode="json"),
        "config_sha256": config_sha256(config),
        "level_of_theory": reference.method,
        "labeller": labeller.model_dump(mode="json"),
        "labeller_sha256": sha256_of(labeller.path)
        if isinstance(labeller, AniSpec) and labeller.path.is_file()
        else None,
        "followed_digest": None if config.followed is None else published(config.followed.model).digest,
        "frames": int(kept.sum()),
        "left_out": int((~kept).sum()),
        "kinds": {kind: sum(s.kind == kind for s, k in zip(shapes, kept, strict=True) if k) for kind in sorted(kinds)},
        "molecules": len({shape.molecule for shape in shapes if "." not in shape.molecule}),
        "frames_sha256": sha256_of(path),
        "versions": versions(),
        "revision": revision(),
    }
