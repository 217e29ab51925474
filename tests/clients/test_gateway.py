"""The client and the real gateway together: engine, neighbour lists, lanes and wire, on a potential with an oracle."""

import asyncio
import importlib.util
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.fd import calculate_numerical_forces, calculate_numerical_stress
from ase.io import read, write
from ase.md.verlet import VelocityVerlet
from ase.optimize import BFGS
from fastapi import FastAPI
from typer.testing import CliRunner
from understudy import (
    AmbiguousModel,
    AsyncClient,
    BadRequest,
    Client,
    NotFound,
    OutOfDomain,
    OutOfDomainWarning,
    Prediction,
    TooLarge,
    UnderstudyCalculator,
)
from understudy.choice import choose_model
from understudy.cli import app as command
from understudy.flows import MAX_STRUCTURES_A_CALL
from understudy.inprocess import InProcess, lifespan
from understudy.structures import as_structures

from contract.structures import checked_structure
from service.app import create_app
from service.settings import Limits, Settings


def malonaldehyde(stretch: float = 1.0) -> Atoms:
    """Nine atoms in the enol form, from three-figure bond lengths; good enough for a pair potential."""
    positions = [
        [0.00, 0.00, 0.00],
        [1.44, 0.00, 0.00],
        [2.16, 1.16, 0.00],
        [-0.66, 1.06, 0.00],
        [1.58, 2.34, 0.00],
        [0.56, 2.20, 0.00],
        [-0.52, -0.96, 0.00],
        [1.98, -0.94, 0.00],
        [3.26, 1.14, 0.00],
    ]
    return Atoms("CCCOOHHHH", stretch * np.array(positions))


def oxide(seed: int = 1) -> Atoms:
    """A periodic cell smaller than the cutoff."""
    atoms = Atoms("COH", [[0, 0, 0], [1.2, 1.1, 0.1], [0.2, 1.3, 1.4]], cell=[2.6, 2.7, 2.8], pbc=True)
    atoms.rattle(0.05, seed=seed)
    return atoms


@pytest.fixture(scope="module")
def tiny(project: Path) -> ModuleType:
    """The service's own test model: a committee of pair potentials as a real ONNX graph, and the same in NumPy."""
    spec = importlib.util.spec_from_file_location("tiny_potential", project / "tests" / "service" / "tiny.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def settings(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    repository = tiny.tiny_repository(tmp_path_factory.mktemp("gateway"))
    return Settings(model_repo=repository, workers=2, limits=Limits(atoms=60_000))


@pytest.fixture(scope="module")
def client(settings: Settings) -> Iterator[Client]:
    with Client(transport=InProcess(create_app(settings))) as client:
        yield client


def same(one: Prediction, other: Prediction, atol: float = 1e-5) -> bool:
    return abs(one.energy - other.energy) < atol and np.allclose(one.forces, other.forces, rtol=0, atol=atol)


@pytest.mark.physics
@pytest.mark.parametrize("atoms", [malonaldehyde(), oxide()], ids=["molecule", "crystal"])
def test_a_prediction_is_the_potential_to_single_precision(client: Client, tiny: ModuleType, atoms: Atoms) -> None:
    prediction = client.predict("anything", atoms, outputs=["atomic_energies"])
    structure = checked_structure(atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc)
    members = [tiny.pair_energy(structure, amplitude) for amplitude in tiny.AMPLITUDES]
    assert prediction.energy == pytest.approx(np.mean(members), abs=1e-4)
    assert prediction.energy_std == pytest.approx(np.std(members, ddof=1), rel=1e-4)
    assert prediction.atomic_energies is not None
    assert prediction.atomic_energies.sum() == pytest.approx(prediction.energy, abs=1e-4)
    assert prediction.uncertainty is not None
    assert (prediction.uncertainty.members, prediction.uncertainty.ddof) == (len(tiny.AMPLITUDES), 1)
    assert prediction.units["stress"] == "eV/angstrom^3"
    assert (prediction.stress is not None) == atoms.pbc.all()


@pytest.mark.physics
def test_ases_numerical_derivatives_agree_with_forces_and_stress(client: Client) -> None:
    atoms = oxide()
    atoms.calc = UnderstudyCalculator(client, "anything", on_out_of_domain="answer")
    assert atoms.get_forces() == pytest.approx(calculate_numerical_forces(atoms, eps=5e-3), abs=5e-2)
    assert atoms.get_stress() == pytest.approx(calculate_numerical_stress(atoms, eps=2e-3), abs=5e-3)


@pytest.mark.physics
def test_a_relaxation_and_nve_dynamics_run_in_ase(client: Client) -> None:
    atoms = malonaldehyde()
    atoms.calc = UnderstudyCalculator(client, "anything", on_out_of_domain="answer")
    before = atoms.get_potential_energy()
    BFGS(atoms, logfile=None).run(fmax=0.05, steps=30)
    assert atoms.get_potential_energy() < before
    crystal = oxide()
    crystal.calc = UnderstudyCalculator(client, "anything", on_out_of_domain="answer")
    crystal.set_momenta(np.random.default_rng(1).normal(scale=1.0, size=(3, 3)))
    start, potential = crystal.get_total_energy(), crystal.get_potential_energy()
    VelocityVerlet(crystal, timestep=0.1 * units.fs).run(100)
    exchanged = abs(crystal.get_potential_energy() - potential)
    assert exchanged > 0.05
    assert abs(crystal.get_total_energy() - start) < 0.02 * exchanged


def test_a_mixed_list_over_several_calls_is_answered_as_each_alone(client: Client) -> None:
    frames = [oxide(i) if i % 3 else malonaldehyde(1 + 0.0002 * i) for i in range(MAX_STRUCTURES_A_CALL + 20)]
    many = client.predict("anything", frames)
    assert [p.stress is not None for p in many] == [bool(atoms.pbc.all()) for atoms in frames]
    for index in (0, 1, 2, 100, MAX_STRUCTURES_A_CALL + 19):
        assert same(many[index], client.predict("anything", frames[index]))


def test_many_threads_at_once_get_their_own_answers(client: Client) -> None:
    frames = [malonaldehyde(1 + 0.002 * i) for i in range(24)]
    alone = [client.predict("tiny", atoms) for atoms in frames]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda atoms: client.predict("tiny", atoms), frames))
    assert all(same(a, b) for a, b in zip(alone, together, strict=True))


def test_the_asynchronous_client_gets_the_same_answers(client: Client, settings: Settings) -> None:
    frames = [malonaldehyde(1 + 0.01 * i) for i in range(6)]

    async def ask(app: FastAPI) -> list[Prediction]:
        async with lifespan(app), AsyncClient(transport=httpx.ASGITransport(app)) as other:
            return await asyncio.gather(*(other.predict("tiny", atoms) for atoms in frames))

    answers = asyncio.run(ask(create_app(settings)))
    assert all(same(a, b) for a, b in zip(answers, client.predict("tiny", frames), strict=True))


def test_the_binary_answer_says_what_the_json_answer_says(client: Client) -> None:
    atoms = malonaldehyde()
    asked = {
        "structures": [{"numbers": atoms.numbers.tolist(), "positions": atoms.positions.tolist()}],
        "outputs": ["forces_std", "atomic_energies"],
    }
    plain = client._http.post("/v1/predict/tiny", json=asked).json()
    binary = client.predict("tiny", atoms, outputs=["forces_std", "atomic_energies"])
    assert (plain["model"], plain["version"], plain["digest"]) == (binary.model, binary.version, binary.digest)
    assert plain["units"] == binary.units
    result = plain["results"][0]
    assert result["domain"] == binary.domain.model_dump()
    for name in ("energy", "energy_std", "forces", "forces_std", "atomic_energies"):
        assert np.asarray(getattr(binary, name)) == pytest.approx(np.array(result[name]), abs=1e-5), name


def test_models_cards_limits_and_readiness_are_told(client: Client) -> None:
    served = {model.name: model for model in client.models()}
    assert set(served) == {"tiny", "anything"}
    assert served["tiny"].formulas == ["C3H4O2"]
    assert served["tiny"].members == 4
    assert client.card("tiny")["domain"]["cutoff_angstrom"] == 3.0
    assert client.limits()["structures"] >= MAX_STRUCTURES_A_CALL
    assert client.ready()


def test_the_first_fitting_model_is_chosen(client: Client) -> None:
    assert choose_model(client, as_structures(malonaldehyde())[0]).model in ("tiny", "anything")
    assert choose_model(client, as_structures(molecule("CO2"))[0]).model == "anything"
    with pytest.raises(AmbiguousModel):
        choose_model(client, as_structures(molecule("NH3"))[0])


def test_another_molecule_is_answered_with_a_warning_and_its_reason(client: Client) -> None:
    water = molecule("H2O")
    prediction = client.predict("tiny", water)
    assert not prediction.domain.in_domain
    assert "H2O" in " ".join(prediction.domain.reasons)
    water.calc = UnderstudyCalculator(client, "tiny")
    with pytest.warns(OutOfDomainWarning, match="H2O"):
        water.get_potential_energy()
    water.calc = UnderstudyCalculator(client, "tiny", on_out_of_domain="refuse")
    with pytest.raises(OutOfDomain):
        water.get_potential_energy()


def coincident() -> Atoms:
    return Atoms("HH", [[0, 0, 0], [0, 0, 0]])


def singular() -> Atoms:
    return Atoms("H", cell=[[1, 0, 0], [1, 0, 0], [0, 0, 1]], pbc=True)


@pytest.mark.parametrize(
    ("model", "structure", "error", "code"),
    [
        ("no-such-model", malonaldehyde(), NotFound, "unknown_model"),
        ("../../etc/passwd", malonaldehyde(), NotFound, None),
        ("tiny", molecule("NH3"), BadRequest, "unsupported_element"),
        ("tiny", coincident(), BadRequest, "coincident_atoms"),
        ("tiny", singular(), BadRequest, "singular_cell"),
        ("tiny", {"numbers": [1], "positions": [[1e30, 0, 0]]}, BadRequest, "coordinate_range"),
        ("tiny", {"numbers": [0], "positions": [[0, 0, 0]]}, BadRequest, "unknown_element"),
        ("tiny", {"numbers": np.ones(60_001, int), "positions": np.zeros((60_001, 3))}, TooLarge, "request_too_large"),
    ],
)
def test_a_refusal_reaches_the_caller_with_its_code_and_remedy(
    client: Client, model: str, structure: Any, error: type[Exception], code: str | None
) -> None:
    with pytest.raises(error) as caught:
        client.predict(model, structure)
    assert caught.value.code == code or code is None
    assert caught.value.hint
    assert caught.value.request_id
    assert client.predict("tiny", malonaldehyde()).domain.in_domain


def test_a_fault_deep_in_a_list_is_named_by_its_place_in_the_list(client: Client) -> None:
    frames = [malonaldehyde()] * (MAX_STRUCTURES_A_CALL + 5)
    frames[MAX_STRUCTURES_A_CALL + 2] = coincident()
    with pytest.raises(BadRequest) as caught:
        client.predict("anything", frames)
    assert caught.value.facts["index"] == MAX_STRUCTURES_A_CALL + 2


def test_the_spread_of_the_forces_is_refused_by_a_model_that_has_none(client: Client) -> None:
    assert client.predict("tiny", malonaldehyde(), outputs=["forces_std"]).forces_std is not None
    with pytest.raises(BadRequest, match="forces_std"):
        client.predict("anything", malonaldehyde(), outputs=["forces_std"])


def test_the_command_predicts_and_writes_a_file_over_a_real_socket(
    settings: Settings, serve: Any, tmp_path: Path, client: Client
) -> None:
    source, out = tmp_path / "in.xyz", tmp_path / "out.extxyz"
    write(source, [malonaldehyde(), molecule("H2O")])
    url = serve(create_app(settings))
    arguments = ["predict", source, "--url", url, "--model", "tiny", "--out", out, "--json", "--forces-std"]
    result = CliRunner().invoke(command, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    frames, expected = read(out, ":"), client.predict("tiny", str(source), outputs=["forces_std"])
    assert json.loads(result.stdout)["digest"] == expected[0].digest
    for frame, prediction in zip(frames, expected, strict=True):
        assert frame.get_potential_energy() == pytest.approx(prediction.energy, abs=1e-4)
        assert frame.get_forces() == pytest.approx(prediction.forces, abs=1e-5)
        assert bool(frame.info["in_domain"]) == prediction.domain.in_domain
        assert frame.info["model_digest"] == prediction.digest
    assert [bool(frame.info["in_domain"]) for frame in frames] == [True, False]
