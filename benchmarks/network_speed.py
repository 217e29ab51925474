"""The exported network against hippynn with the same weights, committees against single sessions, and the core's best.

Everything in one process on one thread, variants interleaved, smallest of the rounds; ratios are what counts.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from benchmarks.hippynn_twin import Twin, hippynn_call, ours_of
from benchmarks.structures import aluminium, molecules
from contract.graphs import Graph, build_graph, collate
from contract.signatures import POTENTIAL
from training.export.potential import example_inputs, write_onnx
from training.networks.exportable import MeanForces, member
from training.networks.hipnn import HipNN, HipNNConfig

ROUNDS = 12
CUTOFF = {"molecules": 6.5, "aluminium": 7.0}
NETWORKS = {
    "student": {"features": 32, "atom_layers": 2},
    "teacher": {"features": 128, "atom_layers": 3},
}
Tensors = dict[str, NDArray[Any]]


def best_times(calls: dict[str, Callable[[], object]], rounds: int = ROUNDS) -> dict[str, float]:
    """Smallest wall time of each call in milliseconds, the calls taken in turn."""
    best = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            best[name] = min(best[name], 1e3 * (time.perf_counter() - start))
    return best


def session(module: HipNN, folder: Path) -> ort.InferenceSession:
    """A network exported and loaded as the gateway loads it."""
    return opened(exported(module, folder))


def exported(module: HipNN, folder: Path) -> Path:
    """The file of a network's everyday graph."""
    path = folder / f"{id(module)}.onnx"
    write_onnx(MeanForces(module.eval()), example_inputs(module), POTENTIAL, path)
    return path


def opened(path: Path) -> ort.InferenceSession:
    """A graph on one thread, without spinning."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def network_config(size: str, system: str, members: int = 1) -> HipNNConfig:
    """The student or teacher of the design notes for a system, l = 1."""
    cutoff = CUTOFF[system]
    elements = [1, 6, 7, 8] if system == "molecules" else [13]
    soft = {"soft_min_angstrom": 0.85, "soft_max_angstrom": 5.5} if system == "molecules" else {}
    return HipNNConfig(
        elements=elements,
        cutoff_angstrom=cutoff,
        members=members,
        **NETWORKS[size],
        **(soft or {"soft_min_angstrom": 1.5, "soft_max_angstrom": 6.0}),
    )


def graphs_of(system: str) -> list[Graph]:
    """Neighbour-listed structures of a system."""
    structures = molecules() if system == "molecules" else [aluminium()]
    return [build_graph(s, CUTOFF[system]) for s in structures]


def committee_against_singles(size: str, system: str, folder: Path) -> dict[str, float]:
    """Eight members in one mean-force graph against eight sessions of one member each, run one after the other."""
    torch.manual_seed(0)
    committee = HipNN(network_config(size, system, members=8))
    together, single = session(committee, folder), exported(member(committee, 0), folder)
    alone = [opened(single) for _ in range(8)]  # one file, eight sessions with weights of their own: time is the same
    batch = collate(graphs_of(system))
    times = best_times(
        {"committee": lambda: together.run(None, batch), "singles": lambda: [s.run(None, batch) for s in alone]}
    )
    return {**times, "ratio": times["singles"] / times["committee"]}


def against_hippynn(size: str, system: str, folder: Path) -> dict[str, float]:
    """Our exported network against hippynn's CPU kernels: same weights and pairs, energies and forces, float32."""
    torch.manual_seed(0)
    config = network_config(size, system)
    twin = Twin(config)
    ours, batch = session(ours_of(twin, config), folder), collate(graphs_of(system))
    calls: dict[str, Callable[[], object]] = {"ours": lambda: ours.run(None, batch)}
    calls |= {f"hippynn {kernel}": hippynn_call(twin, batch, kernel) for kernel in ("numba", "_pytorch_raw")}
    gap = float(np.abs(hippynn_call(twin, batch, "numba")()[1].numpy() - ours.run(["forces"], batch)[0]).max())
    times = best_times(calls)
    fastest = min(milliseconds for name, milliseconds in times.items() if name != "ours")
    return {**times, "ratio": fastest / times["ours"], "largest force difference, eV/angstrom": gap}


def collate_share(size: str, system: str, folder: Path) -> dict[str, float]:
    """Neighbour lists and collate as a share of the engine's time."""
    structures = molecules() if system == "molecules" else [aluminium()]
    graphs = graphs_of(system)
    engine, batch = session(HipNN(network_config(size, system)), folder), collate(graphs)
    times = best_times(
        {
            "neighbour lists": lambda: [build_graph(s, CUTOFF[system]) for s in structures],
            "collate": lambda: collate(graphs),
            "engine": lambda: engine.run(None, batch),
        }
    )
    return {
        **times,
        "collate / engine": times["collate"] / times["engine"],
        "lists / engine": times["neighbour lists"] / times["engine"],
    }


def gflops_share(size: str, system: str, folder: Path) -> dict[str, float]:
    """Arithmetic rate of the graph as a share of ONNX Runtime's best MatMul on this core."""
    config = network_config(size, system)
    engine, batch = session(HipNN(config), folder), collate(graphs_of(system))
    milliseconds = best_times({"engine": lambda: engine.run(None, batch)})["engine"]
    rate = floating_point_operations(config, *batch["neighbours"].shape) / milliseconds / 1e6
    best = best_matmul_gflops(folder)
    return {"GFLOP/s": rate, "MatMul GFLOP/s": best, "share": rate / best}


def floating_point_operations(config: HipNNConfig, n_atoms: int, width: int) -> float:
    """Matrix products of one call with forces, multiply and add counted as two, padded slots included."""
    components, n, f = {0: 1, 1: 4, 2: 9}[config.order], config.sensitivities, config.features
    total = 0.0
    for block in range(config.interaction_layers):
        f_in = len(config.elements) if block == 0 else f
        neighbour_products = 2 if block == 0 else 3
        total += neighbour_products * 2 * width * components * n * f_in
        total += 2 * 2 * components * n * f_in * f
        total += 2 * (2 * f * f * (1 + 2 * config.atom_layers) + 2 * f_in * f)
    return config.members * n_atoms * total


def best_matmul_gflops(folder: Path, size: int = 512) -> float:
    """The rate of one float32 MatMul in ONNX Runtime on one thread."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    tensors = {k: helper.make_tensor_value_info(k, kind, [size, size]) for k in "abc"}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["a", "b"], ["c"])], "m", [tensors["a"], tensors["b"]], [tensors["c"]]
    )
    path = folder / "matmul.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    engine = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {k: np.random.default_rng(0).random((size, size), np.float32) for k in "ab"}
    milliseconds = best_times({"m": lambda: engine.run(None, feed)}, rounds=40)["m"]
    return 2.0 * size**3 / milliseconds / 1e6


def run() -> dict[str, Any]:
    """All comparisons for student and teacher, molecules and aluminium."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    parts = (against_hippynn, committee_against_singles, collate_share, gflops_share)
    with tempfile.TemporaryDirectory() as name:
        return {
            part.__name__: {
                f"{size} {system}": part(size, system, Path(name)) for size in NETWORKS for system in CUTOFF
            }
            for part in parts
        }
