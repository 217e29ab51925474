"""Export of a potential: model.onnx, model_members.onnx, model.pt, its weights and reference.npz of one network.

The network's own adjoint is exported, so no autograd is in any file. ONNX by torch.export with dynamic N, K and B.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxscript import opset20
from torch import Tensor, nn

from contract.graphs import Graph, build_graph, collate
from contract.signatures import POTENTIAL, POTENTIAL_MEMBERS, Signature
from contract.structures import checked_structure
from training.checkpoint import WEIGHTS, save_weights
from training.files import write_arrays
from training.networks.exportable import MeanForces, member_forces
from training.networks.potential import Potential

OPSET = 20
_DYNAMIC = {"N": "atoms", "K": "slots", "B": "structures", "X": "x", "Y": "y", "Z": "z"}


def export_potential(network: Potential, folder: Path) -> None:
    """Write the graph files of a network and its weights into a version folder. It is cast to float32 on the CPU."""
    network = network.to("cpu", torch.float32).eval()
    save_weights(network, folder / WEIGHTS)
    example = example_inputs(network)
    mean = MeanForces(network).eval()
    write_onnx(mean, example, POTENTIAL, folder / "model.onnx")
    write_torchscript(mean, example, folder / "model.pt")
    if network.config.members > 1:
        write_onnx(member_forces(network).eval(), example, POTENTIAL_MEMBERS, folder / "model_members.onnx")


def write_onnx(module: nn.Module, example: tuple[Tensor, ...], signature: Signature, path: Path) -> None:
    """Export a module with this signature; every lettered size stays free."""
    shapes = tuple(
        {axis: torch.export.Dim.DYNAMIC for axis, d in enumerate(spec.dims) if isinstance(d, str)}
        for spec in signature.inputs
    )
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=[spec.name for spec in signature.inputs],
            output_names=[spec.name for spec in signature.outputs],
            dynamic_shapes=shapes,
            custom_translation_table={torch.ops.aten.softplus.default: _softplus},
            verbose=False,
        )
    save_onnx(program, signature, path)


def save_onnx(program: Any, signature: Signature, path: Path) -> None:
    """Write an exported program: checked, without the exporter's notes, its free sizes with the names of a person."""
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    model = program.model_proto
    _name_free_sizes(model, signature)
    del model.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    onnx.checker.check_model(model)
    onnx.save(model, path)


def write_torchscript(module: nn.Module, example: tuple[Tensor, ...], path: Path) -> None:
    """Trace the module and save it; sizes stay free because the module has no size-dependent branch."""
    with quiet(), torch.no_grad():
        traced = torch.jit.trace(module, example, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.freeze(traced.eval()).save(str(path))


def example_inputs(network: Potential) -> tuple[Tensor, ...]:
    """A batch with N, K and B of at least 2 and all different, so that no size is taken for a constant."""
    dtype = network.cutoff.dtype
    tensors = (torch.from_numpy(v) for v in collate(_probe_graphs(network), slots_per_atom=6).values())
    return tuple(t.to(dtype) if t.is_floating_point() else t for t in tensors)


def _probe_graphs(network: Potential) -> list[Graph]:
    generator = np.random.default_rng(0)
    spread = 0.35 * network.config.cutoff_angstrom
    return [
        build_graph(
            checked_structure(generator.choice(network.config.elements, n), generator.random((n, 3)) * spread),
            network.config.cutoff_angstrom,
        )
        for n in (5, 4, 2)
    ]


def write_reference(
    run: Callable[[dict[str, NDArray[Any]]], dict[str, NDArray[Any]]], inputs: dict[str, NDArray[Any]], path: Path
) -> None:
    """Store inputs and outputs that every engine must reproduce: arrays named in/<tensor> and out/<tensor>."""
    outputs = run(inputs)
    arrays = {f"in/{k}": v for k, v in inputs.items()} | {f"out/{k}": v for k, v in outputs.items()}
    write_arrays(path, arrays)


def _softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """Softplus as one operator: the exporter's own rule adds a comparison and a select for large arguments."""
    return opset20.Softplus(x)


def _name_free_sizes(model: onnx.ModelProto, signature: Signature) -> None:
    """Give free sizes of inputs and outputs the names a person expects."""
    for values, specs in ((model.graph.input, signature.inputs), (model.graph.output, signature.outputs)):
        for value, spec in zip(values, specs, strict=True):
            for dim, d in zip(value.type.tensor_type.shape.dim, spec.dims, strict=True):
                if isinstance(d, str) and d in _DYNAMIC:
                    dim.dim_param = _DYNAMIC[d]


@contextmanager
def quiet() -> Iterator[None]:
    """The exporters print and warn about matters that the parity checks settle."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
