"""What runs the exported files at the gate, and the network they are compared with: tensors in, tensors out."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import nn

from contract.signatures import POTENTIAL, POTENTIAL_MEMBERS, Signature
from training.networks.exportable import MeanForces, member_forces
from training.networks.potential import Potential

Arrays = dict[str, NDArray[Any]]
Engine = Callable[[Arrays], Arrays]

_LOG_ERRORS = 3


def onnx_engine(path: Path, threads: int = 1) -> Engine:
    """A graph in ONNX Runtime on the CPU, as the service runs it."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _LOG_ERRORS
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run


def torchscript_engine(path: Path) -> Engine:
    """The TorchScript file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    return _torch_engine(module, POTENTIAL)


def network_engine(network: Potential) -> Engine:
    """The network itself in its own dtype, with forces by its adjoint and no autograd: what files are compared with."""
    return _torch_engine(MeanForces(network), POTENTIAL)


def member_engine(network: Potential) -> Engine:
    """The same with the forces of every member."""
    return _torch_engine(member_forces(network), POTENTIAL_MEMBERS)


def _torch_engine(module: nn.Module, signature: Signature) -> Engine:
    dtype = next((p.dtype for p in module.parameters()), torch.float32)

    @torch.no_grad()
    def run(inputs: Arrays) -> Arrays:
        tensors = (torch.from_numpy(np.ascontiguousarray(inputs[spec.name])) for spec in signature.inputs)
        outputs = module(*(t.to(dtype) if t.is_floating_point() else t for t in tensors))
        return {spec.name: value.numpy() for spec, value in zip(signature.outputs, outputs, strict=True)}

    return run
