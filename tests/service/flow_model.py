"""A tiny real model of flow, as ONNX graphs: two members that make the estimate by conduction into more of a parabola.

u_m = a_m estimate (d - 1/2)^2 / s of the distance d to the wall, s the mean of (d - 1/2)^2 over the pores
"""

from datetime import date
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from contract.card import FieldCard
from contract.flow import flow_inputs
from contract.repository import ModelRepository, describe_files
from contract.units import FIELD_SIGNS, FIELD_UNITS
from contract.voxels import Image

AMPLITUDES = (0.3, 0.4)
DIVISOR = 4
NAME = "tiny-flow"
GRID = (1, "X", "Y", "Z")
MEMBERS = (2, "x", "y", "z")


def parabola(image: Image, axis: int) -> float:
    """The permeability that the model says, voxel^2."""
    inputs = flow_inputs(image, axis, 1)
    shape = inputs.pore * (inputs.distance - 0.5) ** 2
    ratio = np.mean(AMPLITUDES) * shape / (shape.sum() / inputs.pore.sum())
    return float((ratio * inputs.estimate).sum() / image.size)


def publish_flow_model(root: Path, staging: Path, version: str = "1", times: float = 1.0) -> None:
    """Put the model into a repository; the amplitudes of a later version may be others."""
    folder = staging / version
    folder.mkdir(parents=True)
    onnx.save(_graph(times), folder / "model.onnx")
    onnx.save(_coarse_graph(), folder / "model_coarse.onnx")
    onnx.save(_finest_graph(times), folder / "model_finest.onnx")
    ModelRepository(root).publish(_card(staging, version), staging)


def _graph(times: float) -> onnx.ModelProto:
    weights = {
        "half": np.float32(0.5),
        "mean": np.float32(times * np.mean(AMPLITUDES)),
        "a": times * np.array(AMPLITUDES, np.float64)[:, None],
        "axes": np.array([1, 2, 3]),
    }
    nodes = [
        helper.make_node("Sub", ["distance", "half"], ["depth"]),
        helper.make_node("Mul", ["depth", "depth"], ["square"]),
        helper.make_node("Mul", ["square", "pore"], ["parabola"]),
        helper.make_node("ReduceSum", ["parabola", "axes"], ["parabolas"], keepdims=1),
        helper.make_node("ReduceSum", ["pore", "axes"], ["pores"], keepdims=1),
        helper.make_node("Div", ["parabolas", "pores"], ["s"]),
        helper.make_node("Div", ["parabola", "s"], ["relative"]),
        helper.make_node("Mul", ["relative", "estimate"], ["shape"]),
        helper.make_node("Mul", ["shape", "mean"], ["velocity"]),
        helper.make_node("Cast", ["shape"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("ReduceSum", ["wide", "axes"], ["total"], keepdims=0),
        helper.make_node("Mul", ["a", "total"], ["member_flow"]),
    ]
    grid = ["B", "X", "Y", "Z"]
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, grid) for n in ("distance", "pore", "estimate")]
    outputs = [
        helper.make_tensor_value_info("velocity", TensorProto.FLOAT, grid),
        helper.make_tensor_value_info("member_flow", TensorProto.DOUBLE, ["M", "B"]),
    ]
    initial = [numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, NAME, inputs, outputs, initial)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _coarse_graph() -> onnx.ModelProto:
    """Nothing is seen on coarser scales; one layer of two channels is normalised."""
    weights = {
        "none": np.zeros((2, 1, 1, 1), np.float32),
        "first": np.tile(np.array([0.0, 1.0], np.float32), (2, 1, 2, 1)),
    }
    nodes = [
        helper.make_node("Add", ["distance", "pore"], ["any"]),
        helper.make_node("Mul", ["any", "none"], ["coarse"]),
        helper.make_node("Identity", ["first"], ["moments"]),
    ]
    return _made(
        nodes, weights, {"distance": GRID, "pore": GRID, "relative": GRID}, {"coarse": MEMBERS, "moments": (2, 1, 2, 2)}
    )


def _finest_graph(times: float) -> onnx.ModelProto:
    """The parabola over the image's s, whose sums are the two channels: of pore (d - 1/2)^2, and of pore."""
    weights = {
        "half": np.float32(0.5),
        "zero": np.float32(0.0),
        "a": np.float32(times) * np.array(AMPLITUDES, np.float32)[:, None, None, None],
        "pair": np.array([1, 1, 2, 1]),
        "both": np.array([2, 1, 2, 2]),
        "two": np.array([2]),
        "begin": np.array([0, 0]),
        "end": np.array([1, 1]),
        "axes": np.array([0, 3]),
        "at0": np.array([0]),
        "at1": np.array([1]),
        "all": np.array([0, 1, 2, 3]),
        "one": np.array([1]),
    }
    nodes = [
        helper.make_node("Sub", ["distance", "half"], ["depth"]),
        helper.make_node("Greater", ["distance", "zero"], ["open"]),
        helper.make_node("Cast", ["open"], ["pore"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["depth", "depth"], ["square"]),
        helper.make_node("Mul", ["square", "pore"], ["shape"]),
        helper.make_node("Mul", ["shape", "counted"], ["shape_here"]),
        helper.make_node("Mul", ["pore", "counted"], ["pore_here"]),
        helper.make_node("ReduceSum", ["shape_here", "all"], ["s0"], keepdims=0),
        helper.make_node("ReduceSum", ["pore_here", "all"], ["s1"], keepdims=0),
        helper.make_node("Reshape", ["s0", "one"], ["r0"]),
        helper.make_node("Reshape", ["s1", "one"], ["r1"]),
        helper.make_node("Concat", ["r0", "r1"], ["found"], axis=0),
        helper.make_node("Reshape", ["found", "pair"], ["column"]),
        helper.make_node("Expand", ["column", "both"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["sums"], to=TensorProto.DOUBLE),
        helper.make_node("Slice", ["moments", "begin", "end", "axes"], ["averages"]),
        helper.make_node("Reshape", ["averages", "two"], ["flat"]),
        helper.make_node("Gather", ["flat", "at0"], ["m0"]),
        helper.make_node("Gather", ["flat", "at1"], ["m1"]),
        helper.make_node("Div", ["m1", "m0"], ["over"]),
        helper.make_node("Mul", ["shape", "over"], ["scaled"]),
        helper.make_node("ReduceMean", ["coarse", "all"], ["none"]),
        helper.make_node("Add", ["scaled", "none"], ["sum"]),
        helper.make_node("Mul", ["sum", "a"], ["ratio"]),
    ]
    inputs = {
        "distance": GRID,
        "relative": GRID,
        "counted": GRID,
        "means": (2,),
        "coarse": MEMBERS,
        "moments": (2, 1, 2, 2),
    }
    return _made(nodes, weights, inputs, {"ratio": MEMBERS, "sums": (2, 1, 2, 2)})


def _made(
    nodes: list[onnx.NodeProto], weights: dict[str, np.ndarray], inputs: dict[str, tuple], outputs: dict[str, tuple]
) -> onnx.ModelProto:
    kinds = {"sums": TensorProto.DOUBLE}
    graph = helper.make_graph(
        nodes,
        "parabola",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(n, kinds.get(n, TensorProto.FLOAT), shape) for n, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def _card(staging: Path, version: str) -> FieldCard:
    metric = {"name": "rmse of log10 k", "value": 0.1, "unit": "1", "count": 3}
    calibration = {
        "scale": 1.5,
        "half_width_95": 2.0,
        "against": "labels",
        "fitted_to": 5,
        "coverage": [{"nominal": 0.68, "observed": 0.7, "count": 5}],
    }
    return FieldCard.model_validate(
        {
            "name": NAME,
            "version": version,
            "family": "field",
            "purpose": "Flow in the tests",
            "architecture": {"network": "parabola"},
            "units": FIELD_UNITS,
            "signs": FIELD_SIGNS,
            "domain": {
                "porosity": (0.1, 0.6),
                "length_scale_voxels": (0.3, 6.0),
                "lengths_voxels": (12, 32),
                "families": ["blobs"],
                "ends": "mirror",
                "log_std_in": 0.6,
                "log_std_out": 1.0,
                "description": "images of the tests",
            },
            "divisor": DIVISOR,
            "max_voxels": 60_000,
            "data": [
                {
                    "name": "none",
                    "origin": "tests",
                    "licence": "CC0-1.0",
                    "sha256": "1" * 64,
                    "count": 1,
                    "level_of_theory": "a formula",
                    "citation": "none",
                }
            ],
            "split": {"method": "none", "train": 1, "valid": 1, "test": 1, "seed": 0},
            "metrics": [metric],
            "compared_with": [{"name": "mean predictor", "metrics": [metric]}],
            "committee": {"members": 2, "log_permeability": calibration},
            "training": {
                "pipeline": "permeability",
                "config_sha256": "2" * 64,
                "seed": 0,
                "parameters": 2,
                "cpu_seconds": 0.0,
                "epochs": 0,
            },
            "batching": {
                "device": "cpu",
                "engine": "onnxruntime 1",
                "threads": 1,
                "points": [{"slots": 4096, "milliseconds": 1.0}],
                "best_slots": 4096,
            },
            "checks": [{"name": "none", "measured": 0.0, "bound": 0.0}],
            "files": describe_files(staging, version),
            "exporter": {},
            "created": date(2026, 1, 1),
            "licence": "CC0-1.0",
            "citation": ["none"],
        }
    )
