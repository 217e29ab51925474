"""What is asked over gRPC in these tests, and how an answer or a refusal is read."""

import json
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_gateway import message, stub
from tiny import pair_energy
from wires import Item, malonaldehyde, structure_of

M = malonaldehyde()
ENERGY = pair_energy(structure_of(M))
RNG = np.random.default_rng(7)
CRYSTAL = {"numbers": [6, 8], "positions": [[0, 0, 0], [2.0, 1.9, 2.1]], "cell": np.eye(3) * 4.2, "pbc": True}


def cloud(atoms: int) -> Item:
    grid = np.stack(np.unravel_index(np.arange(atoms), (8, 8, 8)), -1) * 1.4
    return {"numbers": RNG.choice([1, 6, 8], atoms), "positions": grid + RNG.uniform(-0.2, 0.2, (atoms, 3))}


USUAL = {
    "numbers": ("INT64", "int64_contents"),
    "positions": ("FP64", "fp64_contents"),
    "natoms": ("INT64", "int64_contents"),
    "cell": ("FP64", "fp64_contents"),
    "pbc": ("BOOL", "bool_contents"),
}


def refused(call: Any, request: Any, **options: Any) -> tuple[str, dict[str, Any]]:
    """Status code and problem document of a call that must fail."""
    with pytest.raises(grpc.RpcError) as refusal:
        call(request, **options)
    metadata = dict(refusal.value.trailing_metadata())
    problem = json.loads(metadata["problem-bin"])
    assert problem["request_id"] == metadata["x-request-id"]
    assert refusal.value.details() == problem["error"]
    assert not [word for word in ("Traceback", "/service", "0x") if word in refusal.value.details()]
    return refusal.value.code().name, problem


async def infer(channel: grpc.aio.Channel) -> Any:
    return await stub(channel).ModelInfer(message([M]))
