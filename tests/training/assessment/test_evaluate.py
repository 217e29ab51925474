"""Errors on labelled files, by whatever parts them, and two models side by side."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from contract.repository import ModelRepository
from training.assessment.bootstrap import Sums, draws, errors
from training.assessment.command import evaluate_app
from training.assessment.compare import UNDECIDED, compare
from training.assessment.errors import NoSuchModel, NothingToJudge
from training.assessment.evaluate import ENERGY, FORCES, PER_ATOM, SHIFTED, evaluate
from training.assessment.judged import Judged, judged
from training.assessment.labelled import Reading
from training.assessment.page import comparison_page, evaluation_page, render
from training.data.checks import UnsoundData

KIND = Reading(by="temperature")


def test_errors_are_given_a_frame_an_atom_and_without_a_constant_of_each_formula(model: Judged, extxyz: Path) -> None:
    found = evaluate(model, [extxyz], KIND)
    assert len(found.dataset) == 24
    assert found.errors[ENERGY].mae.value == pytest.approx(50.0, rel=1e-3)
    assert found.errors[PER_ATOM].mae.value == pytest.approx(50.0 * (2 / 3 + 1 / 5) / 3, rel=1e-3)
    assert found.errors[SHIFTED].rmse.value < 0.05
    assert found.errors[FORCES].rmse.value < 0.05
    assert found.errors[FORCES].count == 3 * len(found.dataset.numbers)


def test_frames_are_parted_by_size_formula_and_a_key_of_the_file(model: Judged, extxyz: Path) -> None:
    found = evaluate(model, [extxyz], KIND)
    assert [(row.name, row.frames) for row in found.groups["size"]] == [("1 to 5 atoms", 24)]
    assert {row.name: row.frames for row in found.groups["formula"]} == {"H2O": 8, "CH4": 8, "CO2": 8}
    assert {row.name: row.frames for row in found.groups["kind"]} == {"300 K": 12, "600 K": 12}
    assert [row[:2] for row in found.elements] == [("H", 48), ("C", 16), ("O", 24)]


def test_elements_that_the_model_does_not_know_are_left_out_and_named(model: Judged, extxyz: Path) -> None:
    assert any("1 frames with elements" in note for note in evaluate(model, [extxyz]).notes)


def test_the_spread_of_the_members_is_judged_by_the_errors(model: Judged, extxyz: Path) -> None:
    spread = evaluate(model, [extxyz]).spread
    assert spread is not None
    assert len(spread.held) == 2
    assert spread.scale > 0.0


def test_labels_that_are_no_numbers_are_refused_with_their_frames(model: Judged, extxyz: Path, tmp_path: Path) -> None:
    lines = extxyz.read_text().splitlines(keepends=True)
    lines[1] = lines[1].replace("REF_energy=", "REF_energy=nan ignored=")
    (tmp_path / "bad.xyz").write_text("".join(lines))
    with pytest.raises(UnsoundData, match=r"not_finite.*Frames 0"):
        evaluate(model, [tmp_path / "bad.xyz"])


def test_a_file_without_any_known_element_is_refused(model: Judged, extxyz: Path, tmp_path: Path) -> None:
    lines = extxyz.read_text().splitlines(keepends=True)
    (tmp_path / "iron.xyz").write_text("".join(lines[-3:]))
    with pytest.raises(NothingToJudge, match=r"iron\.xyz"):
        evaluate(model, [tmp_path / "iron.xyz"])


def test_a_name_that_is_no_model_is_refused_with_what_is_published(tmp_path: Path) -> None:
    with pytest.raises(NoSuchModel, match="Published are: none"):
        judged("nothing", ModelRepository(tmp_path))


def test_a_published_model_is_asked_as_it_is_served(project: Path, shared_data: Path) -> None:
    served = judged("malonaldehyde", ModelRepository(project / "model_repo"))
    assert (served.members, served.digest) == (4, ModelRepository(project / "model_repo").load("malonaldehyde").digest)
    assert served.what == f"published, digest {served.digest[:12]}, with ONNX Runtime as it is served"
    assert served.scale > 1.0


def test_the_better_of_two_models_is_named_only_if_the_difference_is_beyond_chance(
    model: Judged, run_folder: Callable[..., Path], extxyz: Path
) -> None:
    other = judged(str(run_folder(1)), ModelRepository(Path("nowhere")))
    found = compare(model, other, [extxyz])
    contest = found.contests[FORCES]
    assert contest.better == model.name
    assert contest.mae_difference.low > 0.0
    assert contest.mae_difference.value == pytest.approx(contest.second.mae.value - contest.first.mae.value)
    same = compare(model, model, [extxyz])
    assert {contest.better for contest in same.contests.values()} == {UNDECIDED}
    assert (found.left_out, min(found.milliseconds) > 0.0) == (1, True)


def test_files_with_and_without_forces_are_compared_by_energies_alone(
    model: Judged, extxyz: Path, tmp_path: Path
) -> None:
    bare = tmp_path / "bare.xyz"
    bare.write_text("1\nREF_energy=-1.0 Properties=species:S:1:pos:R:3\nH 0 0 0\n")
    found = compare(model, model, [extxyz, bare])
    assert len(found.dataset) == 25
    assert list(found.contests) == [ENERGY, PER_ATOM, SHIFTED]


def test_an_interval_of_the_mean_is_that_of_its_standard_error() -> None:
    error = np.random.default_rng(3).normal(size=4000)
    sums = Sums.of(error, np.arange(4000), 4000)
    mae = errors(sums, draws(4000)).mae
    standard_error = np.abs(error).std() / np.sqrt(4000)
    assert mae.high - mae.low == pytest.approx(2 * 1.96 * standard_error, rel=0.1)


def test_whole_molecules_are_drawn_so_that_copies_do_not_narrow_an_interval() -> None:
    error = np.random.default_rng(3).normal(size=40)
    single = errors(Sums.of(error, np.arange(40), 40), draws(40)).mae
    copied = errors(Sums.of(np.tile(error, 9), np.tile(np.arange(40), 9), 40), draws(40)).mae
    assert (copied.low, copied.high) == pytest.approx((single.low, single.high))


def test_pages_stand_alone_and_show_every_table(model: Judged, run_folder: Callable[..., Path], extxyz: Path) -> None:
    other = judged(str(run_folder(1)), ModelRepository(Path("nowhere")))
    for page in (evaluation_page(evaluate(model, [extxyz], KIND)), comparison_page(compare(model, other, [extxyz]))):
        text = render(page)
        assert "<script" not in text
        assert "http" not in text.split("<body>")[1].replace("http://www.w3.org", "")
        assert all(section.heading in text for section in page.sections)
        assert text.count("<svg") >= 2


def test_the_command_takes_files_or_the_protocol(
    run_folder: Callable[..., Path], extxyz: Path, hdf5: Path, tmp_path: Path
) -> None:
    run, page = str(run_folder(0)), str(tmp_path / "page.html")
    said = CliRunner().invoke(evaluate_app, [run, str(extxyz), "--by", "temperature", "--page", page])
    assert said.exit_code == 0, said.output
    assert "By kind" in said.output
    said = CliRunner().invoke(evaluate_app, ["comp6", run, str(hdf5), "--forces-are", "forces", "--page", page])
    assert said.exit_code == 0, said.output
    assert "relative energy" in said.output
    said = CliRunner().invoke(evaluate_app, ["nothing", str(extxyz), "--page", page])
    assert said.exit_code == 1
