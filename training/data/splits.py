"""Train, validation and test parts that share no near-duplicate frames.

Frames of one trajectory are alike, so a random split tests a model on what it has seen. Here frames are first joined
into groups: what the file says belongs together, runs of consecutive frames as long as the file's memory, and frames
closer than a tolerance in a fingerprint (training/data/fingerprints.py). Whole groups are then dealt to the parts.
"""

from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from contract.card import Split as SplitRecord
from training.data.dataset import Dataset
from training.data.errors import CannotSplit
from training.data.fingerprints import Fingerprints, close_pairs, fingerprints, principal

DEFAULT_TOLERANCE: Final = 0.01
_MEMORY_LAGS: Final = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70)
_FAR_LAG: Final = 200
_FORGOTTEN: Final = 0.9
_BLOCK_MEMORIES: Final = 2
_MOST_IN_BLOCK: Final = 0.01
_MOST_OF_PART: Final = 0.1
_PARTS: Final = ("train", "valid", "test")

Fractions = tuple[float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Indices of the three parts, ascending, and how they were made.

    Attributes:
        train, valid, test: int64, indices into the data set.
        groups: number of groups that were dealt.
        largest_group: frames in the largest one.
        seed: of the random order of groups.
        method: one sentence for the model card.
    """

    train: NDArray[np.int64]
    valid: NDArray[np.int64]
    test: NDArray[np.int64]
    groups: int
    largest_group: int
    seed: int
    method: str

    def record(self) -> SplitRecord:
        """The model card's entry."""
        return SplitRecord(
            method=self.method, train=len(self.train), valid=len(self.valid), test=len(self.test), seed=self.seed
        )


@dataclass(frozen=True, slots=True)
class Leakage:
    """How near the test frames lie to the training frames, in 1/angstrom (training/data/fingerprints.py).

    Attributes:
        compared: test frames with a training frame of the same formula; the others cannot leak.
        unseen: test frames without one.
        within_tolerance: fraction of all test frames closer than `tolerance` to a training frame.
        minimum, percentile_5, median: of the distance from a test frame to its nearest training frame; NaN if none is
            comparable.
        tolerance: 1/angstrom.
    """

    compared: int
    unseen: int
    within_tolerance: float
    minimum: float
    percentile_5: float
    median: float
    tolerance: float


def split(
    dataset: Dataset,
    fractions: Fractions = (0.8, 0.1, 0.1),
    seed: int = 0,
    *,
    block: int | Literal["auto"] = "auto",
    tolerance: float = DEFAULT_TOLERANCE,
) -> Split:
    """Split so that no frame has a near duplicate, or a neighbour of its own run, in another part.

    Args:
        dataset: frames in the order of their files.
        fractions: of train, valid and test; they sum to 1 and are met as nearly as whole groups allow.
        seed: the same seed gives the same parts.
        block: consecutive frames kept together; `auto` measures over how many frames the file remembers where it was.
            Only frames that are groups of their own are joined so: a molecule's conformers are one group already.
        tolerance: 1/angstrom, frames nearer than this are joined; 0 joins exact copies only.

    Raises:
        CannotSplit: fewer groups than parts, or groups so large that a part would miss its share by half.
        TooAlike: a tolerance that joins nearly everything.
    """
    if not tolerance >= 0:
        raise CannotSplit(f"tolerance is {tolerance}. Give a distance in 1/angstrom, such as {DEFAULT_TOLERANCE}.")
    prints = fingerprints(dataset)
    length = _memory_block(dataset, prints) if block == "auto" else block
    group = _joined(dataset, [*_runs(dataset, length), *(close_pairs(p, tolerance) for p in prints)])
    how = f"whole groups: runs of {length} consecutive frames, " if length > 1 else "whole groups: "
    return _dealt(group, fractions, seed, f"{how}frames within {tolerance:g}/angstrom of each other never parted")


def split_by_group(dataset: Dataset, fractions: Fractions = (0.8, 0.1, 0.1), seed: int = 0) -> Split:
    """Split by the data set's own groups, such as molecules; conformers of one are never in two parts."""
    return _dealt(_joined(dataset, []), fractions, seed, "whole groups as the file gives them (such as molecules)")


def split_at_random(dataset: Dataset, fractions: Fractions = (0.8, 0.1, 0.1), seed: int = 0) -> Split:
    """Split frame by frame. Leaks between near duplicates: a control to compare with, not a way to test a model."""
    return _dealt(np.arange(len(dataset)), fractions, seed, "single frames at random (leaks between near duplicates)")


def leakage(dataset: Dataset, parts: Split, tolerance: float = DEFAULT_TOLERANCE) -> Leakage:
    """Distance from each test frame to the nearest training frame of the same formula."""
    part = np.zeros(len(dataset), np.int8)
    part[parts.train], part[parts.test] = 1, 2
    distances = [_nearest(prints, part[prints.frames]) for prints in fingerprints(dataset)]
    distance = np.concatenate([np.zeros(0), *distances])
    known = distance[np.isfinite(distance)]
    low, five, half = np.percentile(known, (0, 5, 50)) if len(known) else (np.nan, np.nan, np.nan)
    return Leakage(
        compared=len(known),
        unseen=len(distance) - len(known),
        within_tolerance=float((distance <= tolerance).mean()) if len(distance) else 0.0,
        minimum=float(low),
        percentile_5=float(five),
        median=float(half),
        tolerance=tolerance,
    )


def _nearest(prints: Fingerprints, part: NDArray[np.int8]) -> NDArray[np.float64]:
    train, test = prints.values[part == 1], prints.values[part == 2]
    if not len(train) or not len(test):
        return np.full(len(test), np.inf)
    turned = principal(np.concatenate([train, test]))
    distance: NDArray[np.float64] = cKDTree(turned[: len(train)]).query(turned[len(train) :])[0]
    return distance


def _memory_block(dataset: Dataset, prints: list[Fingerprints]) -> int:
    """Frames per run: twice the lag at which frames are as different as frames far apart in the file; 1 if none.

    A file sorted by energy or shuffled has no memory. Runs stay below 1 % of the frames, so that there are enough.
    """
    longest = max((p.values for p in prints), key=len, default=np.zeros((0, 1), np.float32))
    if len(longest) < 2 * _FAR_LAG or len(np.unique(dataset.groups)) < len(dataset):
        return 1
    far = _typical_step(longest, _FAR_LAG)
    memory = next((lag for lag in _MEMORY_LAGS if _typical_step(longest, lag) >= _FORGOTTEN * far), _MEMORY_LAGS[-1])
    return 1 if memory == 1 else max(1, min(_BLOCK_MEMORIES * memory, int(_MOST_IN_BLOCK * len(dataset))))


def _typical_step(values: NDArray[np.float32], lag: int) -> float:
    return float(np.median(np.linalg.norm(values[lag:] - values[:-lag], axis=1)))


def _runs(dataset: Dataset, length: int) -> list[NDArray[np.int64]]:
    """Pairs [p, 2] that tie each frame to the next one of its run in its file."""
    if length < 1:
        raise CannotSplit(f"block is {length}. Give the number of consecutive frames to keep together, at least 1.")
    if length == 1:
        return []
    _, label, members = np.unique(dataset.groups, return_inverse=True, return_counts=True)
    alone = members[label] == 1
    order = np.lexsort((dataset.frames, dataset.source))
    first, second = order[:-1], order[1:]
    run = dataset.frames // length
    tied = (
        (dataset.source[first] == dataset.source[second]) & (run[first] == run[second]) & alone[first] & alone[second]
    )
    return [np.stack([first[tied], second[tied]], axis=1)]


def _joined(dataset: Dataset, ties: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """A group label [n]: the data set's own groups, joined wherever a tie [p, 2] links two frames."""
    _, own = np.unique(dataset.groups, return_inverse=True)
    pairs = own[np.concatenate([np.zeros((0, 2), np.int64), *ties])]
    size = int(own.max(initial=-1)) + 1
    graph = coo_matrix((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    component: NDArray[np.int64] = connected_components(graph, directed=False)[1]
    return component[own].astype(np.int64)


def _dealt(group: NDArray[np.int64], fractions: Fractions, seed: int, method: str) -> Split:
    """Deal whole groups, large ones first, each to the part that lacks most of its share and has room for it.

    A group larger than a tenth of a part goes to another where possible, so that no part is made of one cluster.
    """
    wanted = _wanted(fractions, len(group))
    _, label, sizes = np.unique(group, return_inverse=True, return_counts=True)
    part_of = _parts_of_groups(sizes, wanted, np.random.default_rng(seed))
    part = part_of[label]
    _refuse_uneven(part, wanted, sizes)
    train, valid, test = (np.flatnonzero(part == p) for p in range(3))
    return Split(train, valid, test, len(sizes), int(sizes.max()), seed, method)


def _parts_of_groups(
    sizes: NDArray[np.int64], wanted: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.int64]:
    shuffled = rng.permutation(len(sizes))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    lacking = wanted.copy()
    part_of = np.zeros(len(sizes), np.int64)
    for g in order:
        part_of[g] = _part_with_room(int(sizes[g]), wanted, lacking)
        lacking[part_of[g]] -= sizes[g]
    return part_of


def _part_with_room(size: int, wanted: NDArray[np.float64], lacking: NDArray[np.float64]) -> int:
    share = np.divide(lacking, wanted, out=np.full(3, -np.inf), where=wanted > 0)
    room = (wanted > 0) & (lacking >= size)
    for fits in (room & (size <= np.maximum(1.0, _MOST_OF_PART * wanted)), room):
        if fits.any():
            return int(np.argmax(np.where(fits, share, -np.inf)))
    return int(np.argmax(lacking))


def _wanted(fractions: Fractions, count: int) -> NDArray[np.float64]:
    shares = np.asarray(fractions, np.float64)
    if shares.shape != (3,) or not (shares >= 0).all() or abs(shares.sum() - 1.0) > 1e-9 or not shares[0] > 0:
        raise CannotSplit(
            f"fractions are {tuple(fractions)}. Give three numbers (train, valid, test) that sum to 1, train above 0."
        )
    if not count:
        raise CannotSplit("the data set has no frames to split.")
    return shares * count


def _refuse_uneven(part: NDArray[np.int64], wanted: NDArray[np.float64], sizes: NDArray[np.int64]) -> None:
    """A part must not be empty when it was asked for, nor more than half off its share."""
    got = np.bincount(part, minlength=3)
    for name, have, want in zip(_PARTS, got, wanted, strict=True):
        if want > 0 and not 0.5 * want <= have <= 1.5 * want:
            raise CannotSplit(
                f"{name} would have {have} frames where {want:.0f} were asked for: the {len(sizes)} groups are too few "
                f"or too large (the largest holds {sizes.max()} of {sizes.sum()} frames). Lower `tolerance` or "
                "`block`, or change the fractions."
            )
