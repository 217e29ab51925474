"""What must not be trained on: refused before training, naming the frames.

Each check returns a Finding or nothing. `inspect` runs them all, `require_sound` raises.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from contract.elements import symbols
from contract.structures import Structure
from contract.units import BOHR_ANGSTROM, HARTREE_EV, KCAL_MOL_EV
from training.data.dataset import Dataset
from training.data.errors import DataError
from training.data.fingerprints import close_pairs, fingerprints
from training.data.force_agreement import ForceAgreement, close_frames, force_agreement
from training.data.outliers import FARTHEST_EV_PER_ATOM, beyond_binding, contradicted_energies, contradicted_forces
from training.data.splits import Split

COINCIDENT_ANGSTROM: Final = 0.01
CONFLICT_EV: Final = 0.01  # above the rotational noise of a DFT grid, which reaches 1.4 meV in QM-22
_COPY_DISTANCE: Final = 1e-5
_NAMED: Final = 10
_SLOPE_RANGE: Final = (0.8, 1.25)
_UNIT_TOLERANCE: Final = 0.04
_SLOPE_TOLERANCE: Final = 0.1
_SMALLEST_VOLUME: Final = 1e-3
_DEEPEST: Final = 1.5
_FEW_FRAMES: Final = 200
_FEWEST_PAIRS: Final = 10
_MOSTLY: Final = 0.2
_TINY_EV: Final = 1e-9
_ORGANIC: Final = frozenset({1, 6, 7, 8, 9, 15, 16, 17})
_HYDROGEN_BONDS: Final = {"bohr": (1.5, 2.3), "nanometres": (0.06, 0.13)}
_KJ_MOL_EV: Final = KCAL_MOL_EV / 4.184
_ENERGY_UNITS: Final = {"hartree": 1 / HARTREE_EV, "kcal/mol": 1 / KCAL_MOL_EV, "kJ/mol": 1 / _KJ_MOL_EV}
_FORCE_SLOPES: Final = {
    "hartree/bohr beside energies in eV": BOHR_ANGSTROM / HARTREE_EV,
    "hartree/angstrom beside energies in eV": 1 / HARTREE_EV,
    "eV/bohr": BOHR_ANGSTROM,
    "kcal/mol/angstrom beside energies in eV": 1 / KCAL_MOL_EV,
    "eV/angstrom beside energies in hartree": HARTREE_EV,
    "eV/angstrom beside energies in kcal/mol": KCAL_MOL_EV,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One reason not to train.

    Attributes:
        code: stable name of the check.
        message: what is wrong and what to do.
        frames: each frame concerned, counted from 0 in its file (in the data set, if that has several files); empty if
            it is the whole set.
    """

    code: str
    message: str
    frames: tuple[int, ...] = ()

    def __str__(self) -> str:
        if not self.frames:
            return f"{self.code}: {self.message}"
        more = f" and {len(self.frames) - _NAMED} more" if len(self.frames) > _NAMED else ""
        return f"{self.code}: {self.message} Frames {', '.join(map(str, self.frames[:_NAMED]))}{more}."


class UnsoundData(DataError):
    """Labels or geometries that must not be trained on.

    Args:
        findings: at least one, kept as `.findings`.
    """

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        super().__init__("The data must not be trained on. " + " ".join(map(str, self.findings)))


def require_sound(dataset: Dataset, ignore: Collection[str] = ()) -> None:
    """Raise unless every check passes.

    Args:
        dataset: any.
        ignore: codes of findings that a person has looked at and accepts.

    Raises:
        UnsoundData: with every finding.
    """
    findings = [finding for finding in inspect(dataset) if finding.code not in ignore]
    if findings:
        raise UnsoundData(findings)


def require_apart(dataset: Dataset, parts: Split) -> None:
    """Raise if a frame, or an exact copy of it, or a group lies in two parts.

    Raises:
        UnsoundData: naming the frames.
    """
    findings = [f for f in (shared_frames(parts), shared_groups(dataset, parts), shared_copies(dataset, parts)) if f]
    if findings:
        raise UnsoundData(findings)


def inspect(dataset: Dataset) -> list[Finding]:
    """Every finding: first the arrays, then, if those are sound, what the numbers mean."""
    arrays = [f for f in (empty_frames(dataset), not_finite(dataset), singular_cell(dataset)) if f]
    if arrays:
        return arrays
    meaning = (
        coincident_atoms(dataset),
        conflicting_copies(dataset),
        length_unit(dataset),
        energy_unit(dataset),
        energy_outliers(dataset),
        force_labels(dataset),
    )
    found = [f for f in meaning if f]
    return found or _likeliest(odd_forces(dataset), odd_energies(dataset))


def empty_frames(dataset: Dataset) -> Finding | None:
    """Frames without atoms, or no frames at all."""
    if not len(dataset):
        return Finding("no_frames", "the data set has no frames.")
    message = "frames without atoms. Remove them from the file."
    return _finding(dataset, "empty_frames", message, dataset.sizes == 0)


def not_finite(dataset: Dataset) -> Finding | None:
    """NaN or infinity in energies, positions or forces, or in a stress that is not left out as a whole."""
    bad = ~np.isfinite(dataset.energy)
    for rows in (dataset.positions, dataset.forces):
        if rows is not None:
            bad[_frame_of_atom(dataset)[~np.isfinite(rows).all(axis=1)]] = True
    if dataset.stress is not None:
        bad |= ~np.isfinite(dataset.stress).all(axis=1) & ~np.isnan(dataset.stress).all(axis=1)
    message = "NaN or infinity in positions or labels. Recompute these frames or leave them out."
    return _finding(dataset, "not_finite", message, bad)


def singular_cell(dataset: Dataset) -> Finding | None:
    """Periodic frames without a cell, or with one that spans no volume."""
    lacking = np.ones(len(dataset), bool)
    if dataset.cells is not None:
        lacking = ~(np.abs(np.linalg.det(np.nan_to_num(dataset.cells))) > _SMALLEST_VOLUME)
    message = (
        "periodic frames without a cell of any volume. Give three lattice vectors in angstrom, or set pbc to false."
    )
    return _finding(dataset, "singular_cell", message, lacking & dataset.pbc.any(axis=1))


def coincident_atoms(dataset: Dataset) -> Finding | None:
    """Two atoms of one frame, or an atom and an image of another, closer than 0.01 angstrom."""
    close = np.zeros(len(dataset), bool)
    rows = _frame_of_atom(dataset)
    for atoms in _whole_frames(dataset):
        # Frames are lifted apart along a fourth axis, so that one tree serves many of them.
        height = (rows[atoms] - rows[atoms.start]).astype(np.float64)
        close[rows[atoms][_near(np.column_stack([dataset.positions[atoms], height]))]] = True
    for i in np.flatnonzero(dataset.pbc.any(axis=1)):
        close[i] |= _coincident_in_cell(dataset[int(i)])
    message = f"two atoms closer than {COINCIDENT_ANGSTROM} angstrom. Remove these frames."
    return _finding(dataset, "coincident_atoms", message, close)


def conflicting_copies(dataset: Dataset) -> Finding | None:
    """Frames with the same geometry whose energies differ by more than 10 meV: states, charges or levels mixed."""
    bad = np.zeros(len(dataset), bool)
    for prints in fingerprints(dataset):
        first, second = close_pairs(prints, _COPY_DISTANCE).T
        differ = np.abs(dataset.energy[first] - dataset.energy[second]) > CONFLICT_EV
        bad[first[differ]] = bad[second[differ]] = True
    message = (
        f"the same geometry with energies that differ by more than {CONFLICT_EV} eV: different spin states, charges or "
        "levels of theory are mixed. Keep one."
    )
    return _finding(dataset, "conflicting_copies", message, bad)


def energy_unit(dataset: Dataset) -> Finding | None:
    """Total energies that are an absurd multiple of the energies of the free atoms.

    One factor s is fitted in E = s * (sum of all-electron atomic energies): near 1 for all-electron totals in eV,
    between 0 and 1 for valence-only totals, near 0 for relative energies. 1/27.2, 23.1 and 96.5 tell the wrong unit.
    """
    atoms = atomic_energy_ev(dataset.numbers)
    totals = np.bincount(_frame_of_atom(dataset), weights=atoms, minlength=len(dataset))
    factor = float(np.median(dataset.energy / totals))
    for unit, expected in _ENERGY_UNITS.items():
        if abs(factor / expected - 1) < _UNIT_TOLERANCE:
            message = (
                f"energies are {factor:.4g} times those of the free atoms in eV: they look like {unit}. Convert them."
            )
            return Finding("energy_unit", message)
    if factor > _DEEPEST:
        message = (
            f"energies are {factor:.4g} times those of the free atoms, deeper than all electrons allow. Check the unit."
        )
        return Finding("energy_unit", f"{message} It must be eV.")
    return None


def energy_outliers(dataset: Dataset) -> Finding | None:
    """Frames whose energy is farther from what their composition usually has than any binding could be."""
    far, ratio = beyond_binding(dataset)
    if not far.any():
        return None
    of_all = float(np.median(ratio[far]))
    units = [unit for unit, expected in _ENERGY_UNITS.items() if abs(of_all / expected - 1) < _UNIT_TOLERANCE]
    like = f" and look like {units[0]}" if units else ""
    message = (
        f"energies that lie more than {FARTHEST_EV_PER_ATOM:g} eV an atom from those of the same composition{like}: "
        "another unit, another level of theory, or a calculation that failed. Recompute these frames or leave them out."
    )
    return _finding(dataset, "energy_outliers", message, far)


def length_unit(dataset: Dataset) -> Finding | None:
    """Positions in bohr or nanometres: by the bond of hydrogen, 0.74 to 1.1 angstrom in any organic molecule."""
    if not set(dataset.numbers.tolist()) <= _ORGANIC or not (dataset.numbers == 1).any():
        return None
    first = [dataset[int(i)] for i in np.linspace(0, len(dataset) - 1, min(_FEW_FRAMES, len(dataset))).round()]
    bonds = [_bonds_of_hydrogen(structure) for structure in first if not structure.pbc.any() and len(structure) > 1]
    every = np.concatenate([np.zeros(0), *bonds])
    if not len(every):
        return None
    typical = float(np.median(every))
    for unit, (low, high) in _HYDROGEN_BONDS.items():
        if low < typical < high:
            message = f"the bond of hydrogen is {typical:.3g}: positions look like {unit}. Convert them to angstrom."
            return Finding("length_unit", message)
    return None


def odd_forces(dataset: Dataset) -> Finding | None:
    """Frames whose own forces have another sign or unit than those of the frames around them."""
    if not _fits_as_a_whole(dataset):
        return None
    odd, factor = contradicted_forces(dataset)
    if not odd.any():
        return None
    message = (
        f"forces that fit the energies of close frames only if they are taken {np.median(factor[odd]):.3g} times, "
        "while the rest of the file fits: another sign or unit. Recompute these frames or leave them out."
    )
    return _finding(dataset, "odd_forces", message, odd)


def odd_energies(dataset: Dataset) -> Finding | None:
    """Frames whose energy does not fit those of close frames and the forces between them."""
    if not _fits_as_a_whole(dataset):
        return None
    odd, offset = contradicted_energies(dataset)
    if not odd.any():
        return None
    message = (
        f"energies that are off by {np.median(np.abs(offset[odd])):.3g} eV from what close frames and the forces "
        "between say: labels exchanged, or a calculation that did not converge. Recompute them or leave them out."
    )
    return _finding(dataset, "odd_energies", message, odd)


def atomic_energy_ev(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """All-electron energy of a free neutral atom in eV, good to 1 % from carbon on and 8 % for hydrogen.

    E = -0.768745 Z^(7/3) + Z^2 / 2 - 0.269900 Z^(5/3) hartree: Thomas-Fermi, Scott and Schwinger terms (J. Schwinger,
    Phys. Rev. A 24, 2353 (1981)).
    """
    z = numbers.astype(np.float64)
    energy: NDArray[np.float64] = HARTREE_EV * (-0.768745 * z ** (7 / 3) + z**2 / 2 - 0.269900 * z ** (5 / 3))
    return energy


def force_labels(dataset: Dataset) -> Finding | None:
    """Forces that are not -dE/dr, by sign or unit: seen from energies of close frames, where there are enough."""
    agreement = force_agreement(dataset)
    if agreement is None or not agreement.conclusive:
        return None
    if agreement.slope < 0:
        message = "have the wrong sign: they are the gradient +dE/dr. Negate them"
    elif not _SLOPE_RANGE[0] <= agreement.slope <= _SLOPE_RANGE[1]:
        message = f"do not fit the energies{_likely_unit(agreement)}. They must be eV/angstrom, energies eV"
    else:
        return None
    return Finding("force_labels", f"forces {message} (energy differences of {agreement}).")


def shared_frames(parts: Split) -> Finding | None:
    """Indices that occur in two parts."""
    every, times = np.unique(np.concatenate([parts.train, parts.valid, parts.test]), return_counts=True)
    twice = tuple(every[times > 1].tolist())
    return Finding("shared_frames", "frames in more than one part of the split (by index).", twice) if twice else None


def shared_groups(dataset: Dataset, parts: Split) -> Finding | None:
    """Groups of the data set that lie in two parts."""
    mixed = _in_two_parts(dataset.groups, _part_of(dataset, parts))
    return _finding(dataset, "shared_groups", "frames whose group (molecule) lies in two parts of the split.", mixed)


def shared_copies(dataset: Dataset, parts: Split) -> Finding | None:
    """Copies of one geometry, also moved, turned or with equal atoms exchanged, in two parts."""
    part = _part_of(dataset, parts)
    shared = np.zeros(len(dataset), bool)
    for prints in fingerprints(dataset):
        pairs = close_pairs(prints, _COPY_DISTANCE)
        ends = part[pairs]
        apart = (ends[:, 0] != ends[:, 1]) & (ends > 0).all(axis=1)
        shared[pairs[apart].reshape(-1)] = True
    message = (
        "copies of one geometry in two parts of the split. Drop duplicates or split with training.data.splits.split."
    )
    return _finding(dataset, "shared_copies", message, shared)


def _fits_as_a_whole(dataset: Dataset) -> bool:
    """Whether forces fit energies between most close frames; else the few right ones would look odd."""
    if dataset.forces is None:
        return False
    pairs = close_frames(dataset)
    apart = np.abs(pairs.energy - pairs.work) / np.maximum(np.abs(pairs.energy) + np.abs(pairs.work), _TINY_EV)
    return len(apart) >= _FEWEST_PAIRS and float(np.median(apart)) < _MOSTLY


def _likeliest(*findings: Finding | None) -> list[Finding]:
    """The one that names most frames: a wrong force makes some energies look wrong, and the other way round."""
    return sorted((f for f in findings if f), key=lambda f: -len(f.frames))[:1]


def require_known(dataset: Dataset, elements: Sequence[int]) -> None:
    """Refuse data with an element that a network does not know: its atoms would be left without features in silence.

    Args:
        dataset: to be learnt.
        elements: atomic numbers of the network.

    Raises:
        UnsoundData: naming the elements and the frames.
    """
    strange = ~np.isin(dataset.numbers, elements)
    where = np.bincount(_frame_of_atom(dataset), weights=strange, minlength=len(dataset)) > 0
    missing = np.unique(dataset.numbers[strange]).tolist()
    message = (
        f"the data hold {', '.join(symbols(missing))}, which the network does not know. Add {missing} to "
        "network.elements, or leave these frames out."
    )
    if finding := _finding(dataset, "unknown_elements", message, where):
        raise UnsoundData([finding])


def _bonds_of_hydrogen(structure: Structure) -> NDArray[np.float64]:
    """Distance of each hydrogen atom to the nearest atom."""
    distances = cKDTree(structure.positions).query(structure.positions[structure.numbers == 1], k=2)[0]
    return np.asarray(distances[:, 1])


def _likely_unit(agreement: ForceAgreement) -> str:
    """A unit that shrinks forces by some factor raises the slope dE / (-F dr) by the same."""
    unit, slope = min(_FORCE_SLOPES.items(), key=lambda item: abs(np.log(agreement.slope * item[1])))
    return f" and look like {unit}" if abs(agreement.slope * slope - 1) < _SLOPE_TOLERANCE else ""


def _finding(dataset: Dataset, code: str, message: str, bad: NDArray[np.bool_]) -> Finding | None:
    if not bad.any():
        return None
    number = dataset.frames if len(dataset.sources) == 1 else np.arange(len(dataset))
    return Finding(code, message, tuple(number[bad].tolist()))


def _frame_of_atom(dataset: Dataset) -> NDArray[np.int64]:
    return np.repeat(np.arange(len(dataset)), dataset.sizes)


def _whole_frames(dataset: Dataset, most_atoms: int = 200_000) -> Iterator[slice]:
    """Atoms in portions that end between frames."""
    start = 0
    while start < len(dataset.numbers):
        fitting = np.searchsorted(dataset.offsets, start + most_atoms, side="right") - 1
        next_frame = np.searchsorted(dataset.offsets, start, side="right")
        stop = int(dataset.offsets[max(fitting, next_frame)])
        yield slice(start, stop)
        start = stop


def _near(points: NDArray[np.float64]) -> NDArray[np.int64]:
    pairs: NDArray[np.int64] = cKDTree(points).query_pairs(COINCIDENT_ANGSTROM, output_type="ndarray").reshape(-1, 2)
    return pairs[:, 0]


def _coincident_in_cell(structure: Structure) -> bool:
    """Candidates from fractional coordinates, which stretch a distance by at most 1 / (smallest singular value)."""
    if structure.cell is None:
        return False
    fractional = structure.positions @ np.linalg.inv(structure.cell)
    fractional -= np.floor(fractional) * structure.pbc
    fractional[:, structure.pbc] %= 1.0
    reach = COINCIDENT_ANGSTROM / np.linalg.svd(structure.cell, compute_uv=False)[-1]
    tree = cKDTree(fractional, boxsize=np.where(structure.pbc, 1.0, 0.0))
    pairs = tree.query_pairs(min(reach, 0.5), output_type="ndarray").reshape(-1, 2)
    gap = fractional[pairs[:, 0]] - fractional[pairs[:, 1]]
    gap -= np.round(gap) * structure.pbc
    return bool((np.linalg.norm(gap @ structure.cell, axis=1) < COINCIDENT_ANGSTROM).any())


def _part_of(dataset: Dataset, parts: Split) -> NDArray[np.int64]:
    """1, 2, 3 for train, valid, test; 0 for a frame in none."""
    part = np.zeros(len(dataset), np.int64)
    for number, indices in enumerate((parts.train, parts.valid, parts.test), start=1):
        part[indices] = number
    return part


def _in_two_parts(label: NDArray[np.int64], part: NDArray[np.int64]) -> NDArray[np.bool_]:
    used = part > 0
    pairs = np.unique(np.stack([label[used], part[used]], axis=1), axis=0)
    labels, times = np.unique(pairs[:, 0], return_counts=True)
    return used & np.isin(label, labels[times > 1])
