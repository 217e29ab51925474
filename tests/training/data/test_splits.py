from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.card import DataSource
from training.data.dataset import Dataset, concatenate, ragged, uniform
from training.data.errors import CannotSplit
from training.data.splits import Split, leakage, split, split_at_random, split_by_group

SOURCE = DataSource(
    name="made up",
    origin="here",
    licence="CC0-1.0",
    sha256="0" * 64,
    count=1,
    level_of_theory="none",
    citation="nobody",
)


def dimers(lengths: list[float]) -> Dataset:
    """One H2 a frame, with these bond lengths in angstrom."""
    positions = np.zeros((len(lengths), 2, 3))
    positions[:, 1, 2] = lengths
    return uniform([1, 1], positions, np.zeros(len(lengths)), [SOURCE])


def molecules(counts: list[int]) -> Dataset:
    """counts[i] conformers of molecule i, an atom of another element each."""
    group = np.repeat(np.arange(len(counts)), counts)
    return ragged([[g % 100 + 1] for g in group], [np.zeros((1, 3))] * len(group), 0.0 * group, [SOURCE], groups=group)


def part_of(parts: Split, count: int) -> np.ndarray:
    part = np.full(count, -1)
    for number, indices in enumerate((parts.train, parts.valid, parts.test)):
        part[indices] = number
    return part


@given(st.lists(st.integers(1, 20), min_size=3, max_size=60), st.integers(0, 100))
def test_every_frame_is_in_one_part_and_no_group_in_two(counts: list[int], seed: int) -> None:
    dataset = molecules(counts)
    try:
        parts = split_by_group(dataset, (0.6, 0.2, 0.2), seed)
    except CannotSplit:
        return
    part = part_of(parts, len(dataset))
    assert sorted(np.concatenate([parts.train, parts.valid, parts.test])) == list(range(len(dataset)))
    assert all(len(set(part[dataset.groups == g])) == 1 for g in np.unique(dataset.groups))


def test_fractions_are_met_as_nearly_as_whole_groups_allow() -> None:
    parts = split_by_group(molecules([7] * 50), (0.8, 0.1, 0.1), seed=3)
    assert (len(parts.train), len(parts.valid), len(parts.test)) == (280, 35, 35)
    assert (parts.groups, parts.largest_group) == (50, 7)


def test_a_small_part_is_not_filled_by_one_large_group() -> None:
    parts = split_by_group(molecules([95, *[5] * 181]), (0.8, 0.1, 0.1), seed=0)
    assert 0 in parts.train
    assert len(parts.test) == 100


def test_the_same_seed_gives_the_same_parts_and_another_seed_others(springs: Callable[..., Dataset]) -> None:
    dataset = springs(300)
    first, again, other = (split(dataset, seed=s) for s in (5, 5, 6))
    assert np.array_equal(first.test, again.test)
    assert np.array_equal(first.train, again.train)
    assert not np.array_equal(first.test, other.test)


def test_frames_within_the_tolerance_share_a_part_also_through_a_chain() -> None:
    lengths = [1.0, 1.001, 1.002, *np.linspace(1.1, 3.0, 60)]
    order = np.random.default_rng(0).permutation(len(lengths))
    parts = split(dimers([lengths[i] for i in order]), (0.6, 0.2, 0.2), block=1, tolerance=0.0015)
    part = part_of(parts, len(lengths))
    chain = part[np.isin(order, (0, 1, 2))]
    assert len(set(chain)) == 1
    assert parts.largest_group == 3


def test_no_test_frame_lies_within_the_tolerance_of_a_training_frame(springs: Callable[..., Dataset]) -> None:
    dataset = springs(400)
    assert leakage(dataset, split_at_random(dataset), 0.02).within_tolerance > 0
    found = leakage(dataset, split(dataset, tolerance=0.02, block=1), 0.02)
    assert found.within_tolerance == 0
    assert found.minimum > 0.02
    assert found.unseen == 0


def test_runs_of_consecutive_frames_stay_together() -> None:
    dataset = dimers(list(np.random.default_rng(0).permutation(np.linspace(0.5, 3.0, 120))))
    part = part_of(split(dataset, block=6, tolerance=0.0), 120)
    assert all(len(set(part[start : start + 6])) == 1 for start in range(0, 120, 6))


def test_runs_follow_the_file_not_the_order_after_a_cut() -> None:
    whole = dimers(list(np.linspace(0.5, 3.0, 120)))
    kept = whole.select(np.flatnonzero(np.arange(120) % 3 > 0))
    parts = split(kept, block=6, tolerance=0.0)
    assert parts.groups == 20
    assert parts.largest_group == 4


def test_runs_do_not_reach_from_one_file_into_the_next() -> None:
    both = concatenate([dimers(list(np.linspace(0.5, 1.0, 9))), dimers(list(np.linspace(2.0, 3.0, 9)))])
    assert split(both, (0.5, 0.5, 0.0), block=100, tolerance=0.0).groups == 2


def test_runs_never_join_two_molecules() -> None:
    assert split(molecules([5] * 40), block=7, tolerance=0.0).groups == 40


def test_the_memory_of_a_trajectory_is_measured_and_a_shuffled_file_has_none(springs: Callable[..., Dataset]) -> None:
    trajectory = springs(2000, step=0.03)
    shuffled = trajectory.select(np.random.default_rng(0).permutation(2000))
    shuffled = uniform(
        trajectory.numbers[:4], shuffled.positions.reshape(-1, 4, 3), shuffled.energy, trajectory.sources
    )
    assert "consecutive" in split(trajectory).method
    assert "consecutive" not in split(shuffled).method


def test_a_tolerance_that_joins_everything_is_refused_with_advice() -> None:
    with pytest.raises(CannotSplit, match=r"largest holds 50 of 50 frames\)\. Lower `tolerance`"):
        split(dimers(list(np.linspace(1.0, 1.1, 50))), tolerance=0.01)


def test_more_parts_than_groups_are_refused() -> None:
    with pytest.raises(CannotSplit, match=r"valid would have 0 frames where 1 were asked for|would have"):
        split_by_group(molecules([5, 5]), (0.8, 0.1, 0.1))


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.2, -0.1, -0.1), (0.0, 0.5, 0.5), (np.nan, 0.5, 0.5)])
def test_fractions_that_are_none_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(CannotSplit, match="that sum to 1"):
        split_by_group(molecules([1] * 10), fractions)


def test_an_unwanted_part_stays_empty() -> None:
    parts = split_by_group(molecules([1] * 10), (0.8, 0.2, 0.0))
    assert (len(parts.train), len(parts.valid), len(parts.test)) == (8, 2, 0)


def test_a_block_below_one_or_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(CannotSplit, match="block is 0"):
        split(dimers([1.0, 2.0]), block=0)
    with pytest.raises(CannotSplit, match="tolerance is -1"):
        split(dimers([1.0, 2.0]), block=1, tolerance=-1)


def test_an_empty_data_set_is_refused() -> None:
    with pytest.raises(CannotSplit, match="no frames"):
        split_by_group(dimers([1.0]).select([]))


def test_the_split_on_the_card_has_the_counts_and_the_seed() -> None:
    record = split(dimers(list(np.linspace(0.5, 3, 50))), seed=9, block=1, tolerance=1e-5).record()
    assert (record.train, record.valid, record.test, record.seed) == (40, 5, 5, 9)
    assert record.method == "whole groups: frames within 1e-05/angstrom of each other never parted"


def test_molecules_that_training_never_saw_cannot_leak() -> None:
    dataset = molecules([1] * 20)
    found = leakage(dataset, split_by_group(dataset))
    assert (found.compared, found.unseen, found.within_tolerance) == (0, 2, 0.0)
    assert np.isnan(found.median)


def test_a_split_of_malonaldehyde_leaks_less_than_a_random_one(shared_data: Path) -> None:
    arrays = np.load(shared_data / "qm22/malonaldehyde.npz")
    keep = np.flatnonzero(arrays["energy"] <= 4.0)
    dataset = uniform(arrays["numbers"], arrays["positions"][keep], arrays["energy"][keep], [SOURCE])
    parts = split(dataset, seed=1)
    apart, random = leakage(dataset, parts), leakage(dataset, split_at_random(dataset, seed=1))
    assert len(parts.train) == pytest.approx(0.8 * len(keep), rel=0.01)
    assert apart.within_tolerance == 0.0
    assert random.within_tolerance > 0.02
    assert apart.median > 1.3 * random.median
