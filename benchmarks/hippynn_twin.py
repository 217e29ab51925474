"""A random hippynn network and our copy of it: two implementations of one function, to be timed side by side."""

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("HIPPYNN_WARN_LOW_DISTANCES", "False")
os.environ.setdefault("HIPPYNN_PROGRESS", "none")
os.environ.setdefault("NUMBA_NUM_THREADS", "1")  # one thread for everyone

import hippynn
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.networks.hipnn import HipNN, HipNNConfig
from training.networks.hippynn_weights import HippynnSettings, load_hippynn

CLASSES = {0: "Hipnn", 1: "HipnnVec", 2: "HipnnQuad"}


class Twin(nn.Module):
    """hippynn's network with its energy readout, float32, energies and forces by its own kernels."""

    def __init__(self, config: HipNNConfig) -> None:
        super().__init__()
        self.elements = torch.tensor(config.elements)
        self.vectors = config.order > 0
        self.network = getattr(hippynn.networks.hipnn, CLASSES[config.order])(
            n_features=config.features,
            n_sensitivities=config.sensitivities,
            dist_soft_min=config.soft_min_angstrom,
            dist_soft_max=config.soft_max_angstrom,
            dist_hard_max=config.cutoff_angstrom,
            n_atom_layers=config.atom_layers,
            n_interaction_layers=config.interaction_layers,
            possible_species=[0, *config.elements],
        )
        self.readout = hippynn.layers.targets.HEnergy(self.network.feature_sizes)

    def forward(self, species: Tensor, positions: Tensor, pairs: tuple[Tensor, Tensor, Tensor], atoms: Tensor) -> Any:
        """Energies [B] and forces [N, 3]."""
        first, second, shifts = pairs
        positions = positions.detach().requires_grad_()
        d = positions[second] - positions[first] + shifts
        given = [first, second, d.norm(dim=1)] + ([d] if self.vectors else [])
        energy = self.readout(self.network(species[:, None] == self.elements, *given), atoms, int(atoms[-1]) + 1)[0]
        return energy.detach(), -torch.autograd.grad(energy.sum(), positions)[0]


def ours_of(twin: Twin, config: HipNNConfig) -> HipNN:
    """Our network with the twin's weights."""
    settings = HippynnSettings(
        cutoff=config.cutoff_angstrom,
        soft_min=config.soft_min_angstrom,
        soft_max=config.soft_max_angstrom,
        energy_unit="eV",
        length_unit="angstrom",
        activation="softplus",
        elements=config.elements,
    )
    return load_hippynn(twin.network.state_dict() | twin.readout.state_dict(), settings).network


def hippynn_call(twin: Twin, batch: dict[str, NDArray[Any]], kernel: str) -> Callable[[], Any]:
    """A call that evaluates the twin on the real pairs of one of our batches with one of hippynn's kernels."""
    reverse = torch.from_numpy(batch["reverse"])
    own_slot = torch.arange(reverse.numel()).reshape(reverse.shape)
    first, slot = torch.nonzero(reverse != own_slot).T
    second = torch.from_numpy(batch["neighbours"])[first, slot]
    pairs = (first.contiguous(), second.contiguous(), torch.from_numpy(batch["shifts"])[first, slot])
    species, positions = torch.from_numpy(batch["species"]), torch.from_numpy(batch["positions"])
    atoms = torch.from_numpy(batch["structure"])

    def call() -> Any:
        hippynn.custom_kernels.set_custom_kernels(kernel)
        return twin(species, positions, pairs, atoms)

    return call
