"""The harvest: what the gateway keeps for training, read by training's own loader, bounded, and safe from kill -9."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from test_teachers import CO, M, ask, school
from typer.testing import CliRunner
from understudy.inprocess import InProcess

from contract.structures import Structure, checked_structure
from service.app import create_app, open_harvest
from service.harvest import FILE_STRUCTURES, Harvest, Harvested, HarvestUnusable, files_of
from service.harvest_cli import app
from service.receipts import sha256_of
from service.settings import Settings
from training.data.errors import UnreadableData
from training.data.extxyz import ExtxyzKeys, read_extxyz, read_structures
from training.data.provenance import Provenance

__all__ = ["school"]
PROVENANCE = Provenance(name="harvest", origin="here", licence="none", level_of_theory="none", citation="none")
LARGE = 10**9


def dimer(distance: float = 1.2, cell: Any = None, pbc: Any = None) -> Structure:
    return checked_structure([6, 8], [[0.0, 0.0, 0.0], [0.0, 0.0, distance]], cell, pbc)


def harvested(structure: Structure, reasons: Sequence[str] = ("out_of_domain",), **teacher: Any) -> Harvested:
    forces = np.full((len(structure), 3), 0.1, np.float32)
    return Harvested(structure, sha256_of(structure), reasons, "m", "1", "d" * 64, -1.25, 0.5, forces, **teacher)


def harvest_of(folder: Path, max_bytes: int = LARGE, max_structures: int = LARGE) -> Harvest:
    return Harvest(folder, max_bytes, max_structures)


def structures_in(folder: Path) -> list[Structure]:
    return [structure for path in files_of(folder) for structure in read_structures(path)]


def gateway_of(repository: Path, **others: Any) -> httpx.Client:
    app = create_app(Settings(model_repo=repository, workers=2, **others))
    return httpx.Client(transport=InProcess(app), base_url="http://127.0.0.1", timeout=60.0)


def wait_for(folder: Path, count: int) -> list[Structure]:
    for _ in range(500):
        if len(there := structures_in(folder)) >= count:
            return there
        time.sleep(0.01)
    raise AssertionError(f"{count} structures never came")


# ---------------------------------------------------------------- from the gateway into training


def test_the_gateway_harvests_what_is_flagged_and_training_reads_it(school: Path, tmp_path: Path) -> None:
    with gateway_of(school, harvest=tmp_path, teacher_fraction=0.0) as gateway:
        (answer,) = ask(gateway, CO, model="teacher")
        ask(gateway, CO, M, model="teacher")
        (structure,) = wait_for(tmp_path, 1)
        assert 'understudy_harvest_total{outcome="kept"} 1.0' in gateway.get("/metrics").text
    np.testing.assert_array_equal(structure.positions, CO["positions"])
    (path,) = files_of(tmp_path)
    keys = ExtxyzKeys(energy=("predicted_energy",), forces=("predicted_forces",))
    dataset = read_extxyz(path, PROVENANCE, keys)
    assert dataset.energy.tolist() == pytest.approx([answer["energy"]])
    with pytest.raises(UnreadableData, match="no energy"):
        read_extxyz(path, PROVENANCE)  # nobody trains on a model's answers by accident


def test_a_large_gap_to_the_teacher_is_a_reason(school: Path, tmp_path: Path) -> None:
    with gateway_of(school, harvest=tmp_path, teacher_fraction=1.0) as gateway:
        ask(gateway, M)
        wait_for(tmp_path, 1)
    (path,) = files_of(tmp_path)
    keys = ExtxyzKeys(energy=("teacher_energy",), forces=("teacher_forces",))
    with gateway_of(school) as gateway:
        (teacher,) = ask(gateway, M, model="teacher")
    assert read_extxyz(path, PROVENANCE, keys).energy.tolist() == pytest.approx([teacher["energy"]])
    assert "reasons=teacher_gap " in path.read_text()


def test_nothing_of_a_caller_is_stored_unless_a_folder_is_named(school: Path, tmp_path: Path) -> None:
    assert Settings().harvest is None
    with gateway_of(school) as gateway:
        ask(gateway, CO)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_used_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HarvestUnusable, match="UNDERSTUDY_HARVEST"):
        open_harvest(Settings(harvest=tmp_path / "file"))


# ---------------------------------------------------------------- files


finite = st.floats(-1e4, 1e4)


@settings(max_examples=50, deadline=None)
@given(arrays(np.float64, (3, 3), elements=finite), st.sampled_from([None, (True, True, True), (True, False, False)]))
def test_structures_are_read_back_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, positions: np.ndarray, pbc: Any
) -> None:
    cell = None if pbc is None else np.array([[5.1, 0.0, 0.0], [0.3, 6.7, 0.0], [0.1, 0.2, 1 / 3]])
    structure = checked_structure([1, 8, 1], positions, cell, pbc)
    harvest = harvest_of(tmp_path_factory.mktemp("harvest"))
    assert harvest.keep(harvested(structure)) == "kept"
    (back,) = structures_in(harvest.folder)
    assert sha256_of(back) == sha256_of(structure)


def test_repeats_are_left_out_also_after_a_restart(tmp_path: Path) -> None:
    assert [harvest_of(tmp_path).keep(harvested(dimer())) for _ in range(2)] == ["kept", "duplicate"]


def test_it_is_bounded_in_structures_and_bytes_and_takes_more_once_files_are_gone(tmp_path: Path) -> None:
    few = harvest_of(tmp_path / "few", max_structures=2)
    assert [few.keep(harvested(dimer(d))) for d in (1.0, 1.1, 1.2, 1.0)] == ["kept", "kept", "full", "duplicate"]
    (path,) = files_of(few.folder)
    path.unlink()
    assert few.keep(harvested(dimer(1.2))) == "kept"
    small = harvest_of(tmp_path / "small", max_bytes=2 * path_size(few.folder) + 10)
    outcomes = [small.keep(harvested(dimer(d))) for d in (1.0, 1.1, 1.2)]
    assert outcomes == ["kept", "kept", "full"]
    assert path_size(small.folder) <= small.max_bytes


def path_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in files_of(folder))


def test_files_roll(tmp_path: Path) -> None:
    harvest = harvest_of(tmp_path)
    for n in range(FILE_STRUCTURES + 1):
        harvest.keep(harvested(dimer(1.0 + n / 100)))
    assert [len(read_structures(path)) for path in files_of(tmp_path)] == [FILE_STRUCTURES, 1]


def test_two_gateways_share_a_folder(tmp_path: Path) -> None:
    first, second = harvest_of(tmp_path), harvest_of(tmp_path)
    first.keep(harvested(dimer(1.0)))
    second.keep(harvested(dimer(1.1)))
    assert len(structures_in(tmp_path)) == 2


def test_a_folder_that_went_away_is_an_outcome_not_an_error(tmp_path: Path) -> None:
    harvest = harvest_of(tmp_path / "harvest")
    harvest.folder.rmdir()
    assert harvest.keep(harvested(dimer())) == "failed"
    assert harvest.outcomes == {"failed": 1}


WRITER = """
import itertools, resource, signal, sys
from pathlib import Path
import numpy as np
from contract.structures import checked_structure
from service.harvest import Harvest, Harvested
from service.receipts import sha256_of

def keep(distance):
    structure = checked_structure([6, 8], [[0.0, 0.0, 0.0], [0.0, 0.0, distance]])
    forces = np.zeros((2, 3), np.float32)
    return harvest.keep(Harvested(structure, sha256_of(structure), ["x"], "m", "1", "d", 0.0, None, forces))

harvest = Harvest(Path(sys.argv[1]), 10**9, 10**9)
if len(sys.argv) > 2:  # files may grow to so many bytes: the disk is full
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
for n in itertools.count() if len(sys.argv) == 2 else range(10):
    print(keep(1.0 + n / 1000), flush=True)
"""


def writer(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_kill_9_in_the_middle_of_writing_leaves_whole_structures_only(tmp_path: Path) -> None:
    for _ in range(3):
        with writer(tmp_path) as process:
            assert process.stdout is not None
            for _ in range(100):
                process.stdout.readline()
            process.send_signal(signal.SIGKILL)
        assert structures_in(tmp_path)
    assert len(structures_in(tmp_path)) >= 100
    for leftover in tmp_path.glob("*.tmp"):
        os.utime(leftover, (0, 0))
    assert harvest_of(tmp_path).keep(harvested(dimer(3.0))) == "kept"
    assert not list(tmp_path.glob("*.tmp"))


def test_a_full_disk_is_counted_and_what_is_there_stays_whole(tmp_path: Path) -> None:
    with writer(tmp_path, 1000) as process:
        assert process.stdout is not None
        outcomes = process.stdout.read().split()
    kept = outcomes.count("kept")
    assert 0 < kept < 10
    assert outcomes.count("failed") == 10 - kept
    assert len(structures_in(tmp_path)) == kept
    assert not list(tmp_path.glob("*.tmp"))


# ---------------------------------------------------------------- the command


def test_the_command_lists_and_exports(tmp_path: Path) -> None:
    harvest = harvest_of(tmp_path / "harvest")
    for n, reasons in enumerate([("out_of_domain",), ("edge_of_domain", "high_std"), ("high_std",)]):
        harvest.keep(harvested(dimer(1.0 + n / 10), reasons))
    environment = {"UNDERSTUDY_HARVEST": str(harvest.folder)}
    listed = CliRunner().invoke(app, ["list"], env=environment)
    assert "3 structures in 1 files" in listed.output
    assert "edge_of_domain,high_std" in listed.output
    out = tmp_path / "out.extxyz"
    exported = CliRunner().invoke(app, ["export", str(out), "--reason", "high_std"], env=environment)
    assert f"Wrote 2 structures to {out}" in exported.output
    assert [structure.positions[1, 2] for structure in read_structures(out)] == [1.1, 1.2]
