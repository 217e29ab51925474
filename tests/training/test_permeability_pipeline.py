"""From a campaign to a served model of flow, at toy size: symmetries, learning, resuming, formulas, gate, card."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contract.flow import flow_inputs
from contract.repository import ModelRepository
from training.errors import Diverged
from training.export.flow import export_flow
from training.files import read_json
from training.flow_evaluation import baselines, load_tables, permeability_metrics
from training.gate.engines import onnx_engine
from training.gate.errors import Refused
from training.gate.flow import FlowSubmission, examine_flow
from training.networks.msnet import MSNetConfig
from training.networks.permeability import PermeabilityCommittee
from training.pipelines.errors import NotEnoughLabels
from training.pipelines.permeability import (
    SYMMETRIES,
    FlowFitConfig,
    PermeabilityTraining,
    Scales,
    cubes,
    fit_member,
    flow_image,
    load_committee,
    objective,
    part_labels,
    symmetric,
    train_permeability,
)
from training.pipelines.registry import read_config
from training.runs import publish_run, train_and_report
from training.sampling.permeability import PermeabilityConfig, sample_permeability
from training.simulators.creeping_flow import Solver, solve_flow

CONFIGS = Path(__file__).parents[2] / "training" / "configs"
FAMILIES = ("packs", "overlapping", "blobs", "fractures")


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("campaign")
    images = dict.fromkeys(FAMILIES, 5)
    config = PermeabilityConfig(name="toy", lengths=(16,), images=images, porosity=(0.4, 0.6), seed=4)
    sample_permeability(config, folder)
    return folder


@pytest.fixture(scope="module")
def config(labels: Path) -> PermeabilityTraining:
    return PermeabilityTraining(
        name="toy",
        purpose="a toy",
        labels=labels,
        network=MSNetConfig(scales=2, filters=2),
        members=2,
        fractions=(0.6, 0.2, 0.2),
        fit=FlowFitConfig(updates=150, batch=2, crop=12, learning_rate=5e-3),
    )


@pytest.fixture(scope="module")
def run(config: PermeabilityTraining, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / config.name
    train_and_report(config, folder)
    return folder


def test_the_full_networks_take_their_first_steps(labels: Path, tmp_path: Path) -> None:
    full = read_config(CONFIGS / "permeability-full.yaml")
    assert isinstance(full, PermeabilityTraining)
    small = {"updates": 2, "crop": 16, "device": "cpu"}
    changes: dict[str, Any] = {"labels": labels, "members": 2, "fit": full.fit.model_copy(update=small)}
    train_permeability(full.model_copy(update=changes), tmp_path)
    assert read_json(tmp_path / "run.json")["config"]["network"]["scales"] == full.network.scales


def test_the_sixteen_symmetries_are_all_different_and_none_changes_the_flow_along_the_axis() -> None:
    image = np.random.default_rng(0).random((6, 6, 6)) < 0.6
    turned = [symmetric(torch.from_numpy(image), which).numpy() for which in range(SYMMETRIES)]
    solver = Solver(tolerance=1e-7, relaxation=1.0)
    values = [solve_flow(np.ascontiguousarray(t), 2, solver=solver).permeability for t in turned]
    assert len({t.tobytes() for t in turned}) == SYMMETRIES
    assert values == pytest.approx([values[0]] * SYMMETRIES, rel=1e-5)


def test_a_symmetry_turns_the_field_as_it_turns_the_image() -> None:
    image = np.random.default_rng(2).random((6, 5, 7)) < 0.7
    field = solve_flow(image, 2).velocity
    for which in (1, 5, 8, 15):
        turned = np.ascontiguousarray(symmetric(torch.from_numpy(image), which).numpy())
        expected = symmetric(torch.from_numpy(field), which).numpy()
        assert solve_flow(turned, 2).velocity == pytest.approx(expected, abs=2e-4 * field.max())


def test_every_family_is_in_every_part_and_no_image_in_two(config: PermeabilityTraining) -> None:
    parts = part_labels(config)
    images = [label.image.tobytes() for labels in parts.values() for label in labels]
    assert [len(parts[part]) for part in ("train", "valid", "test")] == [12, 4, 4]
    assert all({label.facts["family"] for label in labels} == set(FAMILIES) for labels in parts.values())
    assert len(set(images)) == 20


def test_a_member_that_leaves_the_finite_numbers_is_stopped(config: PermeabilityTraining, tmp_path: Path) -> None:
    wild = config.fit.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(Diverged, match=r"member-0, update \d+: the loss is (nan|inf)"):
        train_permeability(config.model_copy(update={"fit": wild}), tmp_path)


def test_without_labels_it_says_what_to_run(config: PermeabilityTraining, tmp_path: Path) -> None:
    with pytest.raises(NotEnoughLabels, match="understudy sample"):
        part_labels(config.model_copy(update={"labels": tmp_path}))


def test_a_run_learns_and_leaves_its_report_its_weights_and_its_record(run: Path) -> None:
    curve = np.loadtxt(run / "member-0" / "history.csv", delimiter=",", skiprows=1)
    record = json.loads((run / "run.json").read_text())
    assert curve[-1, 1] < 0.8 * curve[0, 1]
    assert {"campaign", "split", "cpu_seconds", "revision", "versions"} <= record.keys()
    assert "Kozeny-Carman" in (run / "report.html").read_text()
    assert (run / "slices.png").stat().st_size > 1000


def test_no_label_is_needed_to_predict(run: Path) -> None:
    _, committee = load_committee(run)
    inputs = flow_inputs(np.random.default_rng(1).random((10, 12, 9)) < 0.7, 0, committee.config.divisor)
    with torch.no_grad():
        velocity, flow = committee(*(torch.from_numpy(v) for v in inputs.tensors().values()))
    field = inputs.field(velocity.numpy())
    assert field.shape == (10, 12, 9)
    assert field.mean() == pytest.approx(inputs.permeabilities(flow.numpy()).mean(), rel=1e-4)
    assert not field[~inputs.pores.conducting].any()


def test_an_interrupted_member_goes_on_to_the_same_weights(config: PermeabilityTraining, tmp_path: Path) -> None:
    images = [flow_image(label, 2) for label in part_labels(config)["train"][:3]]
    how = FlowFitConfig(updates=100, batch=2, crop=8, seed=3)

    def trained(folder: Path) -> torch.nn.Module:
        torch.manual_seed(0)
        network = PermeabilityCommittee.of(config.network, 2, 1.0, 1.0).networks[0]
        fit_member(network, images, Scales.of(images, 0.3), how, 0, folder)
        return network

    whole = trained(tmp_path / "whole")
    with pytest.MonkeyPatch.context() as patch:
        calls = []
        step = torch.optim.Adam.step

        def interrupting(self: torch.optim.Adam, *args: object) -> object:
            calls.append(1)
            if len(calls) == 75:
                raise KeyboardInterrupt
            return step(self, *args)

        patch.setattr(torch.optim.Adam, "step", interrupting)
        with pytest.raises(KeyboardInterrupt):
            trained(tmp_path / "cut")
    again = trained(tmp_path / "cut")
    for one, other in zip(whole.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_cube_without_a_voxel_on_the_coarsest_scale_is_refused_with_the_remedy() -> None:
    with pytest.raises(ValueError, match=r"fit.crop 6 has no voxel left .* at least 8"):
        PermeabilityTraining(
            name="toy", purpose="", labels=Path(), network=MSNetConfig(scales=4), fit=FlowFitConfig(crop=6)
        )


def test_one_symmetry_leaves_an_image_as_it_is(config: PermeabilityTraining) -> None:
    image = flow_image(part_labels(config)["train"][0], 2)
    rng = np.random.default_rng(0)
    (whole,) = cubes([image], FlowFitConfig(crop=16, symmetries=1), 2, rng)
    turned = [cubes([image], FlowFitConfig(crop=16), 2, rng)[0] for _ in range(8)]
    assert torch.equal(whole, image.fields)
    assert not all(torch.equal(each, image.fields) for each in turned)


def test_the_flux_penalty_is_on_what_flows_through_each_slice(config: PermeabilityTraining) -> None:
    image = flow_image(part_labels(config)["train"][0], 2)
    network, scales = PermeabilityCommittee.of(config.network, 1, 1.0, 1.0).networks[0], Scales(1.0, 1.0, 0.0)
    distance, pore, _, velocity = image.fields
    swapped = velocity.flip(0)
    uneven = velocity * torch.linspace(0.5, 1.5, velocity.shape[2])

    def added(estimate: torch.Tensor) -> float:
        fields = torch.stack([distance, pore, estimate, velocity])[None]
        free, held = (
            objective(network, [image], fields, scales, FlowFitConfig(flux_weight=weight)) for weight in (0.0, 1.0)
        )
        return float((held - free).detach())

    assert added(swapped) == pytest.approx(0.0, abs=1e-6)
    assert added(uneven) == pytest.approx(float(torch.linspace(-0.5, 0.5, velocity.shape[2]).square().mean()), rel=0.05)


def test_no_member_is_too_fast_or_too_slow_in_the_mean_of_the_training_part(run: Path) -> None:
    train = load_tables(run)["train"]
    ratios = np.log(train["members"] / train["permeability"][:, None])
    assert np.abs(ratios.mean(axis=0)).max() < 1e-3


def test_simple_formulas_are_fitted_to_the_training_part(run: Path) -> None:
    tables = load_tables(run)
    fitted = baselines(tables, "train")
    true = tables["train"]["permeability"]
    errors = {name: permeability_metrics(k, true)[0].value for name, k in fitted.items()}
    assert errors["regression"] < errors["mean predictor"]
    assert np.log(fitted["Kozeny-Carman"] / true).mean() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.slow
def test_an_exported_graph_passes_the_exact_checks_of_the_gate(run: Path, tmp_path: Path) -> None:
    config, committee = load_committee(run)
    export_flow(committee, tmp_path)
    images = [label.image for label in part_labels(config)["test"]]
    submission = FlowSubmission(onnx_engine(tmp_path / "model.onnx"), committee, images, 0.1, 0.2)
    learnt = ("median change",)
    failed = [check.name for check in examine_flow(submission) if not check.passed]
    assert [name for name in failed if not name.startswith(learnt)] == []


def test_a_committee_that_is_worse_than_one_value_for_all_is_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "toy")
    with np.load(run / "predictions.npz", allow_pickle=False) as arrays:
        wrong = {name: 1e3 * arrays[name] if name.endswith("/members") else arrays[name] for name in arrays.files}
    np.savez_compressed(tmp_path / "toy" / "predictions.npz", **wrong)
    with pytest.raises(Refused, match="mean predictor"):
        publish_run(tmp_path / "toy", ModelRepository(tmp_path / "repo"))
    assert not (tmp_path / "repo" / "toy").exists()
