"""Export of a committee that predicts flow: model.onnx with free sizes, and its weights."""

from pathlib import Path
from typing import Any, Final

import torch

from contract.signatures import FIELD
from training.checkpoint import WEIGHTS, save_weights
from training.export.potential import OPSET, quiet, save_onnx
from training.networks.permeability import PermeabilityCommittee

_LONGEST: Final = 4096


def export_flow(committee: PermeabilityCommittee, folder: Path) -> None:
    """Write the graph of a committee and its weights; lengths may be any multiple of its divisor."""
    committee = committee.to("cpu", torch.float32).eval()
    save_weights(committee, folder / WEIGHTS)
    divisor = committee.config.divisor
    lengths: dict[int, Any] = {
        axis: divisor * torch.export.Dim(name, min=1, max=_LONGEST) for axis, name in ((1, "x"), (2, "y"), (3, "z"))
    }
    shapes = {0: torch.export.Dim.DYNAMIC, **lengths}
    pore = (torch.rand(2, 2 * divisor, 3 * divisor, 4 * divisor) > 0.5).float()
    with quiet(), torch.no_grad():
        program = torch.onnx.export(
            committee,
            (3.0 * pore, pore, 0.5 * pore),
            dynamo=True,
            opset_version=OPSET,
            input_names=[spec.name for spec in FIELD.inputs],
            output_names=[spec.name for spec in FIELD.outputs],
            dynamic_shapes=(shapes, shapes, shapes),
            verbose=False,
        )
    save_onnx(program, FIELD, folder / "model.onnx")
