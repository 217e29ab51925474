"""Bead frames survive their file, and are parted by whole blocks of time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.coarse.errors import BadFrames
from training.coarse.frames import BeadFrame, BeadFrames, State, read_frames, split_by_block, write_frames
from training.coarse.repulsion import fit_repulsion

COLD, HOT = State(kelvin=300, density=0.8), State(kelvin=600, density=0.4)


def _frames(liquid: Any) -> BeadFrames:
    count = len(liquid.frames)
    state = np.repeat([0, 1], count // 2)
    block = np.tile(np.repeat(np.arange(10), 2), 2)
    return BeadFrames(liquid.frames, liquid.forces, (COLD, HOT), state, block)


def test_frames_are_read_as_they_were_written(liquid: Any, tmp_path: Path) -> None:
    written = [
        BeadFrame(frame.positions, force, frame.cell, state, block)
        for frame, force, state, block in zip(
            liquid.frames[:3], liquid.forces, [HOT, COLD, HOT], [0, 0, 1], strict=False
        )
    ]
    write_frames(written, "S", tmp_path / "frames.extxyz")
    found = read_frames(tmp_path / "frames.extxyz")
    assert found.states == (HOT, COLD)
    assert found.state.tolist() == [0, 1, 0]
    assert found.block.tolist() == [0, 0, 1]
    for before, after, force in zip(written, found.structures, found.forces, strict=True):
        np.testing.assert_allclose(after.positions, before.positions, atol=1e-7)
        np.testing.assert_allclose(after.cell, before.cell)
        np.testing.assert_allclose(force, before.forces, atol=1e-7)


def test_a_file_without_states_is_refused_and_says_what_it_lacks(tmp_path: Path) -> None:
    (tmp_path / "plain.xyz").write_text('1\nLattice="9 0 0 0 9 0 0 0 9" Properties=species:S:1:pos:R:3\nS 0 0 0\n')
    with pytest.raises(BadFrames, match="frame 0 has no REF_forces, block, density, kelvin"):
        read_frames(tmp_path / "plain.xyz")


def test_parts_are_whole_blocks_of_each_state_and_no_frame_at_an_edge_is_next_to_another_part(liquid: Any) -> None:
    parts = split_by_block(_frames(liquid), valid=1, test=2)
    blocks = {name: set(part.block.tolist()) for name, part in parts.items()}
    assert (blocks["train"], blocks["valid"], blocks["test"]) == (set(range(7)), {7}, {8, 9})
    assert [len(parts[name]) for name in ("train", "valid", "test")] == [2 * 13, 2 * 1, 2 * 4]
    assert all(set(part.state.tolist()) == {0, 1} for part in parts.values())


def test_too_few_blocks_for_three_parts_are_refused(liquid: Any) -> None:
    with pytest.raises(BadFrames, match=r"300 K, 0\.8 g/cm3 has 10 blocks"):
        split_by_block(_frames(liquid), valid=5, test=5)


def test_states_can_be_chosen_and_frames_thinned(liquid: Any) -> None:
    frames = _frames(liquid)
    hot = frames.of_states([HOT])
    assert hot.states == (HOT,)
    assert set(hot.state.tolist()) == {0}
    assert len(hot.every(4)) == 5
    assert hot.variances() == pytest.approx([np.mean(np.concatenate(liquid.forces[20:]) ** 2)])
    turned = frames.of_states([HOT, COLD])
    assert turned.variances() == pytest.approx(frames.variances()[::-1])
    assert np.isnan(frames.at(frames.state == 1).variances()[0])


def test_a_state_without_frames_cannot_be_chosen(liquid: Any) -> None:
    with pytest.raises(BadFrames, match=r"no frames at 500 K, 0\.4 g/cm3; those at hand are of 300 K"):
        _frames(liquid).of_states([State(kelvin=500, density=0.4)])


def test_the_prior_begins_where_pairs_do_and_is_as_strong_as_the_forces_are(liquid: Any) -> None:
    prior = fit_repulsion(_frames(liquid), 6.0)
    assert prior.onset_angstrom == pytest.approx(2.4, abs=0.1)
    assert prior.force_ev_angstrom == pytest.approx(np.abs(np.concatenate(liquid.forces)).mean(), abs=1e-4)
