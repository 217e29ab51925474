"""The tensors of each model family: what a graph in the repository takes and gives."""

from dataclasses import dataclass
from typing import Final, Literal

DType = Literal["float32", "float64", "int64", "bool"]

TRITON_TYPES: Final[dict[str, str]] = {
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "int64": "TYPE_INT64",
    "bool": "TYPE_BOOL",
}

BUCKETS: Final = (1, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
"""Usual sizes of K, the neighbour slots of an atom: a batch is padded to one of them."""


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype and named dimensions of one tensor; a letter is a free size, a number a fixed one."""

    name: str
    dtype: DType
    dims: tuple[str | int, ...]
    meaning: str


@dataclass(frozen=True, slots=True)
class Signature:
    """What one graph file of a family takes and gives."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


_POTENTIAL_INPUTS: Final = (
    TensorSpec("species", "int64", ("N",), "atomic numbers, all structures concatenated"),
    TensorSpec("positions", "float32", ("N", 3), "angstrom, relative to a centre of each structure"),
    TensorSpec("neighbours", "int64", ("N", "K"), "index j of each neighbour of i; padding points at i"),
    TensorSpec("shifts", "float32", ("N", "K", 3), "lattice translation in angstrom; padding is 2 x cutoff along x"),
    TensorSpec("reverse", "int64", ("N", "K"), "flat index of the slot that holds the reversed pair"),
    TensorSpec("structure", "int64", ("N",), "which structure an atom belongs to"),
    TensorSpec("cells", "float32", ("B", 3, 3), "only its length B is used"),
)

_POTENTIAL_OUTPUTS: Final = (
    TensorSpec("energy", "float64", ("M", "B"), "eV, summed in float64, without the atomic references of the card"),
    TensorSpec("forces", "float32", ("N", 3), "eV/angstrom, -dE/dr of the committee mean"),
    TensorSpec("virial", "float32", ("B", 3, 3), "eV, dE/dstrain of the committee mean"),
    TensorSpec("atomic_energy", "float32", ("M", "N"), "eV, without the atomic references"),
)

_MEMBER_OUTPUTS: Final = (
    TensorSpec("member_forces", "float32", ("M", "N", 3), "eV/angstrom, of each member"),
    TensorSpec("member_virial", "float32", ("M", "B", 3, 3), "eV, of each member"),
)

POTENTIAL: Final = Signature(_POTENTIAL_INPUTS, _POTENTIAL_OUTPUTS)
POTENTIAL_MEMBERS: Final = Signature(_POTENTIAL_INPUTS, (*_POTENTIAL_OUTPUTS, *_MEMBER_OUTPUTS))

FIELD: Final = Signature(
    (
        TensorSpec("distance", "float32", ("B", "X", "Y", "Z"), "voxels to the nearest solid, the flow along Z"),
        TensorSpec("pore", "float32", ("B", "X", "Y", "Z"), "1 in the pores that conduct, 0 elsewhere"),
        TensorSpec("estimate", "float32", ("B", "X", "Y", "Z"), "voxel^2, velocity by conduction, 0 out of the pores"),
    ),
    (
        TensorSpec("velocity", "float32", ("B", "X", "Y", "Z"), "voxel^2, along Z times viscosity over driving force"),
        TensorSpec("member_flow", "float64", ("M", "B"), "voxel^5, each member's velocity summed over the voxels"),
    ),
)
"""X, Y and Z are multiples of what the card calls `divisor`."""

_MOMENTS: Final = ("M", "L", "F", 2)
FIELD_COARSE: Final = Signature(
    (
        TensorSpec("distance", "float32", (1, "X", "Y", "Z"), "of FIELD, times pore, mean over blocks of 2x2x2"),
        TensorSpec("pore", "float32", (1, "X", "Y", "Z"), "of FIELD, likewise"),
        TensorSpec("relative", "float32", (1, "X", "Y", "Z"), "log(1 + estimate / its mean over the pores), likewise"),
    ),
    (
        TensorSpec("coarse", "float32", ("M", "X", "Y", "Z"), "each member's answer of every scale but the finest"),
        TensorSpec("moments", "float32", _MOMENTS, "what to give to the finest scale at first: means 0, variances 1"),
    ),
)
"""All but the finest scale of FIELD, for images that are run in tiles (contract/tiles.py)."""

FIELD_FINEST: Final = Signature(
    (
        TensorSpec("distance", "float32", (1, "X", "Y", "Z"), "of FIELD in a tile and around it; 0 out of the pores"),
        TensorSpec("relative", "float32", (1, "X", "Y", "Z"), "log(1 + estimate / its mean over the pores), likewise"),
        TensorSpec("counted", "float32", (1, "X", "Y", "Z"), "1 in the tile, 0 around it"),
        TensorSpec("means", "float32", (2,), "over the image's pores, voxel^2: of (distance - 1/2)^2, of the estimate"),
        TensorSpec("coarse", "float32", ("M", "X", "Y", "Z"), "of FIELD_COARSE, at half these lengths"),
        TensorSpec("moments", "float32", _MOMENTS, "mean and variance over the image of each layer's channels"),
    ),
    (
        TensorSpec("ratio", "float32", ("M", "X", "Y", "Z"), "velocity of each member over the estimate"),
        TensorSpec("sums", "float64", _MOMENTS, "of each layer's channels and of their squares where counted"),
    ),
)
"""The finest scale of FIELD on one tile. L layers of F channels are normalised over the whole image."""

GRAPHS: Final[dict[str, dict[str, Signature]]] = {
    "potential": {"model.onnx": POTENTIAL, "model_members.onnx": POTENTIAL_MEMBERS},
    "field": {"model.onnx": FIELD, "model_coarse.onnx": FIELD_COARSE, "model_finest.onnx": FIELD_FINEST},
}
