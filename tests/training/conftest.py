"""Small structures and batches for everything that trains, exports or imports networks."""

import bz2
import os
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from contract.graphs import build_graph, collate
from contract.structures import Structure, checked_structure
from training.networks.hipnn import Batch, HipNN, HipNNConfig

ELEMENTS = [1, 6, 8, 13]
CUTOFF = 4.0

NEUROCHEM_PARAMS = """TM = 1
Rcr = 4.0e+00
Rca = 2.5e+00
EtaR = [1.6e+01]
ShfR = [9.0e-01,1.6e+00]
Zeta = [8.0e+00]
ShfZ = [4.0e-01,1.2e+00]
EtaA = [8.0e+00]
ShfA = [9.0e-01,1.7e+00]
Atyp = [H,C]
"""
NEUROCHEM_WIDTHS = [16, 5, 4, 1]  # 2 elements x 2 + 3 pairs x 4

BatchOf = Callable[..., Batch]
NetworkOf = Callable[..., HipNN]


@pytest.fixture(scope="session")
def hippynn() -> ModuleType:
    """hippynn 0.1.3, the oracle; of its kernels `pytorch` compiles and `numba` is off by 1e-10, this one is exact."""
    os.environ["HIPPYNN_USE_CUSTOM_KERNELS"] = "_pytorch_raw"
    os.environ["HIPPYNN_WARN_LOW_DISTANCES"] = "False"
    os.environ["HIPPYNN_PROGRESS"] = "none"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("hippynn")
        module.custom_kernels.set_custom_kernels("_pytorch_raw")  # another test may have chosen one
    return module  # type: ignore[no-any-return]


@pytest.fixture
def ensemble(tmp_path: Path) -> Path:
    """A folder with a tiny ANI ensemble for H and C in NeuroChem's files."""
    return _write_ensemble(tmp_path / "tiny")


@pytest.fixture(scope="session")
def write_network() -> Callable[..., None]:
    """Writes one network of that ensemble: write_network(folder, element, rng, activations="996")."""
    return _write_network


@pytest.fixture(scope="session")
def molecules() -> list[Structure]:
    """Chains of 4, 9 and 6 atoms; the second has an atom out of everyone's reach."""
    made = [_chain(4, seed=1), _chain(9, seed=2), _chain(6, seed=3)]
    made[1].positions[-1] += 30.0
    return made


@pytest.fixture(scope="session")
def crystals() -> list[Structure]:
    """Aluminium in a 4-atom cell, and aluminium hydride in a skewed one-atom-thick cell: both far smaller than the
    cutoff's sphere, so an atom meets its own images; the second is left-handed."""
    rng = np.random.default_rng(4)
    fcc = 4.05 * np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    cubic = checked_structure([13] * 4, fcc + rng.normal(scale=0.1, size=(4, 3)), 4.05 * np.eye(3), True)
    skewed = np.array([[0.3, 2.9, 0.0], [3.1, 0.2, 0.4], [0.5, 0.1, 3.3]])
    return [cubic, checked_structure([13, 1], [[0, 0, 0], [1.2, 1.0, 1.1]], skewed, True)]


@pytest.fixture(scope="session")
def batch_of() -> BatchOf:
    """Structures to a batch: batch_of(structures, cutoff=4.0, dtype=torch.float64, slots_per_atom=None)."""
    return _batch_of


@pytest.fixture(scope="session")
def network_of() -> NetworkOf:
    """A network with weights large enough to matter: network_of(order=1, members=1, dtype=torch.float64, ...)."""
    return _network_of


def _batch_of(
    structures: Sequence[Structure],
    cutoff: float = CUTOFF,
    dtype: torch.dtype = torch.float64,
    slots_per_atom: int | None = None,
) -> Batch:
    tensors = collate([build_graph(s, cutoff) for s in structures], slots_per_atom)
    given = (torch.from_numpy(array) for array in tensors.values())
    return Batch(*(t.to(dtype) if t.is_floating_point() else t for t in given))


def _network_of(*, dtype: torch.dtype = torch.float64, seed: int = 0, **changes: object) -> HipNN:
    torch.manual_seed(seed)
    config = HipNNConfig.model_validate(
        {
            "elements": ELEMENTS,
            "features": 8,
            "sensitivities": 6,
            "soft_min_angstrom": 0.8,
            "soft_max_angstrom": 3.5,
            "cutoff_angstrom": CUTOFF,
            "interaction_layers": 2,
            "atom_layers": 1,
        }
        | changes
    )
    network = HipNN(config)
    with torch.no_grad():
        for block in network.blocks:
            block.readout.uniform_(-0.5, 0.5)
            block.readout_bias.uniform_(-0.5, 0.5)
    return network.to(dtype)


def _chain(n_atoms: int, seed: int) -> Structure:
    """A random chain with steps of 1.3 angstrom whose atoms keep 0.9 angstrom apart."""
    rng = np.random.default_rng(seed)
    positions = np.zeros((1, 3))
    while len(positions) < n_atoms:
        step = rng.normal(size=3)
        candidate = positions[-1] + 1.3 * step / np.linalg.norm(step)
        if np.linalg.norm(positions - candidate, axis=1).min() > 0.9:
            positions = np.vstack([positions, candidate])
    return checked_structure(rng.choice(ELEMENTS[:3], n_atoms), positions)


def _write_ensemble(root: Path) -> Path:
    """Two members for H and C in NeuroChem's files."""
    rng = np.random.default_rng(0)
    for member in range(2):
        folder = root / f"train{member}" / "networks"
        folder.mkdir(parents=True)
        for element in "HC":
            _write_network(folder, element, rng)
    (root / "tiny.params").write_text(NEUROCHEM_PARAMS)
    (root / "sae_linfit.dat").write_text("H,0=-0.6\nC,1=-38.1\n")
    return root


def _write_network(folder: Path, element: str, rng: np.random.Generator, activations: str = "996") -> None:
    blocks = []
    for k, (n_in, n_out) in enumerate(pairwise(NEUROCHEM_WIDTHS)):
        name = f"ANN-{element}.nnf-l{k + 1}"
        rng.normal(size=(n_out, n_in)).astype("<f4").tofile(folder / f"{name}.wparam")
        rng.normal(size=n_out).astype("<f4").tofile(folder / f"{name}.bparam")
        blocks.append(
            f"layer [\nnodes={n_out};\nactivation={activations[k]};\nblocksize={n_in};\n"
            f"weights=FILE:{name}.wparam[{n_in * n_out}];\nbiases=FILE:{name}.bparam[{n_out}];\n]\n"
        )
    text = f"inputsize={NEUROCHEM_WIDTHS[0]};\natom_net {element} $\n{''.join(blocks)}$\n"
    (folder / f"ANN-{element}.nnf").write_bytes(b"100=\n" + bz2.compress(text.encode()))
