"""A model card as a Triton config.pbtxt. Never edited by hand. The gateway collates, so Triton does not batch."""

from contract.card import ModelCard
from contract.layout import GRAPH, folder_of
from contract.signatures import GRAPHS, TRITON_TYPES, TensorSpec


def triton_config(card: ModelCard, graph: str = GRAPH) -> str:
    """config.pbtxt of one graph of a model for Triton's onnxruntime backend on GPUs; free sizes are -1."""
    signature = GRAPHS[card.family][graph]
    sizes = {"M": card.committee.members}
    return "\n".join(
        [
            f'name: "{folder_of(card.name, graph)}"',
            'backend: "onnxruntime"',
            f'default_model_filename: "{GRAPH}"',
            "max_batch_size: 0",
            *(_tensor("input", spec, sizes) for spec in signature.inputs),
            *(_tensor("output", spec, sizes) for spec in signature.outputs),
            "instance_group [ { kind: KIND_GPU } ]",
            f"version_policy: {{ specific: {{ versions: [ {card.version} ] }} }}",
            "",
        ]
    )


def _tensor(kind: str, spec: TensorSpec, sizes: dict[str, int]) -> str:
    dims = ", ".join(str(d if isinstance(d, int) else sizes.get(d, -1)) for d in spec.dims)
    return f'{kind} [ {{ name: "{spec.name}", data_type: {TRITON_TYPES[spec.dtype]}, dims: [ {dims} ] }} ]'
