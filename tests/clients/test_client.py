"""The clients: one structure or many, in order, in parts, from threads and from asyncio."""

import asyncio
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.lj import LennardJones
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from understudy import AsyncClient, BadRequest, Client, Prediction, Retries, Structure
from understudy.flows import MAX_ATOMS_A_CALL, MAX_STRUCTURES_A_CALL, chunks, predict_call
from understudy.inprocess import InProcess
from understudy.structures import as_structure
from understudy.wire import UNITS

LJ = {"sigma": 2.5, "epsilon": 0.1, "rc": 6.0, "smooth": True}


def argon(distance: float) -> Atoms:
    return Atoms("Ar2", [[0, 0, 0], [0, 0, distance]])


def expected(atoms: Atoms) -> Atoms:
    labelled = atoms.copy()
    labelled.calc = LennardJones(**LJ)
    return labelled


def agrees(prediction: Prediction, atoms: Atoms) -> bool:
    reference = expected(atoms)
    return np.isclose(prediction.energy, reference.get_potential_energy(), rtol=0, atol=1e-12) and np.allclose(
        prediction.forces, reference.get_forces(), rtol=1e-6, atol=1e-7
    )


def test_one_structure_gives_one_prediction_with_units_and_provenance(lj_client: Client) -> None:
    atoms = argon(3.0)
    prediction = lj_client.predict("argon", atoms)
    assert agrees(prediction, atoms)
    assert (prediction.model, prediction.version, prediction.digest) == ("argon", "1", "d" * 64)
    assert prediction.units == UNITS
    assert prediction.domain.in_domain
    assert prediction.stress is None
    assert prediction.forces_std is None
    assert prediction.max_force == pytest.approx(np.linalg.norm(expected(atoms).get_forces()[0]), rel=1e-6)


def test_a_list_comes_back_in_order_over_several_calls(lj_client: Client, lj_app: Starlette) -> None:
    frames = [argon(2.6 + 0.001 * i) for i in range(MAX_STRUCTURES_A_CALL + 10)]
    seen = []
    predictions = lj_client.predict("argon", frames, on_progress=lambda done, total: seen.append((done, total)))
    assert lj_app.state.batches == [MAX_STRUCTURES_A_CALL, 10]
    assert seen == [(MAX_STRUCTURES_A_CALL, len(frames)), (len(frames), len(frames))]
    assert all(agrees(p, atoms) for p, atoms in zip(predictions, frames, strict=True))


def test_an_empty_list_asks_nothing(lj_client: Client, lj_app: Starlette) -> None:
    assert lj_client.predict("argon", []) == []
    assert lj_app.state.batches == []


def test_crystals_have_a_stress_and_molecules_have_none(lj_client: Client) -> None:
    crystal, water = bulk("Ar", "fcc", 4.0, cubic=True), molecule("H2O")
    crystal.rattle(0.1, seed=1)
    alone = lj_client.predict("m", crystal)
    assert alone.stress == pytest.approx(expected(crystal).get_stress(), abs=1e-12)
    assert lj_client.predict("m", water).stress is None


def test_a_mixed_list_is_answered_as_each_of_its_structures_alone(lj_client: Client) -> None:
    frames = [argon(3.0), bulk("Ar", "fcc", 4.0), argon(4.0), bulk("Ar", "fcc", 4.2)]
    predictions = lj_client.predict("m", frames)
    assert all(agrees(p, atoms) for p, atoms in zip(predictions, frames, strict=True))
    assert [p.stress is not None for p in predictions] == [False, True, False, True]


def test_optional_outputs_come_only_when_asked_for(lj_client: Client) -> None:
    prediction = lj_client.predict("m", [argon(3.0), molecule("CH4")], outputs=["atomic_energies", "forces_std"])[1]
    assert prediction.atomic_energies is not None
    assert prediction.forces_std is not None
    assert prediction.atomic_energies.sum() == pytest.approx(prediction.energy)
    assert prediction.forces_std.shape == (5, 3)
    assert prediction.energy_std == 0.01


def test_a_prediction_owns_writable_arrays_and_is_plain_data_for_json(lj_client: Client) -> None:
    prediction = lj_client.predict("m", [argon(3.0), argon(4.0)])[0]
    prediction.forces[:] = 0.0
    assert prediction.forces.base is None
    assert prediction.to_dict() == {
        "energy": prediction.energy,
        "energy_std": 0.0,
        "forces": [[0.0] * 3] * 2,
        "domain": {"in_domain": True, "verdict": "in", "reasons": [], "atoms": []},
        "flags": [],
    }


def test_models_and_cards_are_listed(lj_client: Client) -> None:
    served = lj_client.models()
    assert [m.name for m in served] == ["a-field", "argon", "water", "hydrides"]
    assert served[1].members == 8
    assert lj_client.card("water")["domain"] == {"formulas": ["H2O"]}


def test_model_names_cannot_leave_their_place_in_the_path() -> None:
    call = predict_call("../a b?c#d", [as_structure(argon(3.0))], {})
    assert call.path == "/v1/predict/..%2Fa%20b%3Fc%23d"


def test_the_asynchronous_client_answers_the_same(lj_client: Client, lj_app: Starlette) -> None:
    frames = [argon(3.0), bulk("Ar", "fcc", 4.0)]

    async def ask() -> tuple[Prediction, list[Prediction], list[str]]:
        async with AsyncClient(transport=httpx.ASGITransport(lj_app)) as client:
            one, many, served = await asyncio.gather(
                client.predict("m", frames[0]), client.predict("m", frames), client.models()
            )
            return one, many, [m.name for m in served]

    one, many, names = asyncio.run(ask())
    assert one.to_dict() == lj_client.predict("m", frames[0]).to_dict()
    assert [p.to_dict() for p in many] == [p.to_dict() for p in lj_client.predict("m", frames)]
    assert "argon" in names


def test_the_asynchronous_client_waits_and_asks_again() -> None:
    asked = []

    async def models(request: Request) -> Response:
        asked.append(request.url.path)
        return JSONResponse({"models": []}) if len(asked) > 2 else Response(status_code=503)

    app = Starlette(routes=[Route("/v1/models", models)])

    async def ask() -> list[object]:
        async with AsyncClient(transport=httpx.ASGITransport(app), retries=Retries(first_pause_s=0.0)) as client:
            return list(await client.models())

    assert asyncio.run(ask()) == []
    assert len(asked) == 3


def test_one_client_serves_several_threads(lj_client: Client) -> None:
    frames = [argon(2.6 + 0.01 * i) for i in range(40)]
    with ThreadPoolExecutor(8) as pool:
        predictions = list(pool.map(lambda atoms: lj_client.predict("m", atoms), frames))
    assert all(agrees(p, atoms) for p, atoms in zip(predictions, frames, strict=True))


def test_a_fault_in_a_later_part_is_counted_from_the_start_of_the_list(lj_app: Starlette) -> None:
    async def predict(request: Request) -> Response:
        if lj_app.state.batches:
            return JSONResponse({"status": 422, "code": "coincident_atoms", "detail": "structures[2]", "index": 2}, 422)
        return await lj_app.routes[0].endpoint(request)

    app = Starlette(routes=[Route("/v1/predict/{model}", predict, methods=["POST"])])
    app.state = lj_app.state
    with Client(transport=InProcess(app)) as client, pytest.raises(BadRequest) as caught:
        client.predict("m", [argon(3.0)] * (MAX_STRUCTURES_A_CALL + 5))
    assert caught.value.facts == {"index": MAX_STRUCTURES_A_CALL + 2}
    assert f"structure {MAX_STRUCTURES_A_CALL + 2} of the list" in str(caught.value)


def test_copies_and_pickles_of_a_client_keep_its_settings() -> None:
    with Client("http://example.org:1234/", headers={"X-Team": "ice"}, timeout_s=7.0) as client:
        for twin in (copy.deepcopy(client), pickle.loads(pickle.dumps(client))):
            with twin:
                assert twin.url == "http://example.org:1234"
                assert repr(twin) == repr(client)
                assert twin._settings == client._settings


def test_the_address_comes_from_the_environment_when_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_URL", "http://gpu-node:8001")
    with Client() as client:
        assert client.url == "http://gpu-node:8001"


def structure(atoms: int) -> Structure:
    return Structure(np.ones(atoms, np.int64), np.zeros((atoms, 3)), None, np.zeros(3, bool))


@given(st.lists(st.integers(1, MAX_ATOMS_A_CALL + 5), max_size=20) | st.lists(st.just(1), min_size=500, max_size=600))
def test_parts_keep_the_order_and_stay_within_the_bounds(sizes: list[int]) -> None:
    structures = [structure(size) for size in sizes]
    parts = list(chunks(structures))
    assert [place for part in parts for place in part] == list(range(len(sizes)))
    for part in parts:
        assert 1 <= len(part) <= MAX_STRUCTURES_A_CALL
        assert len(part) == 1 or sum(sizes[place] for place in part) <= MAX_ATOMS_A_CALL


@given(st.lists(st.booleans(), max_size=30))
def test_a_crystal_has_its_stress_whatever_else_is_in_the_list(kinds: list[bool]) -> None:
    structures = [as_structure(bulk("Ar", "fcc", 4.0) if periodic else argon(3.0)) for periodic in kinds]
    parts = list(chunks(structures))
    assert sorted(place for part in parts for place in part) == list(range(len(kinds)))
    assert all(len({kinds[place] for place in part}) == 1 for part in parts)
