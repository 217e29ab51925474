"""Bad input over every protocol that can carry it: refused by name, at once, and the next request is answered right."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import ANSWERED, BAD_TENSORS, STRUCTURES, M, Refusal, Refused, Same, Tensors
from running import GRPC_STATUS, PROTOCOLS, TENSOR_PROTOCOLS, Answered, Server, forces_of
from table import answered_table, refused_table
from understudy import Client
from wires import Call, rest_json, structure_of

from contract.repository import ModelRepository
from service.engines.onnxruntime import OnnxRuntime
from service.families.potential import Potential
from service.models import compute_of

AT_MOST_S = 5.0
MIB = 48.0
ROUNDS = 4


@pytest.fixture(scope="module")
def right_ev(project_repository: ModelRepository) -> float:
    """The energy of the good request, by the engine without a server."""
    stored = project_repository.load("malonaldehyde")
    family = Potential.of(stored.card)
    (prediction,) = compute_of(family, OnnxRuntime(1).open(stored, "model.onnx"))([family.encode(structure_of(M))])
    return float(prediction.energy)


def assert_refused(answered: Answered, refusal: Refusal) -> None:
    assert (answered.status, answered.code) == refusal, answered.problem or answered.results
    assert answered.grpc in (None, GRPC_STATUS[answered.status])
    assert answered.seconds < AT_MOST_S


def assert_next_is_right(server: Server, protocol: str, right_ev: float) -> None:
    (answer,) = server.ask(protocol, [M]).results
    assert answer["energy"] == pytest.approx(right_ev, abs=1e-4)
    assert answer["in_domain"]


def each(cases: Mapping[str, Any], protocols: Sequence[str]) -> list[Any]:
    """Every case on every protocol that can carry it."""
    return [
        pytest.param(case, protocol, id=f"{case.number} {name} over {protocol}")
        for name, case in cases.items()
        for protocol in protocols
        if isinstance(case, Same) or case.on(protocol) is not None
    ]


@pytest.mark.parametrize(("case", "protocol"), each(STRUCTURES, PROTOCOLS))
def test_structures_that_cannot_be_answered_are_refused_by_name(
    server: Server, right_ev: float, case: Refused, protocol: str
) -> None:
    answered = server.ask(protocol, case.items)
    assert_refused(answered, case.on(protocol))
    if protocol not in case.elsewhere:
        assert {name: answered.problem.get(name) for name in case.facts} == case.facts
    assert_next_is_right(server, protocol, right_ev)


@pytest.mark.parametrize(("case", "protocol"), each(BAD_TENSORS, TENSOR_PROTOCOLS))
def test_tensors_that_are_not_what_they_claim_are_refused_by_name(
    server: Server, right_ev: float, case: Tensors, protocol: str
) -> None:
    assert_refused(server.send(protocol, case.inputs), case.on(protocol))
    assert_next_is_right(server, protocol, right_ev)


@pytest.mark.parametrize(("case", "protocol"), each(ANSWERED, PROTOCOLS))
def test_unusual_structures_are_answered_as_their_harmless_form_is(
    server: Server, right_ev: float, case: Same, protocol: str
) -> None:
    answered = server.ask(protocol, case.items)
    assert answered.status == 200, answered.problem
    assert np.isfinite(forces_of(answered)).all()
    energies = [result["energy"] for result in answered.results]
    if case.in_domain is not None:
        assert [result["in_domain"] for result in answered.results] == [case.in_domain] * len(energies)
    if case.like is not None:
        like = server.ask(protocol, case.like)
        copies = sum(len(i["numbers"]) for i in case.like) / sum(len(i["numbers"]) for i in case.items)
        expected = [result["energy"] / copies for result in like.results]
        assert energies == pytest.approx(expected, abs=1e-4 if case.forces != 0.0 else 0.0)
        if case.forces is not None:
            np.testing.assert_allclose(forces_of(answered), forces_of(like), atol=case.forces)
    assert_next_is_right(server, protocol, right_ev)


def test_a_lone_atom_in_vacuum_has_no_force(server: Server) -> None:
    for protocol in PROTOCOLS:
        answered = server.ask(protocol, ANSWERED["one atom"].items)
        assert not forces_of(answered).any()
        assert not forces_of(server.ask(protocol, ANSWERED["an isolated atom"].items))[-1].any()


def test_of_two_equal_structures_in_a_deterministic_request_each_has_the_same_bits(server: Server) -> None:
    together = server.post(rest_json([M, {**M, "positions": np.array(M["positions"]) * 1.01}, M], deterministic=True))
    alone = server.post(rest_json([M], deterministic=True))
    first, _, second = together.results
    for other in (second, alone.results[0]):
        assert first["energy"] == other["energy"]
        assert first["forces"].tobytes() == other["forces"].tobytes()


def test_every_layout_and_precision_of_an_array_means_the_same(server: Server, right_ev: float) -> None:
    positions = np.array(M["positions"])
    strided = np.zeros((18, 6))
    strided[::2, ::2] = positions
    broadcast = np.broadcast_to(np.array(M["numbers"])[:, None], (9, 2))[:, 0]
    read_only = positions.copy()
    read_only.flags.writeable = False
    with Client(f"http://127.0.0.1:{server.port}") as client:
        exact = client.predict("malonaldehyde", {"numbers": M["numbers"], "positions": positions})
        assert exact.energy == pytest.approx(right_ev, abs=1e-4)
        for other in (np.asfortranarray(positions), strided[::2, ::2], positions.astype(">f8"), read_only):
            answer = client.predict("malonaldehyde", {"numbers": broadcast, "positions": other})
            assert answer.energy == exact.energy
            np.testing.assert_array_equal(answer.forces, exact.forces)
        single = client.predict("malonaldehyde", {"numbers": M["numbers"], "positions": positions.astype(np.float32)})
        assert single.energy == pytest.approx(exact.energy, abs=1e-4)
        np.testing.assert_allclose(single.forces, exact.forces, atol=1e-4)


@pytest.mark.parametrize("media_type", ["application/x-npy", "application/python-pickle", "text/plain", "text/csv"])
def test_arrays_of_objects_and_pickles_are_not_read(server: Server, media_type: str) -> None:
    answered = server.post(Call("/v1/predict/{model}", b"\x80\x04cos\nsystem\n", {"Content-Type": media_type}))
    assert_refused(answered, (415, "unsupported_media_type"))


@pytest.mark.parametrize("case", ["bohr for angstrom", "angstrom times ten"])
def test_the_verdict_doubts_the_unit_where_distances_are_those_of_another(server: Server, case: str) -> None:
    (answer,) = rest_json(ANSWERED[case].items)(server.http, "malonaldehyde").json()["results"]
    assert any("not in bohr" in reason for reason in answer["domain"]["reasons"])


def test_refusals_leave_the_memory_of_the_server_as_it_was(server: Server) -> None:
    structures = [param.values for param in each(STRUCTURES, PROTOCOLS)]
    tensors = [param.values for param in each(BAD_TENSORS, TENSOR_PROTOCOLS)]

    def all_of_them() -> None:
        for case, protocol in structures:
            server.ask(protocol, case.items)
        for case, protocol in tensors:
            server.send(protocol, case.inputs)

    for _ in range(2):
        all_of_them()
    before = server.resident_mib
    for _ in range(ROUNDS):
        all_of_them()
    assert server.resident_mib - before < MIB


def test_the_documentation_says_what_this_suite_says(project: Path) -> None:
    text = (project / "docs" / "serving.md").read_text()
    assert refused_table() in text
    assert answered_table() in text
