"""A tiny real model: a committee of pair potentials with analytic forces, as an ONNX graph in the house's layout.

    E_m = sum over pairs of a_m q_i q_j u^3,    u = max(0, 1 - r^2 / cutoff^2)
    F_i = -sum_k 6 a q_i q_j u^2 d_ik / cutoff^2

The same in NumPy (`pair_energy`, `PairEngine`) is the oracle.
"""

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from contract.card import ModelCard
from contract.repository import ModelRepository, StoredModel, describe_files
from contract.signatures import POTENTIAL, POTENTIAL_MEMBERS, Signature
from contract.structures import Structure
from contract.units import POTENTIAL_SIGNS, POTENTIAL_UNITS
from service.engines import Description

CUTOFF = 3.0
AMPLITUDES = (1.0, 1.1, 0.9, 1.05)
CHARGES = {1: 0.5, 6: 1.5, 8: 2.0}
REFERENCE_EV = {"H": -13.6, "C": -1030.0, "O": -2040.0}
_ONNX_TYPES = {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "int64": TensorProto.INT64}


def charges() -> np.ndarray:
    table = np.zeros(119, np.float32)
    table[list(CHARGES)] = list(CHARGES.values())
    return table


def pair_energy(structure: Structure, amplitude: float = float(np.mean(AMPLITUDES))) -> float:
    """The same potential by brute force over images, in float64, with the references."""
    cell = np.zeros((3, 3)) if structure.cell is None else structure.cell
    reach = [0, 0, 0]
    if structure.pbc.any():
        heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
        reach = [int(np.ceil(CUTOFF / h)) + 1 if p else 0 for h, p in zip(heights, structure.pbc, strict=True)]
        fractional = np.linalg.solve(cell.T, structure.positions.T).T
        positions = structure.positions - (np.floor(fractional) * structure.pbc) @ cell
    else:
        positions = structure.positions
    grid = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in reach], indexing="ij"), -1).reshape(-1, 3)
    shifts = grid @ cell
    d = positions[None, :, None] - positions[:, None, None] + shifts[None, None]
    r2 = (d**2).sum(-1)
    u = np.where(r2 > 1e-12, np.maximum(0.0, 1.0 - r2 / CUTOFF**2), 0.0)
    q = charges()[structure.numbers].astype(np.float64)
    pairs = amplitude * q[:, None, None] * q[None, :, None] * u**3
    symbols = {1: "H", 6: "C", 8: "O"}
    return float(0.5 * pairs.sum() + sum(REFERENCE_EV[symbols[int(z)]] for z in structure.numbers))


class PairEngine:
    """The graph's function in NumPy, tensor in, tensor out: a legitimate engine."""

    concurrency, description = 2, Description("numpy", np.__version__, "cpu")

    def opens(self, stored: StoredModel, file: str) -> bool:
        return stored.has(file)

    def open(self, stored: StoredModel, file: str) -> "PairEngine":
        return self

    def is_there(self) -> bool:
        return True

    def close(self) -> None: ...

    def __call__(self, tensors: Mapping[str, np.ndarray], stop: object = None) -> dict[str, np.ndarray]:
        positions, neighbours = tensors["positions"], tensors["neighbours"]
        d = positions[neighbours] - positions[:, None] + tensors["shifts"]
        u = np.maximum(0, 1 - (d**2).sum(-1) / CUTOFF**2).astype(np.float32)
        q = charges()[tensors["species"]]
        qq = q[:, None] * q[neighbours]
        amplitudes = np.array(AMPLITUDES, np.float32)
        atomic = amplitudes[:, None] * (0.5 * qq * u**3).sum(1)
        onehot = tensors["structure"][:, None] == np.arange(len(tensors["cells"]))
        pull = (-6 / CUTOFF**2) * qq * u**2
        force = (pull[..., None] * d).sum(1)
        virial = 0.5 * np.einsum("nk,nki,nkj->nij", pull, d, d)
        return {
            "energy": atomic.astype(np.float64) @ onehot.astype(np.float64),
            "forces": force * amplitudes.mean(),
            "virial": np.einsum("nb,nij->bij", onehot.astype(np.float32), virial) * amplitudes.mean(),
            "atomic_energy": atomic,
            "member_forces": amplitudes[:, None, None] * force,
            "member_virial": amplitudes[:, None, None, None]
            * np.einsum("nb,nij->bij", onehot, virial, dtype=np.float32),
        }


def pair_graph(signature: Signature, amplitudes: tuple[float, ...] = AMPLITUDES) -> onnx.ModelProto:
    nodes: list[onnx.NodeProto] = []
    weights = {
        "q": charges(),
        "a": np.array(amplitudes, np.float32)[:, None],
        "a3": np.array(amplitudes, np.float32)[:, None, None],
        "a4": np.array(amplitudes, np.float32)[:, None, None, None],
        "mean": np.float32(np.mean(amplitudes)),
        "one": np.float32(1),
        "half": np.float32(0.5),
        "minus_six": np.float32(-6 / CUTOFF**2),
        "inverse": np.float32(1 / CUTOFF**2),
        "three": np.float32(3),
        "two": np.float32(2),
        "zero_int": np.int64(0),
        "one_int": np.int64(1),
        "axis0": np.array([0]),
        "axis1": np.array([1]),
        "axis2": np.array([2]),
        "last": np.array([-1]),
        "nine": np.array([-1, 9]),
        "square": np.array([-1, 3, 3]),
    }

    def add(kind: str, inputs: str, output: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(kind, inputs.split(), [output], **attributes))

    add("Gather", "positions neighbours", "r_j")
    add("Unsqueeze", "positions axis1", "r_i")
    add("Sub", "r_j r_i", "between")
    add("Add", "between shifts", "d")
    add("Mul", "d d", "dd")
    add("ReduceSum", "dd last", "r2", keepdims=0)
    add("Mul", "r2 inverse", "x")
    add("Sub", "one x", "v")
    add("Relu", "v", "u")
    add("Gather", "q species", "q_i")
    add("Gather", "q_i neighbours", "q_j")
    add("Unsqueeze", "q_i axis1", "q_i1")
    add("Mul", "q_i1 q_j", "qq")
    add("Pow", "u three", "u3")
    add("Pow", "u two", "u2")
    add("Mul", "qq u3", "pair")
    add("ReduceSum", "pair last", "full", keepdims=0)
    add("Mul", "full half", "each")
    add("Mul", "a each", "atomic_energy")
    add("Shape", "cells", "cells_shape")
    add("Gather", "cells_shape zero_int", "B")
    add("Range", "zero_int B one_int", "indices")
    add("Unsqueeze", "structure axis1", "structure1")
    add("Equal", "structure1 indices", "same")
    add("Cast", "same", "onehot", to=TensorProto.FLOAT)
    add("Cast", "same", "onehot64", to=TensorProto.DOUBLE)
    add("Cast", "atomic_energy", "atomic64", to=TensorProto.DOUBLE)
    add("MatMul", "atomic64 onehot64", "energy")
    add("Mul", "qq u2", "qu2")
    add("Mul", "qu2 minus_six", "pull")
    add("Unsqueeze", "pull last", "pull1")
    add("Mul", "pull1 d", "f")
    add("ReduceSum", "f axis1", "force", keepdims=0)
    add("Mul", "force mean", "forces")
    add("Mul", "a3 force", "member_forces")
    add("Unsqueeze", "f last", "f1")
    add("Unsqueeze", "d axis2", "d1")
    add("Mul", "f1 d1", "fd")
    add("ReduceSum", "fd axis1", "fd_i", keepdims=0)
    add("Reshape", "fd_i nine", "fd9")
    add("Transpose", "onehot", "onehot_t", perm=[1, 0])
    add("MatMul", "onehot_t fd9", "v9")
    add("Reshape", "v9 square", "v33")
    add("Mul", "v33 half", "v_half")
    add("Mul", "v_half mean", "virial")
    add("Mul", "a4 v_half", "member_virial")
    graph = helper.make_graph(
        nodes,
        "pair",
        [helper.make_tensor_value_info(s.name, _ONNX_TYPES[s.dtype], list(s.dims)) for s in signature.inputs],
        [helper.make_tensor_value_info(s.name, _ONNX_TYPES[s.dtype], list(s.dims)) for s in signature.outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    return model


def card_of(folder: Path, name: str, **changes: Any) -> ModelCard:
    entry = {"name": "energy RMSE", "value": 0.0, "unit": "eV", "count": 1}
    card = {
        "name": name,
        "version": "1",
        "family": "potential",
        "purpose": "Pair potential of malonaldehyde, for tests.",
        "architecture": {"kind": "pair"},
        "units": POTENTIAL_UNITS,
        "signs": POTENTIAL_SIGNS,
        "domain": {
            "elements": ["H", "C", "O"],
            "cutoff_angstrom": CUTOFF,
            "formulas": ["C3H4O2"],
            "min_distance_angstrom": {"C-H": 0.9, "C-O": 1.1, "C-C": 1.2, "H-O": 0.8, "H-H": 1.2},
            "energy_std_in_ev": 5.0,
            "energy_std_out_ev": 50.0,
            "periodic": False,
            "description": "malonaldehyde",
        },
        "atomic_reference_ev": REFERENCE_EV,
        "data": [
            {
                "name": "none",
                "origin": "made here",
                "licence": "BSD-3-Clause",
                "sha256": "0" * 64,
                "count": 1,
                "level_of_theory": "none",
                "citation": "none",
            }
        ],
        "split": {"method": "none", "train": 1, "valid": 1, "test": 1, "seed": 0},
        "metrics": [entry],
        "compared_with": [{"name": "mean predictor", "metrics": [entry]}],
        "committee": {"members": len(AMPLITUDES)},
        "training": {
            "pipeline": "none",
            "config_sha256": "0" * 64,
            "seed": 0,
            "parameters": 4,
            "cpu_seconds": 0.0,
            "epochs": 0,
        },
        "batching": {
            "device": "cpu",
            "engine": "onnxruntime",
            "threads": 1,
            "points": [{"slots": 3000, "milliseconds": 3.0}],
            "best_slots": 3000,
        },
        "max_slots": 300_000,
        "checks": [{"name": "none", "measured": 0.0, "bound": 1.0}],
        "files": [entry.model_dump() for entry in describe_files(folder, changes.get("version", "1"))],
        "exporter": {"onnx": onnx.__version__},
        "created": date(2026, 1, 1),
        "licence": "BSD-3-Clause",
        "citation": [],
    }
    domain = {**card["domain"], **changes.pop("domain", {})}
    return ModelCard.model_validate({**card, **changes, "domain": domain})


def publish_tiny(
    root: Path,
    name: str = "tiny",
    member_forces: bool = True,
    amplitudes: tuple[float, ...] = AMPLITUDES,
    reference: Mapping[str, np.ndarray] | None = None,
    **changes: Any,
) -> Path:
    """Publish the pair potential into a repository, with these reference answers if any; its folder."""
    artefacts = root.parent / f"artefacts-{name}-{changes.get('version', '1')}"
    version = artefacts / changes.get("version", "1")
    version.mkdir(parents=True)
    onnx.save(pair_graph(POTENTIAL, amplitudes), version / "model.onnx")
    if member_forces:
        onnx.save(pair_graph(POTENTIAL_MEMBERS, amplitudes), version / "model_members.onnx")
    if reference is not None:
        np.savez(version / "reference.npz", **reference)
    root.mkdir(exist_ok=True)
    return ModelRepository(root).publish(card_of(artefacts, name, **changes), artefacts)


def tiny_repository(folder: Path) -> Path:
    """A repository with `tiny`, a committee for malonaldehyde, and `anything`, of any composition and periodicity."""
    root = folder / "model_repo"
    publish_tiny(root, "tiny")
    anywhere = {"formulas": None, "min_distance_angstrom": {}, "energy_std_in_ev": None, "energy_std_out_ev": None}
    publish_tiny(root, "anything", member_forces=False, domain=anywhere)
    return root
