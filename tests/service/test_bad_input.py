"""Requests that ask one format or one route for the impossible; what every protocol can carry is in bad_inputs/."""

from typing import Any

import httpx
import numpy as np
import pytest
from tiny import pair_energy
from understudy.wire import Problem
from wires import (
    WIRES,
    Call,
    call,
    kserve_binary,
    malonaldehyde,
    raw,
    rest_json,
    results,
    structure_of,
    tensors_of,
)

M = malonaldehyde()
WATER = {"numbers": [8, 1, 1], "positions": [[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]}
REST, KSERVE = "/v1/predict/{model}", "/v2/models/{model}/infer"


def problem_of(response: httpx.Response) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    problem = Problem.model_validate(body)
    assert problem.status == response.status_code
    assert problem.detail
    assert problem.hint
    assert problem.error.startswith(problem.detail)
    assert problem.request_id == response.headers["x-request-id"]
    assert not [word for word in ("Traceback", "/service", "0x") if word in response.text]
    return body


@pytest.fixture(autouse=True)
def _the_next_request_is_right(request: pytest.FixtureRequest, gateway: httpx.Client) -> Any:
    yield
    (answer,) = results(rest_json([M])(gateway))
    assert answer["energy"] == pytest.approx(pair_energy(structure_of(M)), abs=1e-4)


GOOD = tensors_of([M])
NUMBERS = {"name": "numbers", "datatype": "INT64", "shape": [9], "data": M["numbers"]}
POSITIONS = {"name": "positions", "datatype": "FP64", "shape": [9, 3], "data": np.ravel(M["positions"]).tolist()}


def tensor(**changes: Any) -> list[dict[str, Any]]:
    binary = {"name": "positions", "datatype": "FP64", "shape": [9, 3], "parameters": {"binary_data_size": 216}}
    return [NUMBERS, {**binary, **changes}]


BUFFER = GOOD["positions"].tobytes()
HEADS = {
    "both data and bytes": ({"inputs": tensor(data=[0.0] * 27)}, BUFFER, "ambiguous_tensor"),
    "neither data nor bytes": ({"inputs": tensor(parameters={})}, b"", "ambiguous_tensor"),
    "a tensor that is not known": ({"inputs": [*tensor(), {**NUMBERS, "name": "charges"}]}, BUFFER, "unknown_field"),
    "no tensors": ({"inputs": []}, b"", "missing_field"),
    "tensors that are no list": ({"inputs": {"numbers": 1}}, b"", "malformed_tensors"),
    "a size that is text": ({"inputs": tensor(parameters={"binary_data_size": "216"})}, BUFFER, "size_mismatch"),
    "a head that is no object": (b"[1]", b"", "malformed_json"),
    "a head that is not JSON": (b"{not json", b"", "malformed_json"),
    "a head that is not UTF-8": (b'{"inputs": "\xff"}', b"", "malformed_json"),
    "lone surrogates": (b'{"inputs": [{"name": "\\ud800"}]}', b"", "malformed_json"),
}


@pytest.mark.parametrize("path", [REST, KSERVE], ids=["REST", "KServe"])
@pytest.mark.parametrize("name", HEADS)
def test_heads_that_do_not_describe_their_tensors_are_refused(gateway: httpx.Client, path: str, name: str) -> None:
    head, buffers, code = HEADS[name]
    response = raw(path, head, buffers)(gateway)
    assert (response.status_code, problem_of(response)["code"]) == (400, code)


@pytest.mark.parametrize("path", [REST, KSERVE], ids=["REST", "KServe"])
@pytest.mark.parametrize("length", ["-1", "0", "1e3", "99999", "9" * 30, "", "12 "])
def test_a_wrong_length_of_the_head_is_refused(gateway: httpx.Client, path: str, length: str) -> None:
    response = raw(path, {"inputs": tensor()}, BUFFER, length)(gateway)
    assert (response.status_code, problem_of(response)["code"] in ("header_length", "malformed_json")) == (400, True)


JSON_BODIES = {
    "no structures": (b"{}", "missing_field"),
    "an empty list of structures": (b'{"structures": []}', "missing_field"),
    "one structure instead of a list": (b'{"structures": {"numbers": [1], "positions": [[0, 0, 0]]}}', "missing_field"),
    "a structure that is a number": (b'{"structures": [1]}', "bad_type"),
    "a structure without positions": (b'{"structures": [{"numbers": [1]}]}', "missing_field"),
    "a misspelt field": (b'{"structures": [{"numbers": [1], "positon": [[0, 0, 0]]}]}', "unknown_field"),
    "a charge, which the model would ignore": (
        b'{"structures": [{"numbers": [1], "positions": [[0, 0, 0]], "charge": 1}]}',
        "unknown_field",
    ),
    "an output that does not exist": (
        b'{"structures": [{"numbers": [1], "positions": [[0, 0, 0]]}], "outputs": ["dipole"]}',
        "unknown_output",
    ),
    "outputs that are no list": (
        b'{"structures": [{"numbers": [1], "positions": [[0, 0, 0]]}], "outputs": "forces_std"}',
        "unknown_output",
    ),
    "a negative time": (
        b'{"structures": [{"numbers": [1], "positions": [[0, 0, 0]]}], "timeout_s": -1}',
        "bad_request",
    ),
    "ragged positions": (b'{"structures": [{"numbers": [1, 1], "positions": [[0, 0, 0], [1]]}]}', "bad_shape"),
    "an object for numbers": (b'{"structures": [{"numbers": {"a": 1}, "positions": [[0, 0, 0]]}]}', "bad_shape"),
    "pbc as a number": (b'{"structures": [{"numbers": [1], "positions": [[0, 0, 0]], "pbc": 1}]}', "bad_type"),
    "pbc of two": (b'{"structures": [{"numbers": [1], "positions": [[0,0,0]], "pbc": [true, true]}]}', "bad_shape"),
}


@pytest.mark.parametrize("name", JSON_BODIES)
def test_json_that_is_no_request_is_refused(gateway: httpx.Client, name: str) -> None:
    body, code = JSON_BODIES[name]
    response = Call(REST, body, {"Content-Type": "application/json"})(gateway)
    assert (response.status_code, problem_of(response)["code"]) == (400, code)


XYZ_BODIES = {
    "nothing": (b"", 400, "malformed_xyz"),
    "no number of atoms": (b"C 0 0 0\n", 400, "malformed_xyz"),
    "10^7 atoms claimed": (b"10000000\n\nC 0 0 0\n", 400, "malformed_xyz"),
    "10^30 atoms claimed": (b"1" + b"0" * 30 + b"\n\nC 0 0 0\n", 400, "malformed_xyz"),
    "a negative number of atoms": (b"-1\n\nC 0 0 0\n", 400, "malformed_xyz"),
    "a second frame cut off": (b"1\n\nC 0 0 0\n2\n\nC 0 0 0\n", 400, "malformed_xyz"),
    "text after an empty line": (b"1\n\nC 0 0 0\n\n1\n\nC 0 0 0\n", 400, "malformed_xyz"),
    "no atoms": (b"0\n\n", 422, "empty_structure"),
    "an unknown symbol": (b"1\n\nXx 0 0 0\n", 422, "unknown_element"),
    "the dummy symbol X": (b"1\n\nX 0 0 0\n", 422, "unknown_element"),
    "an element the model does not know": (b"1\n\nFe 0 0 0\n", 422, "unsupported_element"),
    "nan": (b"1\n\nC 0 nan 0\n", 400, "non_finite"),
    "a column missing": (b"1\n\nC 0 0\n", 400, "malformed_xyz"),
    "text for a coordinate": (b"1\n\nC 0 zero 0\n", 400, "malformed_xyz"),
    "columns of another kind": (b"1\nProperties=species:S:1:pos:Q:3\nC 0 0 0\n", 400, "malformed_xyz"),
    "a billion columns": (b"1\nProperties=species:S:1:pos:R:3:w:R:1000000000\nC 0 0 0\n", 400, "malformed_xyz"),
    "half a Properties entry": (b"1\nProperties=species:S:1:pos:R\nC 0 0 0\n", 400, "malformed_xyz"),
    "a lattice of eight numbers": (b'1\nLattice="1 0 0 0 1 0 0 0"\nC 0 0 0\n', 400, "malformed_xyz"),
    "a singular lattice": (b'1\nLattice="1 0 0 1 0 0 0 0 1"\nC 0 0 0\n', 422, "singular_cell"),
    "pbc that is text": (b'1\nLattice="9 0 0 0 9 0 0 0 9" pbc="yes no"\nC 0 0 0\n', 400, "malformed_xyz"),
    "periodic without a lattice": (b'1\npbc="T T T"\nC 0 0 0\n', 422, "missing_cell"),
    "a comment of 20,000 characters": (b"1\n" + b"x" * 20_000 + b"\nC 0 0 0\n", 400, "malformed_xyz"),
    "a comment of 5,000 open lists": (b'1\nx="_JSON ' + b"[" * 5000 + b'"\nC 0 0 0\n', 400, "malformed_xyz"),
    "bytes that are not UTF-8": (b"1\n\xff\xfe\nC 0 0 0\n", 400, "malformed_xyz"),
}


@pytest.mark.parametrize("name", XYZ_BODIES)
def test_extended_xyz_that_cannot_be_answered_is_refused(gateway: httpx.Client, name: str) -> None:
    body, status, code = XYZ_BODIES[name]
    response = Call(REST, body, {"Content-Type": "chemical/x-xyz"})(gateway)
    assert (response.status_code, problem_of(response)["code"]) == (status, code)


KSERVE_HEADS = {
    "an unknown output": ({"outputs": [{"name": "dipole"}]}, "unknown_output"),
    "an output without a name": ({"outputs": [{}]}, "unknown_output"),
    "outputs that are no list": ({"outputs": 1}, "malformed_request"),
    "stress of a molecule": ({"outputs": [{"name": "stress"}]}, "unknown_output"),
    "binary_data that is text": (
        {"outputs": [{"name": "energy", "parameters": {"binary_data": "yes"}}]},
        "malformed_request",
    ),
    "a time in text": ({"parameters": {"timeout": "1 s"}}, "malformed_request"),
    "an id that is a number": ({"id": 7}, "malformed_request"),
    "an id of 300 bytes": ({"id": "x" * 300}, "malformed_request"),
    "parameters that are a list": ({"parameters": []}, "malformed_request"),
}


@pytest.mark.parametrize("name", KSERVE_HEADS)
def test_kserve_heads_that_ask_for_the_impossible_are_refused(gateway: httpx.Client, name: str) -> None:
    head, code = KSERVE_HEADS[name]
    response = kserve_binary([M], **head)(gateway)
    assert (response.status_code, problem_of(response)["code"]) == (400, code)


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("model", ["nobody", "..%2Ftiny", "%2Fetc", "TINY", "%20", "x" * 4096, "tiny%00", "tin\u0443"])
def test_a_wrong_model_name_is_not_found_and_touches_no_file(gateway: httpx.Client, wire: str, model: str) -> None:
    response = call(wire, [M])(gateway, model)
    assert response.status_code == 404
    assert problem_of(response)["code"] in ("unknown_model", "not_found")


def test_an_unknown_model_names_those_that_are_there(gateway: httpx.Client) -> None:
    assert problem_of(rest_json([M])(gateway, "nobody"))["models"] == ["anything", "tiny"]


@pytest.mark.parametrize("path", [REST, KSERVE], ids=["REST", "KServe"])
def test_a_wrong_model_name_is_told_before_a_wrong_body(gateway: httpx.Client, path: str) -> None:
    response = Call(path, b"{not json")(gateway, "nobody")
    assert (response.status_code, problem_of(response)["code"]) == (404, "unknown_model")


def test_the_spread_of_forces_is_refused_where_a_model_cannot_give_it(gateway: httpx.Client) -> None:
    response = rest_json([M], outputs=["forces_std"])(gateway, "anything")
    assert (response.status_code, problem_of(response)["code"]) == (400, "unknown_output")


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", "text/plain", "application/x-npy", ";"])
def test_an_unknown_media_type_is_refused_with_those_that_are_read(gateway: httpx.Client, media_type: str) -> None:
    response = rest_json([M])(gateway, **{"Content-Type": media_type})
    assert (response.status_code, problem_of(response)["code"]) == (415, "unsupported_media_type")
    assert "application/json" in response.headers["accept"]


@pytest.mark.parametrize("wire", WIRES)
def test_limits_of_structures_and_atoms_are_told(small_gateway: httpx.Client, wire: str) -> None:
    response = call(wire, [WATER] * 5)(small_gateway)
    body = problem_of(response)
    assert (response.status_code, body["limit"], body["got"], body["unit"]) == (413, 4, 5, "structures")
    long = {"numbers": [6] * 61, "positions": (np.arange(183).reshape(-1, 3) * 1.1).round(1)}
    body = problem_of(call(wire, [long])(small_gateway))
    assert (body["status"], body["limit"], body["got"], body["unit"]) == (413, 60, 61, "atoms")


def test_what_is_no_route_is_answered_in_the_same_shape(gateway: httpx.Client) -> None:
    assert problem_of(gateway.get("/v3"))["code"] == "not_found"
    assert problem_of(gateway.get("/v1/predict/tiny"))["code"] == "method_not_allowed"
