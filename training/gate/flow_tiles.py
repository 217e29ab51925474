"""The admission check of the graphs for tiles: an image in tiles has the velocity that it has whole."""

from pathlib import Path
from typing import Final

import numpy as np

from contract.card import Check
from contract.conduction import in_memory
from contract.flow import flow_inputs
from contract.tiles import COARSE, FINEST, TiledFlow
from contract.voxels import Image
from training.gate.engines import Engine, onnx_engine

SEAMS: Final = 1e-3


def tiles_are_whole(folder: Path, whole: Engine, image: Image, divisor: int) -> list[Check]:
    """Velocity in tiles beside the whole image's, over the largest; nothing to check where there are no such graphs."""
    if not (folder / FINEST).exists():
        return []
    coarse, finest = onnx_engine(folder / COARSE), onnx_engine(folder / FINEST)
    inputs = flow_inputs(image, 2, divisor)
    velocity = whole(inputs.tensors())["velocity"][0]
    length = divisor * max(1, max(velocity.shape) // (2 * divisor))
    flow = TiledFlow(inputs.distance, inputs.estimate, length, np.empty_like(inputs.distance), in_memory)
    flow.run(coarse, finest)
    apart = float(np.abs(np.asarray(flow.velocity) - velocity).max() / np.abs(velocity).max())
    return [Check(name="velocity in tiles beside whole", measured=apart, bound=SEAMS, unit="relative")]
