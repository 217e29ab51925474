"""Saturated chains of C, H, N and O, labelled by GFN2-xTB, as a testing ground for ways to train.

Made by `understudy sample training/configs/gfn2-frames-small.yaml` (extras `sampling` and `simulators`).
"""

from pathlib import Path
from typing import Final

from benchmarks.ethanol import NETWORK
from benchmarks.testing_ground import Ground
from training.data.extxyz import ExtxyzKeys, read_extxyz
from training.data.provenance import Provenance
from training.data.splits import split_by_group
from training.files import read_json

CONFIG: Final = "training/configs/gfn2-frames-small.yaml"
FRAMES: Final = Path("runs/gfn2-frames/frames.extxyz")


def small_molecules() -> Ground:
    """The frames, parted by molecule: those of the test part are in no other."""
    if not FRAMES.exists():
        raise SystemExit(f"{FRAMES} is missing: understudy sample {CONFIG}")
    made = read_json(FRAMES.with_name("sampling.json"))
    provenance = Provenance(
        name="gfn2-frames",
        origin=CONFIG,
        licence="BSD-3-Clause",
        level_of_theory=made["level_of_theory"],
        citation=CONFIG,
    )
    dataset = read_extxyz(FRAMES, provenance, ExtxyzKeys(group="group"))
    about = f"{made['molecules']} saturated chains, {made['level_of_theory']}, parted by molecule."
    network = NETWORK.model_copy(update={"elements": [1, 6, 7, 8]})
    return Ground("gfn2-frames", dataset, network, split_by_group, about)
