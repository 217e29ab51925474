"""Every file against the network in float64, for every shape of batch, and against the stored reference answers."""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from contract.card import Check
from contract.graphs import bucket
from training.checkpoint import WEIGHTS
from training.gate.deviation import agreement, count, deviations
from training.gate.engines import Arrays
from training.gate.submission import MEMBERS, Submission


def formats_agree(submission: Submission) -> list[Check]:
    """ONNX and TorchScript give what the network gives in float64."""
    batches = {label: submission.inputs(structures) for label, structures in submission.shapes.items()}
    expected = {label: submission.exact(inputs) for label, inputs in batches.items()}
    checks = []
    for file in sorted(submission.engines.keys() - {MEMBERS}):
        checks += agreement(f"{file} against the network", _found(submission, file, batches, expected))
    return checks


def members_agree(submission: Submission) -> list[Check]:
    """The graph of member forces, likewise; a committee has one."""
    if submission.network.config.members == 1:
        return []
    if MEMBERS not in submission.engines:
        return [Check(name="graph of member forces", measured=1, bound=0, unit="files", detail=f"{MEMBERS} is missing")]
    batches = {label: submission.inputs(structures) for label, structures in submission.shapes.items()}
    expected = {label: submission.exact_members(inputs) for label, inputs in batches.items()}
    return agreement(f"{MEMBERS} against the network", _found(submission, MEMBERS, batches, expected))


def padding_is_nothing(submission: Submission) -> list[Check]:
    """More slots for neighbours than needed change nothing beyond rounding."""
    tight = submission.inputs(submission.molecules)
    wide = submission.inputs(submission.molecules, bucket(tight["neighbours"].shape[1] + 1))
    expected = submission.everyday(tight)
    found = deviations(submission.everyday(wide), expected, tight["structure"])
    return agreement("more slots", [("structures of several sizes", found)])


def reference_reproduced(submission: Submission) -> list[Check]:
    """Every file gives the answers in reference.npz."""
    with np.load(submission.folder / "reference.npz") as stored:
        inputs = {k.removeprefix("in/"): stored[k] for k in stored.files if k.startswith("in/")}
        outputs = {k.removeprefix("out/"): stored[k] for k in stored.files if k.startswith("out/")}
    found = [
        (file, deviations(engine(inputs), outputs, inputs["structure"])) for file, engine in submission.engines.items()
    ]
    return agreement("reference.npz", found)


def weights_kept(submission: Submission) -> list[Check]:
    """The weights that lie beside the graphs are those of the network that was exported, bit by bit in float32."""
    kept, meant = load_file(submission.folder / WEIGHTS), submission.network.state_dict()
    other = [name for name in sorted(kept.keys() | meant.keys()) if not _same_weights(kept.get(name), meant.get(name))]
    return [count("weights beside the graphs", other, "tensors that differ")]


def _same_weights(kept: Tensor | None, meant: Tensor | None) -> bool:
    return kept is not None and meant is not None and torch.equal(kept, meant.to(kept.dtype))


def _found(
    submission: Submission, file: str, batches: Mapping[str, Arrays], expected: Mapping[str, Arrays]
) -> Iterator[tuple[str, dict[str, float]]]:
    for label, inputs in batches.items():
        yield label, deviations(submission.engines[file](inputs), expected[label], inputs["structure"])
