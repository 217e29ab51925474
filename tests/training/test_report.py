"""A report of real small runs: complete, self-contained, right, and safe to open."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from contract.card import Comparison, Metric
from training.evaluation import load_predictions
from training.fit import Epoch
from training.objectives.forces import EnergyForceObjective
from training.pipelines.committee import CommitteeConfig
from training.pipelines.distillation import DistillationConfig
from training.pipelines.registry import train_run
from training.report import IncompleteRun, write_report
from training.report.figures import learning_curves
from training.report.folder import Finished, read_finished
from training.report.page import render

NETWORK = {
    "elements": [1, 8],
    "features": 4,
    "sensitivities": 6,
    "interaction_layers": 1,
    "atom_layers": 1,
    "soft_min_angstrom": 0.7,
    "soft_max_angstrom": 2.5,
    "cutoff_angstrom": 3.0,
}
FIT = {"learning_rate": 5e-3, "batch_size": 8, "max_batch_size": 16, "max_epochs": 8, "seed": 3}


class Page(HTMLParser):
    """What a browser would find: tags, ids, and everything that points somewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            if name == "id":
                self.ids.append(value or "")
            elif name in ("src", "href", "xlink:href", "data", "action"):
                (self.links if tag == "a" else self.loaded).append(value or "")

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def springs(path: Path, *, forces: bool) -> Path:
    """H2O with springs between all atoms, as an .npz of the QM-22 reader."""
    rng = np.random.default_rng(0)
    positions = 1.2 * np.array([[0.0, 0, 0], [1, 0, 0], [0.5, 0.866, 0]]) + rng.normal(0, 0.08, (160, 3, 3))
    bonds = positions[:, :, None] - positions[:, None]
    lengths = np.linalg.norm(bonds, axis=3) + np.eye(3)
    stretched = np.where(np.eye(3), 0.0, lengths - 1.2)
    arrays = {"numbers": [1, 1, 8], "positions": positions, "energy": 0.5 * (stretched**2).sum(axis=(1, 2))}
    if forces:
        arrays["forces"] = -2.0 * (stretched[..., None] * bonds / lengths[..., None]).sum(axis=2)
    np.savez(path, **arrays)
    return path


def committee(data: Path, name: str, **changes: object) -> CommitteeConfig:
    provenance = {
        "name": "springs",
        "origin": "https://example.org/springs",
        "licence": "CC0-1.0",
        "level_of_theory": "springs",
        "citation": "nobody",
    }
    source = {"format": "qm22", "path": str(data), "energy_zero": "relative", "provenance": provenance}
    given = {"name": name, "purpose": "a <script>alert(1)</script> test", "data": source, "fit": FIT}
    return CommitteeConfig.model_validate({**given, "network": {**NETWORK, "members": 3}, **changes})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three finished runs: a committee on energies, its student, and one network on energies and forces."""
    folder = tmp_path_factory.mktemp("runs")
    bare, forced = springs(folder / "bare.npz", forces=False), springs(folder / "forced.npz", forces=True)
    train_run(committee(bare, "many", energy_scale_ev=2.0), folder / "many")
    student = DistillationConfig.model_validate(
        {"name": "light", "purpose": "test", "teacher": "many", "network": {**NETWORK, "members": 2}, "fit": FIT}
    )
    train_run(student, folder / "light")
    on_forces = EnergyForceObjective(mode="adjoint")
    train_run(committee(forced, "alone", network=NETWORK, forces=on_forces), folder / "alone")
    return folder


@pytest.fixture(scope="module")
def reports(runs: Path) -> dict[str, str]:
    """The report of each run, as it was written."""
    return {name: write_report(runs / name).read_text() for name in ("many", "light", "alone")}


@pytest.mark.parametrize("name", ["many", "light", "alone"])
def test_a_report_loads_nothing_and_runs_nothing(reports: dict[str, str], name: str) -> None:
    page = Page(reports[name])
    assert "script" not in page.tags
    assert all(target.startswith(("#", "data:image/png;base64,")) for target in page.loaded)
    assert page.links == ["https://example.org/springs"]


@pytest.mark.parametrize("name", ["many", "light", "alone"])
def test_figures_of_one_page_do_not_share_ids_and_find_their_own(reports: dict[str, str], name: str) -> None:
    text = reports[name]
    page = Page(text)
    assert len(set(page.ids)) == len(page.ids) > 0
    named = {target[1:] for target in page.loaded if target.startswith("#")} | set(re.findall(r"url\(#([^)]+)\)", text))
    assert named <= set(page.ids)


def test_the_same_run_gives_the_same_report(runs: Path, reports: dict[str, str]) -> None:
    assert write_report(runs / "many").read_text() == reports["many"]


def test_what_a_configuration_says_is_shown_and_not_executed(reports: dict[str, str]) -> None:
    assert "a <script>alert(1)</script> test" in Page(reports["many"]).text


def test_a_report_says_where_labels_came_from_and_how_to_make_the_run_again(
    runs: Path, reports: dict[str, str]
) -> None:
    text, record = Page(reports["many"]).text, json.loads((runs / "many" / "run.json").read_text())
    for said in ("CC0-1.0", record["data"][0]["sha256"], record["config_sha256"], record["split"]["method"][1:]):
        assert said in text
    assert "understudy train many.yaml" in text
    assert f"torch {record['versions']['torch']}" in text


def test_errors_in_the_report_are_those_of_the_stored_predictions(runs: Path, reports: dict[str, str]) -> None:
    test = load_predictions(runs / "many", "test")
    text = Page(reports["many"]).text
    for error in (test.error, -test.target):
        assert f"{1e3 * np.abs(error).mean():#.3g}".rstrip(".") in text


def test_coverage_is_stated_for_both_parts_before_and_after_the_scale(reports: dict[str, str]) -> None:
    text = Page(reports["many"]).text
    assert len(re.findall(r"as the members spread +\d+\.\d %", text)) == 2
    assert len(re.findall(r"times [\d.]+ +\d+\.\d %", text)) == 2


def test_a_single_network_has_no_uncertainty_to_judge(reports: dict[str, str]) -> None:
    assert "uncertainty can be trusted" not in Page(reports["alone"]).text
    assert "uncertainty can be trusted" in Page(reports["light"]).text


def test_forces_are_compared_where_the_data_have_them(reports: dict[str, str]) -> None:
    assert "forces RMSE (meV/Å)" in Page(reports["alone"]).text
    assert "forces RMSE (meV/Å)" not in Page(reports["many"]).text


def test_a_student_has_a_learning_curve_for_each_member(reports: dict[str, str]) -> None:
    labels = re.findall(r"<!-- (validation.*?|training.*?) -->", reports["light"])
    assert {"validation 0", "validation 1", "training 0", "training 1"} <= set(labels)
    assert "validation" in re.findall(r"<!-- (validation.*?) -->", reports["many"])


def test_changes_of_batch_and_rate_are_marked() -> None:
    settings = [(8, 4e-3), (8, 4e-3), (16, 4e-3), (16, 2e-3), (16, 2e-3)]
    history = [Epoch(k, 1.0 / (k + 1), 1.1 / (k + 1), *setting, k, k) for k, setting in enumerate(settings)]
    marked, unmarked = learning_curves([history], steps=True), learning_curves([history], steps=False)
    changes = ("<!-- batch 16 -->", "<!-- rate 2.0e-03 -->")
    assert [marked.count(change) for change in changes] == [1, 1]
    assert not any(change in unmarked for change in changes)


def test_what_others_achieve_on_the_same_split_stands_beside_the_run(runs: Path) -> None:
    other = Comparison(
        name="another code",
        metrics=[Metric(name="energy MAE", value=123.4, unit="meV", count=16)],
        notes="trained as long",
    )
    path = runs / "many" / "comparisons.json"
    path.write_text(json.dumps([other.model_dump()]))
    text = Page(render(read_finished(runs / "many"))).text
    path.unlink()
    assert all(said in text for said in ("another code", "123", "trained as long", "mean predictor"))


def test_a_spread_that_says_nothing_is_warned_of(runs: Path) -> None:
    finished = read_finished(runs / "many")
    energies = finished.test.energies
    error = np.abs(energies.error)
    backwards = energies.energy.mean(axis=0) + np.array([[-1.0], [0.0], [1.0]]) / (1e-3 + error)
    test = replace(finished.test, energies=replace(energies, energy=backwards))
    warning = "the spread says little about the size of the error"
    assert warning in Page(render(replace(finished, test=test))).text
    assert warning not in Page(render(replace(finished, test=sure_of(finished)))).text


def sure_of(finished: Finished) -> object:
    """The test part with a spread that is as large as the error."""
    energies = finished.test.energies
    spread = energies.energy.mean(axis=0) + np.array([[-1.0], [0.0], [1.0]]) * np.abs(energies.error)
    return replace(finished.test, energies=replace(energies, energy=spread))


def test_an_unfinished_run_is_refused_with_what_is_missing(runs: Path, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text((runs / "many" / "run.json").read_text())
    with pytest.raises(IncompleteRun, match=r"predictions\.npz, history\.csv: not a finished training run"):
        write_report(tmp_path)
