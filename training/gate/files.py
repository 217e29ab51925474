"""A version's files before any of them is opened by an engine: plain, complete, and reaching nothing outside."""

import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from contract.card import Check
from contract.environments import ENVIRONMENTS
from contract.signatures import GRAPHS, TensorSpec
from training.checkpoint import WEIGHTS
from training.export.potential import OPSET
from training.gate.deviation import count

# ScatterND(add) races in ONNX Runtime on the CPU; the others would make an answer depend on data-dependent control
# flow, on chance or on code outside the operator set.
FORBIDDEN_OPERATORS: Final = frozenset(
    {"ScatterND", "If", "Loop", "Scan", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
     "Bernoulli", "Multinomial"}
)  # fmt: skip
KNOWN_DOMAINS: Final = frozenset({"", "ai.onnx"})
_Faults = Callable[[onnx.ModelProto], Iterator[str]]
_Nodes = Iterable[onnx.NodeProto]

_NEEDED: Final = ("model.onnx", "model.pt", "reference.npz", WEIGHTS)
_OTHER_FILES: Final = frozenset({*_NEEDED, ENVIRONMENTS})


def inspect_files(folder: Path, family: str = "potential") -> list[Check]:
    """Every check of a version's folder that needs neither its card nor an engine."""
    checks = [count("plain files of its own", _unsafe(folder, family), "files")]
    if not checks[0].passed:
        return checks
    checks.append(count("files of its family", _missing(folder), "files"))
    graphs = {path.name: _graph(path) for path in sorted(folder.glob("*.onnx"))}
    return [
        *checks,
        count("readable graphs", (name for name, model in graphs.items() if model is None), "files"),
        count("weights inside the graph", _each(graphs, _external), "tensors"),
        count("dense weights", _each(graphs, _sparse), "tensors"),
        count("operators of ONNX alone", _each(graphs, _foreign), "nodes"),
        count("no operator that races or branches", _each(graphs, _forbidden), "nodes"),
        count("signature of its family", _signature_faults(graphs, family), "tensors"),
        count("TorchScript, not a pickle", _no_torchscript(folder / "model.pt"), "files"),
    ]


def _unsafe(folder: Path, family: str) -> Iterator[str]:
    known = _OTHER_FILES | GRAPHS[family].keys()
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            yield f"{path.name} is a symbolic link"
        elif not path.is_file():
            yield f"{path.name} is not a file"
        elif path.stat().st_nlink != 1:
            yield f"{path.name} has a hard link elsewhere"
        elif path.name not in known:
            yield f"{path.name} belongs to no version"


def _missing(folder: Path) -> Iterator[str]:
    return (f"{name} is missing" for name in _NEEDED if not (folder / name).exists())


def _graph(path: Path) -> onnx.ModelProto | None:
    try:
        return onnx.load(path, load_external_data=False)
    except DecodeError:
        return None


def _each(graphs: dict[str, onnx.ModelProto | None], faults: _Faults) -> Iterator[str]:
    for name, model in graphs.items():
        if model is not None:
            yield from (f"{name}: {fault}" for fault in faults(model))


def _subgraphs(model: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph and every graph inside it."""
    waiting = [model.graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        for attribute in _attributes(graph.node):
            waiting += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


def _attributes(nodes: _Nodes) -> Iterator[onnx.AttributeProto]:
    return (attribute for node in nodes for attribute in node.attribute)


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in _subgraphs(model):
        yield from graph.node
    for function in model.functions:
        yield from function.node


def _external(model: onnx.ModelProto) -> Iterator[str]:
    tensors = [tensor for graph in _subgraphs(model) for tensor in graph.initializer]
    for attribute in _attributes(_nodes(model)):
        tensors += [*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors]
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            yield tensor.name


def _sparse(model: onnx.ModelProto) -> Iterator[str]:
    yield from (tensor.values.name for graph in _subgraphs(model) for tensor in graph.sparse_initializer)
    for attribute in _attributes(_nodes(model)):
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            yield attribute.name


def _foreign(model: onnx.ModelProto) -> Iterator[str]:
    for entry in model.opset_import:
        if entry.domain not in KNOWN_DOMAINS:
            yield f"operator set {entry.domain}"
        elif entry.version != OPSET:
            yield f"operator set version {entry.version}, the exporter writes {OPSET}"
    yield from (f"{node.domain}.{node.op_type}" for node in _nodes(model) if node.domain not in KNOWN_DOMAINS)
    yield from (f"function {function.name}" for function in model.functions)


def _forbidden(model: onnx.ModelProto) -> Iterator[str]:
    return (node.op_type for node in _nodes(model) if node.op_type in FORBIDDEN_OPERATORS)


def _signature_faults(graphs: dict[str, onnx.ModelProto | None], family: str) -> Iterator[str]:
    for name, model in graphs.items():
        if model is None:
            continue
        signature = GRAPHS[family][name]
        sides = ((model.graph.input, signature.inputs), (model.graph.output, signature.outputs))
        for values, specs in sides:
            found, wanted = [_described(v) for v in values], [_wanted(spec) for spec in specs]
            yield from (f"{name}: no {text}" for text in wanted if text not in found)
            yield from (f"{name}: {text} is not asked for" for text in found if text not in wanted)


def _described(value: onnx.ValueInfoProto) -> str:
    tensor = value.type.tensor_type
    if not tensor.elem_type:
        return value.name
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return f"{value.name} {dtype} with {len(tensor.shape.dim)} dimensions"


def _wanted(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.dtype} with {len(spec.dims)} dimensions"


def _no_torchscript(path: Path) -> Iterator[str]:
    """A TorchScript archive holds code; a pickle of torch.save does not, and could run anything when it is opened."""
    if not path.exists():
        return
    if not zipfile.is_zipfile(path):
        yield f"{path.name} is no archive"
        return
    with zipfile.ZipFile(path) as archive:
        if not any("/code/" in name for name in archive.namelist()):
            yield f"{path.name} holds no TorchScript code"
