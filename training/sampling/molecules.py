"""Molecules of C, H, N and O and their shapes, made with RDKit: a list, what grows on it, conformers, dynamics.

Shapes are explored with the MMFF94 force field, which is fast and keeps bonds; what they are worth is for the labeller
to say. RDKit (BSD-3-Clause) is in the extra `sampling`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from contract.units import KCAL_MOL_EV
from training.sampling.errors import NoSuchMolecule
from training.sampling.langevin import langevin

SUBSTITUENTS: Final = (
    "C", "CC", "CC(C)", "C=C", "C#C", "O", "CO", "OC", "N", "CN", "CN(C)", "NC", "N#C", "N#CC", "O=C", "CC(=O)",
    "OC(=O)", "COC(=O)", "NC(=O)", "CNC(=O)", "CC(=O)N", "CC(=O)O", "O=[N+]([O-])",
)  # fmt: skip
SCAFFOLDS: Final = (
    "CC", "CCO", "CCN", "CC=O", "CC(C)=O", "CC(=O)O", "CC(N)=O", "C=C", "CC=C", "CC#C", "CC#N",
    "C1CC1", "C1CCC1", "C1CCCC1", "C1CCCCC1", "C1=CCCC1", "C1CCOC1", "C1CCNC1", "C1CCOCC1", "C1CCNCC1", "N1CCCC1",
    "N1CCOCC1", "C1CO1", "C1CN1", "c1ccccc1", "c1ccc(C)cc1", "c1ccc(O)cc1", "c1cccc(N)c1", "c1ccncc1", "c1cccnc1",
    "c1ccccn1", "c1ncccn1", "c1cnccn1", "c1ccc[nH]1", "c1ccco1", "c1c[nH]cn1", "c1cc[nH]n1", "n1cccc1", "n1ccnc1",
    "c1cnco1", "c1ccc2[nH]ccc2c1",
)  # fmt: skip
MOST_ATOMS: Final = 40
BRIDGE_ANGSTROM: Final = 2.2


@dataclass(frozen=True, slots=True)
class Molecule:
    """A molecule by its canonical SMILES; numbers int64 [n]."""

    smiles: str
    numbers: NDArray[np.int64]


def molecules() -> list[Molecule]:
    """The list of molecules.smi and every substituted scaffold, each once, of at most MOST_ATOMS atoms."""
    lines = files("training.sampling").joinpath("molecules.smi").read_text().splitlines()
    listed = [line.split()[0] for line in lines if line.strip() and not line.startswith("#")]
    combined = [substituent + scaffold for scaffold in SCAFFOLDS for substituent in SUBSTITUENTS]
    found: dict[str, Molecule] = {}
    for smiles in [*listed, *combined]:
        parsed = _with_hydrogens(smiles)
        if parsed is not None and parsed.GetNumAtoms() <= MOST_ATOMS:
            made = _molecule(parsed)
            found.setdefault(made.smiles, made)
    return list(found.values())


def named(smiles: Sequence[str]) -> list[Molecule]:
    """Molecules by their SMILES, each once.

    Raises:
        NoSuchMolecule: naming the one that RDKit cannot read.
    """
    found: dict[str, Molecule] = {}
    for name in smiles:
        parsed = _with_hydrogens(name)
        if parsed is None:
            raise NoSuchMolecule(f"{name!r} is no SMILES that RDKit can read. Write for instance 'CCO' for ethanol.")
        made = _molecule(parsed)
        found.setdefault(made.smiles, made)
    return list(found.values())


def grown(parents: Sequence[Molecule], count: int, rng: np.random.Generator) -> list[Molecule]:
    """`count` new molecules, fewer if there are no more: a random parent with a substituent in place of a hydrogen.

    Args:
        parents: to grow from; none of them is among the grown.
        count: how many.
        rng: chooses.
    """
    known = {parent.smiles for parent in parents}
    found: dict[str, Molecule] = {}
    for _ in range(10 * count):
        if len(found) == count:
            break
        parent = parents[int(rng.integers(len(parents)))]
        child = _substituted(parent.smiles, SUBSTITUENTS[int(rng.integers(len(SUBSTITUENTS)))], rng)
        if child is not None and child.smiles not in known and len(child.numbers) <= MOST_ATOMS:
            found.setdefault(child.smiles, child)
    return list(found.values())


def conformers(molecule: Molecule, count: int, seed: int) -> list[NDArray[np.float64]]:
    """Up to `count` relaxed conformers, angstrom [n, 3]; fewer where RDKit finds no more."""
    from rdkit.Chem import AllChem

    parsed = _with_hydrogens(molecule.smiles)
    made = list(AllChem.EmbedMultipleConfs(parsed, numConfs=count, randomSeed=seed, pruneRmsThresh=0.2))
    if not made or not AllChem.MMFFHasAllMoleculeParams(parsed):
        return []
    AllChem.MMFFOptimizeMoleculeConfs(parsed, maxIters=500)
    return [np.array(parsed.GetConformer(i).GetPositions()) for i in made]


def torsions(
    molecule: Molecule, start: NDArray[np.float64], rng: np.random.Generator, *, apart: float = 0.85
) -> NDArray[np.float64] | None:
    """Turn every rotatable bond to a random angle; None if there is none or atoms meet closer than `apart` angstrom."""
    from rdkit.Chem import rdMolTransforms

    parsed = _with_hydrogens(molecule.smiles)
    bonds = _rotatable(parsed)
    if not bonds:
        return None
    conformer = _placed(parsed, start)
    for four in bonds:
        rdMolTransforms.SetDihedralDeg(conformer, *four, float(rng.uniform(-180.0, 180.0)))
    turned = np.array(conformer.GetPositions())
    return turned if _closest(turned) > apart else None


def bridged(molecule: Molecule, start: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64] | None:
    """Move the proton of a random hydrogen bond within the molecule along the line from donor to acceptor.

    Donors and acceptors are O and N. It goes to between a third and two thirds of the way, as when it is transferred.

    Returns:
        Positions, angstrom [n, 3]; None where there is no such bond.
    """
    parsed = _with_hydrogens(molecule.smiles)
    heavy = np.flatnonzero(np.isin(molecule.numbers, (7, 8)))
    bonds = []
    for donor in heavy:
        for proton in (n.GetIdx() for n in parsed.GetAtomWithIdx(int(donor)).GetNeighbors() if n.GetAtomicNum() == 1):
            near = np.linalg.norm(start[heavy] - start[proton], axis=1) < BRIDGE_ANGSTROM
            bonds += [(donor, proton, acceptor) for acceptor in heavy[near] if acceptor != donor]
    if not bonds:
        return None
    donor, proton, acceptor = bonds[int(rng.integers(len(bonds)))]
    moved = start.copy()
    moved[proton] = start[donor] + rng.uniform(1 / 3, 2 / 3) * (start[acceptor] - start[donor])
    return moved


def trajectory(
    molecule: Molecule,
    start: NDArray[np.float64],
    temperature: float,
    frames: int,
    seed: int,
    *,
    steps_between: int = 60,
) -> Iterator[NDArray[np.float64]]:
    """Langevin dynamics in MMFF94 at `temperature` (kelvin), one frame each `steps_between` steps of 0.5 fs, [n, 3]."""
    from rdkit.Chem import AllChem

    parsed = _with_hydrogens(molecule.smiles)
    _placed(parsed, start)
    field = AllChem.MMFFGetMoleculeForceField(parsed, AllChem.MMFFGetMoleculeProperties(parsed))
    field.Initialize()

    def forces(positions: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = positions.ravel().tolist()
        field.CalcEnergy(flat)  # also renews the distances that CalcGrad would otherwise take from an earlier call
        return -KCAL_MOL_EV * np.array(field.CalcGrad(flat)).reshape(-1, 3)

    # RDKit's force field lives in the molecule, which must stay alive as long as the frames are drawn.
    yield from langevin(start, molecule.numbers, forces, temperature, frames, steps_between, seed)
    del parsed


def dimer(
    first: NDArray[np.float64], second: NDArray[np.float64], contact: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Two molecules in random orientations whose nearest atoms are `contact` angstrom apart, [n1 + n2, 3]."""
    a = first - first.mean(axis=0)
    while True:
        b = (second - second.mean(axis=0)) @ _rotation(rng).T
        direction = _rotation(rng)[0]
        apart = b[None] - a[:, None]
        along = apart @ direction
        inside = along**2 - (apart**2).sum(axis=2) + contact**2
        if (inside >= 0.0).any():  # else the second molecule passes the first without coming so near
            break
    # where each pair of atoms is in contact as the second molecule moves out; the last pair to let go decides
    distance = (-along[inside >= 0.0] + np.sqrt(inside[inside >= 0.0])).max()
    return np.concatenate([a, b + distance * direction])


def _substituted(smiles: str, substituent: str, rng: np.random.Generator) -> Molecule | None:
    """One hydrogen of a random C, N or O replaced; None where none has any, or the result cannot be."""
    from rdkit import Chem

    parent, branch = Chem.MolFromSmiles(smiles), Chem.MolFromSmiles(substituent + "*")
    sites = [atom.GetIdx() for atom in parent.GetAtoms() if atom.GetTotalNumHs()]
    if not sites:
        return None
    dummy = next(atom for atom in branch.GetAtoms() if atom.GetAtomicNum() == 0)
    start, site = parent.GetNumAtoms(), sites[int(rng.integers(len(sites)))]
    made = Chem.RWMol(Chem.CombineMols(parent, branch))
    made.AddBond(site, start + dummy.GetNeighbors()[0].GetIdx(), Chem.BondType.SINGLE)
    carrier = made.GetAtomWithIdx(site)
    carrier.SetNumExplicitHs(max(0, carrier.GetNumExplicitHs() - 1))
    made.RemoveAtom(start + dummy.GetIdx())
    try:
        Chem.SanitizeMol(made)
    except Chem.MolSanitizeException:
        return None
    return _molecule(made)


def _with_hydrogens(smiles: str) -> Any:
    from rdkit import Chem, RDLogger

    RDLogger.DisableLog("rdApp.*")
    parsed = Chem.MolFromSmiles(smiles)
    return None if parsed is None else Chem.AddHs(parsed)


def _molecule(parsed: Any) -> Molecule:
    """Atoms in the order of the canonical SMILES, which is read again whenever a shape is made."""
    from rdkit import Chem

    canonical = str(Chem.MolToSmiles(Chem.RemoveHs(parsed)))
    return Molecule(canonical, _numbers(_with_hydrogens(canonical)))


def _numbers(parsed: Any) -> NDArray[np.int64]:
    return np.array([atom.GetAtomicNum() for atom in parsed.GetAtoms()], dtype=np.int64)


def _placed(parsed: Any, positions: NDArray[np.float64]) -> Any:
    from rdkit import Chem

    conformer = Chem.Conformer(len(positions))
    conformer.SetPositions(np.ascontiguousarray(positions))
    parsed.RemoveAllConformers()
    return parsed.GetConformer(parsed.AddConformer(conformer))


def _rotatable(parsed: Any) -> list[tuple[int, int, int, int]]:
    """Four atoms of each single bond outside rings between atoms that have other neighbours."""
    found = []
    for bond in parsed.GetBonds():
        if bond.IsInRing() or bond.GetBondTypeAsDouble() != 1.0:
            continue
        b, c = bond.GetBeginAtom(), bond.GetEndAtom()
        before = [x.GetIdx() for x in b.GetNeighbors() if x.GetIdx() != c.GetIdx()]
        behind = [x.GetIdx() for x in c.GetNeighbors() if x.GetIdx() != b.GetIdx()]
        if before and behind:
            found.append((before[0], b.GetIdx(), c.GetIdx(), behind[0]))
    return found


def _closest(positions: NDArray[np.float64]) -> float:
    gaps = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    return float(gaps[~np.eye(len(positions), dtype=bool)].min(initial=np.inf))


def _rotation(rng: np.random.Generator) -> NDArray[np.float64]:
    """A rotation, uniform over all of them."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else -q
