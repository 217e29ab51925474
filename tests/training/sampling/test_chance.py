"""Frames from waves of trajectories, and an end where none comes."""

import pytest

from contract.structures import Structure, checked_structure
from training.sampling.chance import frames_of_waves
from training.sampling.errors import NoSurvivor

FRAME = checked_structure([13], [[0.0, 0.0, 0.0]])


def test_waves_go_on_until_there_are_enough_frames() -> None:
    asked: list[tuple[int, int]] = []

    def wave(number: int, missing: int) -> list[Structure]:
        asked.append((number, missing))
        return [FRAME] * (number % 3)

    assert len(frames_of_waves(4, wave)) == 4
    assert asked == [(0, 4), (1, 4), (2, 3), (3, 1), (4, 1)]


def test_waves_that_bring_nothing_end_with_what_to_change() -> None:
    with pytest.raises(NoSurvivor, match=r"0 of 5 frames.*closest_angstrom"):
        frames_of_waves(5, lambda number, missing: [])
