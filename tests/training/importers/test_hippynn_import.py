"""A hippynn experiment, as hippynn itself writes it to disk, becomes a run that answers the same."""

import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from contract.units import KCAL_MOL_EV
from training.checkpoint import load_run
from training.evaluation import load_predictions
from training.importers.command import import_hippynn_command
from training.importers.errors import (
    ConflictingSettings,
    MissingSettings,
    UnreadableCheckpoint,
    UnsupportedExperiment,
)
from training.importers.hippynn import HippynnImport, import_hippynn

NETWORK = {
    "possible_species": [0, 1, 6, 8],
    "n_features": 8,
    "n_sensitivities": 6,
    "dist_soft_min": 0.8,
    "dist_soft_max": 3.5,
    "dist_hard_max": 4.0,
    "n_interaction_layers": 2,
    "n_atom_layers": 1,
}
CONFIG = HippynnImport(name="mine", purpose="a test", energy_unit="kcal/mol", length_unit="angstrom")
SETTINGS: dict[str, Any] = {"cutoff": 4.0, "soft_min": 0.8, "soft_max": 3.5, "activation": "softplus"}

Build = Callable[..., ModuleType]


@pytest.fixture(scope="module")
def experiment(hippynn: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """Folder with best_model.pt, best_checkpoint.pt and experiment_structure.pt, and the graph that wrote them."""
    return _experiment(hippynn, tmp_path_factory.mktemp("experiment"))


def test_a_trusted_experiment_needs_only_its_units_and_answers_as_hippynn_does(
    experiment: tuple[Path, Any], molecules: list, batch_of: Any, tmp_path: Path
) -> None:
    folder, predictor = experiment
    import_hippynn(folder, CONFIG, tmp_path / "mine", trust=True)
    run = load_run(tmp_path / "mine")
    assert run.network.config.cutoff_angstrom == 4.0
    assert run.network.config.elements == [1, 6, 8]
    for molecule in molecules:
        theirs = predictor(
            Z=torch.from_numpy(molecule.numbers)[None], R=torch.from_numpy(molecule.positions).float()[None]
        )
        ours = run.network.evaluate(batch_of([molecule], dtype=torch.float32))
        symbols = np.array(["H", "C", "O"])[np.searchsorted([1, 6, 8], molecule.numbers)]
        energy = ours.energy.item() + sum(run.references[s] for s in symbols)
        assert energy == pytest.approx(KCAL_MOL_EV * theirs["E"].item(), rel=1e-5, abs=1e-5)
        forces = KCAL_MOL_EV * theirs["F"][0]
        assert (ours.forces - forces).abs().max() < 1e-5 * forces.abs().max()


def test_a_state_dict_with_its_settings_gives_the_same_run_without_trust(
    experiment: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, _ = experiment
    trusted = import_hippynn(folder, CONFIG, tmp_path / "a", trust=True)
    plain = import_hippynn(folder / "best_model.pt", CONFIG.model_copy(update=SETTINGS), tmp_path / "b")
    assert plain.references == trusted.references
    assert plain.network.config == trusted.network.config
    for key, weight in plain.network.state_dict().items():
        assert torch.equal(weight, trusted.network.state_dict()[key])
    assert plain.record["checkpoint"] == trusted.record["checkpoint"]


def test_without_trust_no_pickle_is_opened_and_the_missing_settings_are_named(
    experiment: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bool] = []
    plain_load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: (opened.append(k["weights_only"]), plain_load(*a, **k))[1])
    with pytest.raises(MissingSettings, match=r"--cutoff --soft-min --soft-max --activation .* --trust"):
        import_hippynn(experiment[0], CONFIG, tmp_path / "mine")
    assert opened == [True]
    assert not (tmp_path / "mine").exists()


def test_a_file_with_code_in_it_is_refused_and_the_code_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save(_Runs(mark), tmp_path / "best_model.pt")
    with pytest.raises(UnreadableCheckpoint, match="not a file of tensors"):
        import_hippynn(tmp_path, CONFIG.model_copy(update=SETTINGS), tmp_path / "mine")
    assert not mark.exists()


def test_hippynns_own_checkpoint_is_refused_with_a_pointer_to_the_plain_weights(
    experiment: tuple[Path, Any], tmp_path: Path
) -> None:
    checkpoint, config = experiment[0] / "best_checkpoint.pt", CONFIG.model_copy(update=SETTINGS)
    allowed = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()  # as where hippynn, which allows its own class, is not installed
    try:
        with pytest.raises(UnreadableCheckpoint, match=r"Give hippynn's best_model\.pt"):
            import_hippynn(checkpoint, config, tmp_path / "mine")
    finally:
        torch.serialization.add_safe_globals(allowed)
    import_hippynn(checkpoint, config, tmp_path / "mine")


def test_a_setting_that_contradicts_the_experiment_is_refused(experiment: tuple[Path, Any], tmp_path: Path) -> None:
    with pytest.raises(ConflictingSettings, match=r"cutoff = 5\.0 was given, .* says 4\.0"):
        import_hippynn(experiment[0], CONFIG.model_copy(update={"cutoff": 5.0}), tmp_path / "mine", trust=True)


def test_another_activation_that_no_state_dict_shows_is_refused(hippynn: ModuleType, tmp_path: Path) -> None:
    folder, _ = _experiment(hippynn, tmp_path, activation=torch.nn.SiLU)
    with pytest.raises(UnsupportedExperiment, match="SiLU"):
        import_hippynn(folder, CONFIG, tmp_path / "mine", trust=True)


def test_an_energy_with_a_second_contribution_is_refused(hippynn: ModuleType, tmp_path: Path) -> None:
    folder, _ = _experiment(hippynn, tmp_path, second_energy=True)
    with pytest.raises(UnsupportedExperiment, match="3 energies"):
        import_hippynn(folder, CONFIG, tmp_path / "mine", trust=True)


def test_held_out_labels_give_errors_in_ev_on_the_record(
    experiment: tuple[Path, Any], molecules: list, tmp_path: Path
) -> None:
    folder, predictor = experiment
    file = tmp_path / "held_out.extxyz"
    file.write_text("".join(_frame(m, predictor) for m in molecules))
    held_out = {
        "format": "extxyz",
        "path": str(file),
        "energy_unit": "kcal/mol",
        "provenance": dict.fromkeys(("name", "origin", "licence", "level_of_theory", "citation"), "a test"),
    }
    config = HippynnImport.model_validate(CONFIG.model_dump() | {"held_out": held_out})
    record = import_hippynn(folder, config, tmp_path / "mine", trust=True).record
    errors = {metric["name"]: metric["value"] for metric in record["metrics"]}
    assert errors.keys() == {"energy MAE", "energy RMSE", "forces MAE", "forces RMSE"}
    assert all(error < 1e-2 for error in errors.values())  # meV and meV/angstrom
    assert record["data"][0]["count"] == len(molecules)
    assert (record["split"]["train"], record["split"]["valid"], record["split"]["test"]) == (0, 1, len(molecules) - 1)
    assert load_predictions(tmp_path / "mine", "test").energy.shape == (1, len(molecules) - 1)


def test_the_command_imports_and_says_what_is_missing(experiment: tuple[Path, Any], tmp_path: Path) -> None:
    app = typer.Typer()
    app.command()(import_hippynn_command)
    options = ["--name", "mine", "--energy-unit", "kcal/mol", "--length-unit", "angstrom", "--runs", str(tmp_path)]
    refused = CliRunner().invoke(app, [str(experiment[0]), *options])
    assert refused.exit_code == 1
    assert "--trust" in refused.output
    accepted = CliRunner().invoke(app, [str(experiment[0]), *options, "--trust"])
    assert accepted.exit_code == 0, accepted.output
    assert load_run(tmp_path / "mine").record["config"]["pipeline"] == "hippynn_import"
    wrong = CliRunner().invoke(app, [str(experiment[0]), *options, "--trust", "--elements", "H,Xx"])
    assert "Xx" in wrong.output


class _Runs:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


def _experiment(hippynn: ModuleType, folder: Path, second_energy: bool = False, **changes: Any) -> tuple[Path, Any]:
    from hippynn.experiment.assembly import assemble_for_training
    from hippynn.experiment.controllers import PatienceController, RaiseBatchSizeOnPlateau
    from hippynn.experiment.metric_tracker import MetricTracker
    from hippynn.experiment.serialization import create_state, create_structure_file
    from hippynn.graphs import Predictor, inputs, loss, networks, physics, targets

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        species, positions = inputs.SpeciesNode(db_name="Z"), inputs.PositionsNode(db_name="R")
        network = networks.HipnnVec("hipnn", (species, positions), module_kwargs=NETWORK | changes)
        energy = readout = targets.HEnergyNode("energy", network)
        if second_energy:
            second = targets.HEnergyNode("second", network)
            energy = physics.CombineEnergyNode("total", (readout, second))
        energy.mol_energy.db_name = "E"
        forces = physics.GradientNode("forces", (energy.mol_energy, positions), sign=-1, db_name="F")
        total = loss.MSELoss.of_node(energy.mol_energy) + loss.MSELoss.of_node(forces) + 1e-6 * loss.l2reg(network)
        modules, _ = assemble_for_training(total, {"E": loss.MSELoss.of_node(energy.mol_energy)})
        optimiser = torch.optim.Adam(modules.model.parameters())
        scheduler = RaiseBatchSizeOnPlateau(optimiser, max_batch_size=2, patience=1)
        controller = PatienceController(
            optimizer=optimiser,
            scheduler=scheduler,
            batch_size=1,
            max_epochs=1,
            stopping_key="E",
            termination_patience=1,
        )
        create_structure_file(modules, None, controller, fname=folder / "experiment_structure.pt")
        torch.save(modules.model.state_dict(), folder / "best_model.pt")
        tracker = MetricTracker(["E"], "E")
        torch.save(create_state(modules.model, controller, tracker), folder / "best_checkpoint.pt")
        predictor = Predictor.from_graph(modules.model, additional_outputs=[energy.mol_energy, forces])
    return folder, predictor


def _frame(molecule: Any, predictor: Any) -> str:
    answer = predictor(Z=torch.from_numpy(molecule.numbers)[None], R=torch.from_numpy(molecule.positions).float()[None])
    symbols = {1: "H", 6: "C", 8: "O"}
    rows = [
        " ".join([symbols[int(z)], *(f"{x:.9f}" for x in (*r, *f))])
        for z, r, f in zip(molecule.numbers, molecule.positions, answer["F"][0].tolist(), strict=True)
    ]
    head = f'Properties=species:S:1:pos:R:3:forces:R:3 energy={answer["E"].item():.9f} pbc="F F F"'
    return "\n".join([str(len(rows)), head, *rows]) + "\n"
