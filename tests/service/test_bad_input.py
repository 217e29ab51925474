"""Bad input over every wire that can carry it: each case names its refusal, and the next request is answered right."""

import gc
import gzip
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tiny import pair_energy
from understudy.wire import Problem
from wires import (
    WIRES,
    Call,
    Item,
    call,
    framed,
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


@dataclass
class Case:
    """Structures, the refusal they must meet on every wire, other refusals by wire, and facts that must be named."""

    structures: list[Item]
    status: int
    code: str
    facts: dict[str, Any] = field(default_factory=dict)
    elsewhere: dict[str, tuple[int, str] | None] = field(default_factory=dict)


def moved(item: Item, atom: int, to: list[float]) -> Item:
    return {**item, "positions": [to if n == atom else r for n, r in enumerate(item["positions"])]}


NOT_JSON = {"REST JSON": (400, "malformed_json"), "KServe JSON": (400, "malformed_json")}
NOT_BINARY = {"REST binary": None, "KServe binary": None}
JSON_TENSOR = {"KServe JSON": (400, "malformed_data")}
CASES = {
    "no atoms": Case([{"numbers": [], "positions": []}], 422, "empty_structure", {"index": 0}),
    "two systems, one empty": Case(
        [M, {"numbers": [], "positions": []}], 422, "empty_structure", {"index": 1, "field": "numbers"}
    ),
    "Z = 0": Case([{**WATER, "numbers": [8, 0, 1]}], 422, "unknown_element", {"atoms": [1], "index": 0}),
    "Z = 119": Case([M, {**WATER, "numbers": [8, 1, 119]}], 422, "unknown_element", {"atoms": [2], "index": 1}),
    "Z = -6": Case([{**WATER, "numbers": [8, 1, -6]}], 422, "unknown_element", {"atoms": [2]}),
    "an element the model does not know": Case(
        [M, {**WATER, "numbers": [8, 26, 1]}],
        422,
        "unsupported_element",
        {"atoms": [1], "index": 1, "elements": ["H", "C", "O"]},
    ),
    "NaN": Case([moved(WATER, 1, [0.0, float("nan"), 0.0])], 400, "non_finite", {"atoms": [1]}, NOT_JSON),
    "infinity": Case([M, moved(WATER, 2, [0.0, 0.0, float("inf")])], 400, "non_finite", {"index": 1}, NOT_JSON),
    "1e30 angstrom": Case([moved(WATER, 2, [1e30, 0.0, 0.0])], 422, "coordinate_range", {"atoms": [2]}),
    "two atoms at one place": Case(
        [moved(WATER, 2, [0.96, 0.0, 0.0])], 422, "coincident_atoms", {"atoms": [1, 2], "field": "positions"}
    ),
    "two atoms 1e-12 apart": Case([moved(WATER, 2, [0.96 + 1e-12, 0.0, 0.0])], 422, "coincident_atoms"),
    "an atom on its own image": Case(
        [{"numbers": [6, 6], "positions": [[0, 0, 0], [4.0, 0, 0]], "cell": np.eye(3) * 4, "pbc": True}],
        422,
        "coincident_atoms",
    ),
    "periodic without a cell": Case(
        [{**WATER, "pbc": True}],
        422,
        "missing_cell",
        {"field": "cell"},
        {"REST binary": (422, "missing_cell"), "KServe binary": (422, "missing_cell")},
    ),
    "singular cell": Case([{**WATER, "cell": np.ones((3, 3)), "pbc": True}], 422, "singular_cell", {"index": 0}),
    "cell of NaN": Case([{**WATER, "cell": np.full((3, 3), np.nan), "pbc": True}], 400, "non_finite", {}, NOT_JSON),
    "cell of another shape": Case([{**WATER, "cell": np.eye(2), "pbc": True}], 400, "bad_shape", {"field": "cell"}),
    "two coordinates per atom": Case(
        [{**WATER, "positions": np.zeros((3, 2))}], 400, "bad_shape", {"field": "positions", "got": [3, 2]}
    ),
    "fewer positions than atoms": Case(
        [{**WATER, "positions": WATER["positions"][:2]}], 400, "bad_shape", {"expected": [3, 3], "got": [2, 3]}
    ),
    "text for atomic numbers": Case(
        [{**WATER, "numbers": ["O", "H", "H"]}], 400, "bad_type", {}, JSON_TENSOR | NOT_BINARY
    ),
    "text for positions": Case(
        [{**WATER, "positions": [["0", "0", "0"], ["1", "0", "0"], ["nan", "0", "0"]]}],
        400,
        "bad_type",
        {},
        JSON_TENSOR | NOT_BINARY,
    ),
    "null for a position": Case(
        [{**WATER, "positions": [[0, 0, None], [1, 0, 0], [0, 1, 0]]}], 400, "bad_type", {}, JSON_TENSOR | NOT_BINARY
    ),
    "fractions for atomic numbers": Case(
        [{**WATER, "numbers": [8.5, 1.0, 1.0]}],
        400,
        "bad_type",
        {"field": "numbers"},
        {"REST binary": None, "KServe binary": None, "KServe JSON": None},
    ),
    "booleans for atomic numbers": Case(
        [{**WATER, "numbers": [True, True, True]}], 400, "bad_type", {}, {**NOT_BINARY, "KServe JSON": None}
    ),
    "far too dense": Case(
        [{"numbers": [6] * 3000, "positions": np.random.default_rng(0).normal(size=(3000, 3)) * 0.3}],
        413,
        "cost_over_limit",
        {"unit": "pairs"},
    ),
}
ON_A_WIRE = [
    pytest.param(case, wire, id=f"{name} over {wire}")
    for name, case in CASES.items()
    for wire in WIRES
    if case.elsewhere.get(wire, ()) is not None
]


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


@pytest.mark.parametrize(("case", "wire"), ON_A_WIRE)
def test_structures_that_cannot_be_answered_are_refused_by_name(gateway: httpx.Client, case: Case, wire: str) -> None:
    response = call(wire, case.structures)(gateway)
    body = problem_of(response)
    assert (response.status_code, body["code"]) == (case.elsewhere.get(wire) or (case.status, case.code))
    if wire not in case.elsewhere:
        assert {name: body.get(name) for name in case.facts} == case.facts


GOOD = tensors_of([M])
NUMBERS = {"name": "numbers", "datatype": "INT64", "shape": [9], "data": M["numbers"]}
POSITIONS = {"name": "positions", "datatype": "FP64", "shape": [9, 3], "data": np.ravel(M["positions"]).tolist()}


def tensor(**changes: Any) -> list[dict[str, Any]]:
    binary = {"name": "positions", "datatype": "FP64", "shape": [9, 3], "parameters": {"binary_data_size": 216}}
    return [NUMBERS, {**binary, **changes}]


def counts(*natoms: float, datatype: str = "INT64") -> list[dict[str, Any]]:
    return [*tensor(), {"name": "natoms", "datatype": datatype, "shape": [len(natoms)], "data": list(natoms)}]


def sized(size: Any) -> dict[str, Any]:
    return {"binary_data_size": size}


BUFFER = GOOD["positions"].tobytes()
FRAMING = {
    "shape and bytes differ": ({"inputs": tensor(shape=[10, 3])}, BUFFER, "size_mismatch"),
    "fewer bytes than claimed": ({"inputs": tensor()}, BUFFER[:-1], "missing_bytes"),
    "bytes behind the last tensor": ({"inputs": tensor()}, BUFFER + b"\0", "surplus_bytes"),
    "a dtype wider than the data": (
        {"inputs": tensor(parameters=sized(108))},
        BUFFER[:108],
        "size_mismatch",
    ),
    "a negative dimension": ({"inputs": tensor(shape=[-9, 3])}, BUFFER, "malformed_shape"),
    "a dimension of 2^63": ({"inputs": tensor(shape=[2**63, 3])}, BUFFER, "malformed_shape"),
    "a product of dimensions that overflows": ({"inputs": tensor(shape=[2**32, 2**32])}, BUFFER, "malformed_shape"),
    "a product that would wrap to the right size": (
        {"inputs": tensor(shape=[2**62, 36], parameters=sized(0))},
        b"",
        "malformed_shape",
    ),
    "a dimension of zero": ({"inputs": tensor(shape=[0, 3], parameters=sized(0))}, b"", "bad_shape"),
    "a fractional dimension": ({"inputs": tensor(shape=[9.0, 3])}, BUFFER, "malformed_shape"),
    "10^7 atoms claimed in a small body": (
        {"inputs": tensor(shape=[10**7, 3], parameters=sized(24 * 10**7))},
        BUFFER,
        "missing_bytes",
    ),
    "10^7 atoms claimed by natoms": (
        {"inputs": counts(10**7)},
        BUFFER,
        "bad_shape",
    ),
    "a negative number of atoms": (
        {"inputs": counts(-1, 10)},
        BUFFER,
        "bad_shape",
    ),
    "natoms that overflow their sum": (
        {"inputs": counts(2**62, 2**62, 9)},
        BUFFER,
        "bad_shape",
    ),
    "fractions of atoms": (
        {"inputs": counts(9.0, datatype="FP64")},
        BUFFER,
        "bad_type",
    ),
    "no structure at all": (
        {"inputs": counts()},
        BUFFER,
        "missing_field",
    ),
    "both data and bytes": ({"inputs": tensor(data=[0.0] * 27)}, BUFFER, "ambiguous_tensor"),
    "neither data nor bytes": ({"inputs": tensor(parameters={})}, b"", "ambiguous_tensor"),
    "the same tensor twice": ({"inputs": [*tensor(), NUMBERS]}, BUFFER, "duplicate_tensor"),
    "a tensor that is not known": ({"inputs": [*tensor(), {**NUMBERS, "name": "charges"}]}, BUFFER, "unknown_field"),
    "no positions": ({"inputs": [NUMBERS]}, b"", "missing_field"),
    "no tensors": ({"inputs": []}, b"", "missing_field"),
    "tensors that are no list": ({"inputs": {"numbers": 1}}, b"", "malformed_tensors"),
    "BOOL bytes other than 0 and 1": (
        {"inputs": [*tensor(), {"name": "pbc", "datatype": "BOOL", "shape": [1, 3], "parameters": sized(3)}]},
        BUFFER + b"\1\2\0",
        "malformed_bool",
    ),
    "a string tensor with NUL": (
        {"inputs": [{"name": "numbers", "datatype": "BYTES", "shape": [1], "data": ["C\0"]}, POSITIONS]},
        b"",
        "unsupported_datatype",
    ),
    "a size that is text": ({"inputs": tensor(parameters=sized("216"))}, BUFFER, "size_mismatch"),
    "a head that is no object": (b"[1]", b"", "malformed_json"),
    "a head that is not JSON": (b"{not json", b"", "malformed_json"),
    "a head that is not UTF-8": (b'{"inputs": "\xff"}', b"", "malformed_json"),
    "lone surrogates": (b'{"inputs": [{"name": "\\ud800"}]}', b"", "malformed_json"),
}


@pytest.mark.parametrize("path", [REST, KSERVE], ids=["REST", "KServe"])
@pytest.mark.parametrize("name", FRAMING)
def test_tensors_that_break_the_framing_are_refused_before_anything_is_allocated(
    gateway: httpx.Client, path: str, name: str
) -> None:
    head, buffers, code = FRAMING[name]
    response = raw(path, head, buffers)(gateway)
    assert (response.status_code, problem_of(response)["code"]) == (400, code)


@pytest.mark.parametrize("path", [REST, KSERVE], ids=["REST", "KServe"])
@pytest.mark.parametrize("length", ["-1", "0", "1e3", "99999", "9" * 30, "", "12 "])
def test_a_wrong_length_of_the_head_is_refused(gateway: httpx.Client, path: str, length: str) -> None:
    response = raw(path, {"inputs": tensor()}, BUFFER, length)(gateway)
    assert (response.status_code, problem_of(response)["code"] in ("header_length", "malformed_json")) == (400, True)


JSON_BODIES = {
    "nothing": (b"", "malformed_json"),
    "half an object": (b'{"structures": [', "malformed_json"),
    "a list": (b"[]", "malformed_json"),
    "10,000 levels deep": (b'{"structures": ' + b"[" * 10_000 + b"]" * 10_000 + b"}", "malformed_json"),
    "900 levels deep": (
        b'{"structures": [{"numbers": [1], "positions": ' + b"[" * 900 + b"]" * 900 + b"}]}",
        "bad_shape",
    ),
    "NaN": (b'{"structures": [{"numbers": [1], "positions": [[NaN, 0, 0]]}]}', "malformed_json"),
    "Infinity": (b'{"structures": [{"numbers": [1], "positions": [[-Infinity, 0, 0]]}]}', "malformed_json"),
    "1e400": (b'{"structures": [{"numbers": [1], "positions": [[1e400, 0, 0]]}]}', "malformed_json"),
    "a lone surrogate": (b'{"structures": "\\ud800"}', "malformed_json"),
    "an integer of 100 digits": (
        b'{"structures": [{"numbers": [1' + b"0" * 100 + b'], "positions": [[0, 0, 0]]}]}',
        "bad_type",
    ),
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


def test_of_a_key_given_twice_the_last_value_counts(gateway: httpx.Client) -> None:
    body = b'{"structures": 1, "structures": [' + json.dumps(M).encode() + b"]}"
    assert results(Call(REST, body)(gateway))[0]["energy"] == results(rest_json([M])(gateway))[0]["energy"]


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
    for path in ("/@evil", "//v1/models", "/v1/%2e%2e/docs", "/v2/repository/index"):
        assert gateway.get(f"http://127.0.0.1{path}").status_code == 404


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads resident memory from /proc")
def test_bad_requests_leave_the_memory_as_it_was(gateway: httpx.Client) -> None:
    calls = [call(wire, case.structures) for case, wire in (p.values for p in ON_A_WIRE)]
    calls += [raw(path, head, buffers) for path in (REST, KSERVE) for head, buffers, _ in FRAMING.values()]
    calls += [Call(REST, body) for body, _ in JSON_BODIES.values()]
    calls += [Call(REST, body, {"Content-Type": "chemical/x-xyz"}) for body, _, _ in XYZ_BODIES.values()]
    calls += [
        Call(REST, gzip.compress(b" " * 2**22), {"Content-Encoding": "gzip"}),
        framed(REST, {"numbers": np.zeros(9)}),
    ]

    def all_of_them() -> None:
        for each in calls:
            assert 400 <= each(gateway).status_code < 500
        gc.collect()

    all_of_them()
    before = _resident_mib()
    for _ in range(8):
        all_of_them()
    assert _resident_mib() - before < 24
