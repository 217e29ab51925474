"""Ethanol of QM-22 as a testing ground for ways to train."""

from pathlib import Path
from typing import Final

from benchmarks.testing_ground import Ground
from training.data.fetch import fetch, public_data
from training.data.qm22 import read_qm22
from training.data.splits import split
from training.networks.hipnn import HipNNConfig

LOCAL: Final = Path(__file__).parents[2] / "shared" / "data" / "qm22" / "ethanol.npz"
NETWORK: Final = HipNNConfig(
    elements=[1, 6, 8],
    order=1,
    features=16,
    sensitivities=16,
    soft_min_angstrom=0.8,
    soft_max_angstrom=4.5,
    cutoff_angstrom=5.0,
    interaction_layers=2,
    atom_layers=1,
)


def ethanol() -> Ground:
    """QM-22 ethanol, from beside the project or fetched; no near duplicates between parts."""
    path = LOCAL if LOCAL.exists() else fetch("qm22-ethanol")
    dataset = read_qm22(path, public_data("qm22-ethanol").provenance, "total")
    return Ground("ethanol", dataset, NETWORK, split, "Ethanol of QM-22 (B3LYP), parts without near duplicates.")
