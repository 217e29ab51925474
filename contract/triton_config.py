"""A model card as a Triton config.pbtxt. Never edited by hand; Triton completes nothing by itself.

The gateway collates, so Triton does not batch: each request is a batch already, and Triton's dynamic batcher is there
for its queue, which is bounded and refuses what has waited too long. Every version is loaded, as requests name theirs.
A graph is warmed once for each usual number of slots per atom, on zeros: they are right indices whatever the sizes, as
random integers would not be.
"""

from collections.abc import Iterator, Mapping
from typing import Final

from contract.card import AnyCard, ModelCard
from contract.layout import GRAPH, folder_of
from contract.signatures import BUCKETS, GRAPHS, TRITON_TYPES, Signature, TensorSpec

QUEUED: Final = 64
LONGEST_WAIT_US: Final = 60_000_000
"""A request may shorten it, and only shorten it: without one here, what a request says is ignored."""
_QUEUE: Final = f"""dynamic_batching {{
  default_queue_policy {{
    max_queue_size: {QUEUED}, default_timeout_microseconds: {LONGEST_WAIT_US}, allow_timeout_override: true
    timeout_action: REJECT
  }}
}}"""


def triton_config(card: AnyCard, graph: str = GRAPH) -> str:
    """config.pbtxt of one graph of a model for Triton's onnxruntime backend on GPUs; free sizes are -1."""
    signature = GRAPHS[card.family][graph]
    return "\n".join(
        [
            f'name: "{folder_of(card.name, graph)}"',
            'backend: "onnxruntime"',
            f'default_model_filename: "{GRAPH}"',
            "max_batch_size: 0",
            *(_tensor("input", spec) for spec in signature.inputs),
            *(_tensor("output", spec) for spec in signature.outputs),
            "instance_group [ { kind: KIND_GPU } ]",
            "version_policy { all { } }",
            _QUEUE,
            *(_warmup(card, signature) if isinstance(card, ModelCard) else ()),
            "",
        ]
    )


def _tensor(kind: str, spec: TensorSpec) -> str:
    return f'{kind} [ {{ name: "{spec.name}", {_typed(spec, {})} }} ]'


def _warmup(card: ModelCard, signature: Signature) -> Iterator[str]:
    """A sample for each usual K, of the cost at which the model is fastest."""
    for slots in BUCKETS:
        atoms = max(2, card.batching.best_slots // slots)
        if atoms * slots <= card.max_slots:
            yield f'model_warmup [ {{ name: "K = {slots}", batch_size: 1'
            for spec in signature.inputs:
                value = _typed(spec, {"N": atoms, "K": slots, "B": 1})
                yield f'  inputs {{ key: "{spec.name}", value {{ {value}, zero_data: true }} }}'
            yield "} ]"


def _typed(spec: TensorSpec, sizes: Mapping[str, int]) -> str:
    dims = ", ".join(str(d if isinstance(d, int) else sizes.get(d, -1)) for d in spec.dims)
    return f"data_type: {TRITON_TYPES[spec.dtype]}, dims: [ {dims} ]"
