"""The list of bad inputs by the numbers of the design (tensors 11 to 16, atoms 17 to 29), and what each must meet.

A case names its refusal as HTTP status and code; gRPC has the status code that belongs to it. `elsewhere` names another
refusal by protocol, or None where a protocol cannot carry the case.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from running import PROTOCOLS, TENSOR_PROTOCOLS, Tensor, inputs_of
from wires import Item, malonaldehyde

Refusal = tuple[int, str] | None

M = malonaldehyde()
PLACES = np.array(M["positions"])
WATER: Item = {"numbers": [8, 1, 1], "positions": [[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]]}
CRYSTAL: Item = {"numbers": [6, 1, 8], "positions": [[0.1, 0.2, 0.3], [1.9, 1.4, 0.2], [0.4, 2.0, 1.9]]}
RNG = np.random.default_rng(7)

JSON = ("REST JSON", "KServe JSON")
NO_JSON_NUMBER: dict[str, Refusal] = dict.fromkeys(JSON, (400, "malformed_json"))
ONLY_REST_JSON: dict[str, Refusal] = dict.fromkeys([p for p in PROTOCOLS if p != "REST JSON"])
ONLY_JSON: dict[str, Refusal] = {**ONLY_REST_JSON, "KServe JSON": (400, "malformed_data")}
NOT_XYZ: dict[str, Refusal] = {"REST xyz": None}


@dataclass
class Refused:
    """Structures that must be refused, and the facts that must be named."""

    number: int
    items: list[Item]
    status: int
    code: str
    facts: dict[str, Any] = field(default_factory=dict)
    elsewhere: dict[str, Refusal] = field(default_factory=dict)

    def on(self, protocol: str) -> Refusal:
        return self.elsewhere.get(protocol, (self.status, self.code))


def moved(item: Item, atom: int, to: list[float]) -> Item:
    return {**item, "positions": [to if n == atom else r for n, r in enumerate(item["positions"])]}


def cell(value: Any, pbc: Any = True, item: Item = CRYSTAL) -> Item:
    return {**item, "cell": np.asarray(value, float), "pbc": pbc}


EMPTY: Item = {"numbers": [], "positions": []}
STRUCTURES = {
    "no atoms": Refused(17, [EMPTY], 422, "empty_structure", {"index": 0}),
    "two systems, one empty": Refused(17, [M, EMPTY], 422, "empty_structure", {"index": 1, "field": "numbers"}),
    "two atoms at one place": Refused(
        18, [moved(WATER, 2, [0.96, 0.0, 0.0])], 422, "coincident_atoms", {"pair": [1, 2], "field": "positions"}
    ),
    "two atoms 1e-12 apart": Refused(
        18, [M, moved(WATER, 2, [0.96 + 1e-12, 0.0, 0.0])], 422, "coincident_atoms", {"pair": [1, 2], "index": 1}
    ),
    "an atom on another's image": Refused(
        18,
        [cell(np.eye(3) * 4, item={"numbers": [6, 6], "positions": [[0, 0, 0], [4.0, 0, 0]]})],
        422,
        "coincident_atoms",
        {"pair": [0, 1]},
    ),
    "NaN": Refused(19, [moved(WATER, 1, [0.0, float("nan"), 0.0])], 400, "non_finite", {"atoms": [1]}, NO_JSON_NUMBER),
    "infinity": Refused(
        19, [M, moved(WATER, 2, [0.0, 0.0, float("inf")])], 400, "non_finite", {"index": 1}, NO_JSON_NUMBER
    ),
    "1e30 angstrom": Refused(19, [moved(WATER, 2, [1e30, 0.0, 0.0])], 422, "coordinate_range", {"atoms": [2]}),
    "a cell of NaN": Refused(19, [cell(np.full((3, 3), np.nan))], 400, "non_finite", {"field": "cell"}, NO_JSON_NUMBER),
    "a cell of 1e30": Refused(19, [cell(np.eye(3) * 1e30)], 422, "coordinate_range", {"field": "cell"}),
    "a cell of 1e200": Refused(19, [cell(np.eye(3) * 1e200)], 422, "coordinate_range", {"field": "cell"}),
    "an unsupported element": Refused(
        20,
        [M, {**WATER, "numbers": [8, 26, 1]}],
        422,
        "unsupported_element",
        {"atoms": [1], "index": 1, "elements": ["H", "C", "O"]},
    ),
    "Z = 0": Refused(
        20,
        [{**WATER, "numbers": [8, 0, 1]}],
        422,
        "unknown_element",
        {"atoms": [1], "index": 0},
        {"REST xyz": (422, "unknown_element")},
    ),
    "Z = 119": Refused(
        20,
        [M, {**WATER, "numbers": [8, 1, 119]}],
        422,
        "unknown_element",
        {"atoms": [2], "index": 1},
        {"REST xyz": (422, "unknown_element")},
    ),
    "Z = -6": Refused(20, [{**WATER, "numbers": [8, 1, -6]}], 422, "unknown_element", {"atoms": [2]}, NOT_XYZ),
    "a singular cell": Refused(21, [cell(np.ones((3, 3)))], 422, "singular_cell", {"index": 0}),
    "a cell 1e-3 high": Refused(21, [cell(np.diag([4, 4, 1e-3]))], 422, "singular_cell", {"index": 0}),
    "periodic without a cell": Refused(21, [{**WATER, "pbc": True}], 422, "missing_cell", {"field": "cell"}),
    "a cell of another shape": Refused(
        21, [cell(np.eye(2))], 400, "bad_shape", {"field": "cell"}, {"REST xyz": (400, "malformed_xyz")}
    ),
    "two coordinates per atom": Refused(
        21,
        [{**WATER, "positions": np.zeros((3, 2))}],
        400,
        "bad_shape",
        {"field": "positions", "got": [3, 2]},
        {"REST xyz": (400, "malformed_xyz")},
    ),
    "fewer positions than atoms": Refused(
        11,
        [{**WATER, "positions": WATER["positions"][:2]}],
        400,
        "bad_shape",
        {"expected": [3, 3], "got": [2, 3]},
        {"REST xyz": (400, "malformed_xyz")},
    ),
    "far too dense": Refused(
        24,
        [{"numbers": [6] * 3000, "positions": (RNG.normal(size=(3000, 3)) * 0.3).round(6)}],
        413,
        "cost_over_limit",
        {"unit": "pairs"},
    ),
    "a cell with countless images": Refused(
        24,
        [cell(np.eye(3) * 0.4, item={"numbers": [6] * 8, "positions": RNG.random((8, 3)).round(6)})],
        413,
        "cost_over_limit",
        {"unit": "pairs"},
    ),
    "nanometres": Refused(
        26, [M, {**M, "positions": PLACES * 0.1}], 422, "impossible_distances", {"index": 1, "unit": "angstrom"}
    ),
    "text for atomic numbers": Refused(13, [{**WATER, "numbers": ["O", "H", "H"]}], 400, "bad_type", {}, ONLY_JSON),
    "text for positions": Refused(
        13,
        [{**WATER, "positions": [["0", "0", "0"], ["1", "0", "0"], ["nan", "0", "0"]]}],
        400,
        "bad_type",
        {},
        ONLY_JSON,
    ),
    "null for a position": Refused(
        13, [{**WATER, "positions": [[0, 0, None], [1, 0, 0], [0, 1, 0]]}], 400, "bad_type", {}, ONLY_JSON
    ),
    "fractions for atomic numbers": Refused(
        13, [{**WATER, "numbers": [8.5, 1.0, 1.0]}], 400, "bad_type", {"field": "numbers"}, ONLY_REST_JSON
    ),
    "booleans for atomic numbers": Refused(
        13, [{**WATER, "numbers": [True, True, True]}], 400, "bad_type", {}, ONLY_REST_JSON
    ),
    "a charge, which no shipped model takes": Refused(
        25,
        [{**WATER, "charge": 1}],
        400,
        "unknown_field",
        {"field": "charge"},
        {**ONLY_REST_JSON, "REST xyz": (400, "unknown_field")},
    ),
    "a spin, which no shipped model takes": Refused(
        25,
        [{**WATER, "spin": 3}],
        400,
        "unknown_field",
        {"field": "spin"},
        {**ONLY_REST_JSON, "REST xyz": (400, "unknown_field")},
    ),
}


@dataclass
class Same:
    """Structures that must be answered as their harmless form is: `like`, or finite numbers where there is none."""

    number: int
    items: list[Item]
    like: list[Item] | None = None
    forces: float | None = 2e-4
    in_domain: bool | None = None


SKEWED = np.array([[4.0, 0, 0], [3.9, 2.0, 0], [3.5, 1.5, 3.0]])
REDUCED = np.array([SKEWED[0], SKEWED[1] - SKEWED[0], SKEWED[2] - SKEWED[1]])
CUBE = np.eye(3) * 4.5
FAR = {**CRYSTAL, "positions": np.array(CRYSTAL["positions"]) + np.diag([450.0, -900.0, 45.0])}
STRAY = {"numbers": [*M["numbers"], 6], "positions": [*M["positions"], [9e5, 0.0, 0.0]]}
TRIPLE = {
    "numbers": [*CRYSTAL["numbers"]] * 3,
    "positions": np.concatenate([CRYSTAL["positions"] + np.array([0, 0, 3.6 * n]) for n in range(3)]),
}
ANSWERED = {
    "one atom": Same(17, [{"numbers": [6], "positions": [[0.0, 0.0, 0.0]]}]),
    "an isolated atom": Same(17, [{**M, "numbers": [*M["numbers"], 1], "positions": [*M["positions"], [50.0, 0, 0]]}]),
    "an isolated atom beside a periodic system": Same(17, [cell(CUBE), {"numbers": [1], "positions": [[1.0, 0, 0]]}]),
    "an atom 90,000 nanometres away": Same(17, [STRAY], [{**STRAY, "positions": [*M["positions"], [50.0, 0.0, 0.0]]}]),
    "a left-handed cell": Same(21, [cell(CUBE[[1, 0, 2]])], [cell(CUBE)]),
    "a skewed cell": Same(21, [cell(SKEWED)], [cell(REDUCED)]),
    "a cell smaller than the cutoff": Same(
        21, [cell(np.diag([4.5, 4.5, 3.6]))], [cell(np.diag([4.5, 4.5, 10.8]), item=TRIPLE)], None
    ),
    "a cell of a structure that is not periodic": Same(21, [cell(CUBE, False)], [CRYSTAL]),
    "periodic in one direction": Same(
        21, [cell(np.diag([4.5, 3.0, 3.0]), [True, False, False])], [cell(np.diag([4.5, 40, 40]))]
    ),
    "a slab with a vector of nothing": Same(
        21, [cell(np.diag([4.5, 4.5, 0.0]), [True, True, False])], [cell(np.diag([4.5, 4.5, 40.0]))]
    ),
    "a slab with an atom far above it": Same(
        21,
        [cell(CUBE, [True, True, False], {**CRYSTAL, "positions": [*CRYSTAL["positions"][:2], [0.4, 2.0, 9e5]]})],
        [cell(CUBE, [True, True, False], {**CRYSTAL, "positions": [*CRYSTAL["positions"][:2], [0.4, 2.0, 50.0]]})],
    ),
    "atoms far outside the cell": Same(22, [cell(CUBE, item=FAR)], [cell(CUBE)]),
    "bohr for angstrom": Same(26, [{**M, "positions": PLACES / 0.529177}], in_domain=False),
    "angstrom times ten": Same(26, [{**M, "positions": PLACES * 10}], in_domain=False),
    "the same structure twice": Same(29, [M, M], [M, M], 0.0),
}


@dataclass
class Tensors:
    """Tensors that must be refused over every protocol that has tensors."""

    number: int
    inputs: list[Tensor]
    code: str
    elsewhere: dict[str, str | None] = field(default_factory=dict)
    status: int = 400

    def on(self, protocol: str) -> Refusal:
        code = self.elsewhere.get(protocol, self.code)
        return None if code is None else (self.status, code)


def altered(name: str, values: Any = None, **changes: Any) -> list[Tensor]:
    """The right tensors of a molecule, but for one."""
    there = inputs_of([M])
    for tensor in there:
        if tensor.name == name:
            tensor.values = tensor.values if values is None else values
            vars(tensor).update(changes)
    return there


def beside(*more: Tensor) -> list[Tensor]:
    return [*inputs_of([M]), *more]


NOT_GRPC: dict[str, str | None] = {"gRPC raw": None, "gRPC typed": None}
NONE = np.zeros(0)
BAD_TENSORS = {
    "shape and values differ": Tensors(11, altered("positions", shape=[10, 3]), "size_mismatch"),
    "the last byte missing": Tensors(
        11,
        altered("natoms", np.zeros(7, np.uint8), size=8),
        "missing_bytes",
        {"gRPC raw": "size_mismatch", "gRPC typed": "size_mismatch", "KServe JSON": "size_mismatch"},
    ),
    "a byte too many": Tensors(
        11,
        altered("natoms", np.zeros(9, np.uint8), size=8),
        "surplus_bytes",
        {"gRPC raw": "size_mismatch", "gRPC typed": "size_mismatch", "KServe JSON": "size_mismatch"},
    ),
    "a negative dimension": Tensors(12, altered("positions", shape=[-9, 3]), "malformed_shape"),
    "a dimension of 2^63 - 1": Tensors(12, altered("positions", shape=[2**63 - 1, 3]), "malformed_shape"),
    "a dimension of 2^63": Tensors(12, altered("positions", shape=[2**63, 3]), "malformed_shape", NOT_GRPC),
    "a product of dimensions that overflows": Tensors(12, altered("positions", shape=[2**32] * 2), "malformed_shape"),
    "a product that would wrap to the right size": Tensors(
        12, altered("positions", NONE, shape=[2**62, 36]), "malformed_shape"
    ),
    "a dimension of zero": Tensors(12, altered("positions", NONE, shape=[0, 3]), "bad_shape"),
    "a fractional dimension": Tensors(12, altered("positions", shape=[9.0, 3]), "malformed_shape", NOT_GRPC),
    "17 dimensions": Tensors(12, altered("positions", shape=[9, 3] + [1] * 15), "malformed_shape"),
    "a dtype wider than the data": Tensors(
        13,
        altered("positions", PLACES.astype(np.float32)),
        "size_mismatch",
        {"KServe JSON": None, "gRPC typed": None},
    ),
    "a datatype that there is not": Tensors(
        13, altered("positions", datatype="float64"), "unsupported_datatype", {"gRPC typed": None}
    ),
    "atomic numbers as text": Tensors(
        13,
        altered("numbers", np.array(["6"] * 9)),
        "malformed_data",
        dict.fromkeys(p for p in TENSOR_PROTOCOLS if p != "KServe JSON"),
    ),
    "fractions of atoms": Tensors(13, altered("natoms", np.array([9.0]), datatype="FP64"), "bad_type"),
    "BOOL bytes other than 0 and 1": Tensors(
        15,
        beside(Tensor("pbc", "BOOL", [1, 3], np.array([1, 2, 0], np.uint8))),
        "malformed_bool",
        {"KServe JSON": "malformed_data", "gRPC typed": None},
    ),
    "a string tensor with NUL": Tensors(
        16, altered("numbers", np.array([b"C\0H"] * 9), datatype="BYTES"), "unsupported_datatype"
    ),
    "10^7 atoms claimed by a shape": Tensors(
        23,
        altered("positions", shape=[10**7, 3], size=24 * 10**7),
        "missing_bytes",
        {"KServe JSON": "size_mismatch", "gRPC raw": "size_mismatch", "gRPC typed": "size_mismatch"},
    ),
    "10^7 atoms claimed by natoms": Tensors(23, altered("natoms", np.array([10**7])), "bad_shape"),
    "natoms that overflow their sum": Tensors(
        23, altered("natoms", np.array([2**62, 2**62, 9]), shape=[3]), "bad_shape"
    ),
    "a negative number of atoms": Tensors(23, altered("natoms", np.array([-1, 10]), shape=[2]), "bad_shape"),
    "no structure at all": Tensors(17, altered("natoms", np.zeros(0, np.int64), shape=[0]), "missing_field"),
    "a charge, which no shipped model takes": Tensors(
        25, beside(Tensor("charge", "FP64", [1], np.zeros(1))), "unknown_field"
    ),
    "a tensor twice": Tensors(11, beside(inputs_of([M])[0]), "duplicate_tensor"),
    "no positions": Tensors(11, inputs_of([M])[:1], "missing_field"),
}


ROCK = (np.random.default_rng(3).random((8, 8, 8)) < 0.4).astype(np.uint8)


def rock_with(name: str, values: Any, **changes: Any) -> list[Tensor]:
    """The right tensors of a rock image, but for one; None leaves it out."""
    right = {"image": ROCK, "voxel_size_um": np.array([2.0]), "pore_values": np.array([1])}
    named = {np.dtype("u1"): "UINT8", np.dtype("?"): "BOOL", np.dtype("f8"): "FP64", np.dtype("i8"): "INT64"}
    arrays = {key: array for key, array in {**right, name: values}.items() if array is not None}
    tensors = [Tensor(key, named[a.dtype], list(a.shape), np.ascontiguousarray(a)) for key, a in arrays.items()]
    for tensor in tensors:
        if tensor.name == name:
            vars(tensor).update(changes)
    return tensors


IMAGES = {
    "no image": Tensors(30, rock_with("image", None), "missing_field"),
    "no voxel size": Tensors(30, rock_with("voxel_size_um", None), "missing_field"),
    "a voxel of no size": Tensors(30, rock_with("voxel_size_um", np.array([0.0])), "bad_request"),
    "a voxel that is no cube": Tensors(30, rock_with("voxel_size_um", np.array([2.0, 2.0, 5.0])), "bad_request"),
    "an image of fractions": Tensors(30, rock_with("image", ROCK + 0.5), "bad_image", status=422),
    "an image in two dimensions": Tensors(30, rock_with("image", ROCK[0]), "bad_image", status=422),
    "an image of one phase": Tensors(30, rock_with("image", np.zeros_like(ROCK)), "bad_image", status=422),
    "an image of grey levels": Tensors(
        30, rock_with("image", np.arange(512, dtype=np.int64).reshape(8, 8, 8)), "bad_image", status=422
    ),
    "a label that is not there": Tensors(30, rock_with("pore_values", np.array([7])), "bad_image", status=422),
    "an image that claims 10^12 voxels": Tensors(
        30,
        rock_with("image", ROCK, shape=[10**4] * 3, size=10**12),
        "missing_bytes",
        {"KServe JSON": "size_mismatch", "gRPC raw": "size_mismatch", "gRPC typed": "size_mismatch"},
    ),
    "an axis that there is not": Tensors(30, rock_with("axes", np.array([3])), "bad_request"),
    "an axis twice": Tensors(30, rock_with("axes", np.array([1, 1])), "bad_request"),
    "atoms in place of an image": Tensors(30, inputs_of([M]), "unknown_field"),
}
