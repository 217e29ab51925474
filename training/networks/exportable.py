"""The functions that are exported: a committee with forces and virials of its mean, and with those of every member."""

import torch
from torch import Tensor, nn

from training.networks.ani import Ani
from training.networks.hipnn import Batch, HipNN
from training.networks.potential import Potential


class _OfTensors(nn.Module):
    """Takes the tensors of a batch one by one, as the files of a graph do."""

    def forward(
        self,
        species: Tensor,
        positions: Tensor,
        neighbours: Tensor,
        shifts: Tensor,
        reverse: Tensor,
        structure: Tensor,
        cells: Tensor,
    ) -> tuple[Tensor, ...]:
        """Inputs of contract.signatures.POTENTIAL."""
        return self.answer(Batch(species, positions, neighbours, shifts, reverse, structure, cells))

    def answer(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the graph holds."""
        raise NotImplementedError


class MeanForces(_OfTensors):
    """The everyday graph: energies of all members, forces and virials of their mean by one backward pass."""

    def __init__(self, network: Potential) -> None:
        super().__init__()
        self.network = network

    def answer(self, batch: Batch) -> tuple[Tensor, ...]:
        """Tensors of contract.signatures.POTENTIAL."""
        return self.network.evaluate(batch)


def member_forces(network: Potential) -> nn.Module:
    """The graph for the uncertainty of forces and stress."""
    return MembersInOne(network) if isinstance(network, Ani) else MemberForces(network)


class MembersInOne(_OfTensors):
    """All members at once, for a network whose members share most of what a backward pass needs."""

    def __init__(self, network: Ani) -> None:
        super().__init__()
        self.network = network

    def answer(self, batch: Batch) -> tuple[Tensor, ...]:
        """Tensors of contract.signatures.POTENTIAL_MEMBERS."""
        energy, atomic, forces, virial = self.network.evaluate_members(batch)
        return energy, forces.mean(dim=0), virial.mean(dim=0), atomic, forces, virial


class MemberForces(_OfTensors):
    """Members unrolled, each with its own backward pass: together they would not fit the cache."""

    def __init__(self, network: HipNN) -> None:
        super().__init__()
        self.members = nn.ModuleList(member(network, m) for m in range(network.config.members))

    def answer(self, batch: Batch) -> tuple[Tensor, ...]:
        """Tensors of contract.signatures.POTENTIAL_MEMBERS."""
        each = [network.evaluate(batch) for network in self.members]  # type: ignore[operator]
        forces = torch.stack([e.forces for e in each])
        virial = torch.stack([e.virial for e in each])
        energy = torch.cat([e.energy for e in each])
        atomic = torch.cat([e.atomic_energy for e in each])
        return energy, forces.mean(dim=0), virial.mean(dim=0), atomic, forces, virial


def member(network: HipNN, index: int) -> HipNN:
    """One member of a committee as a network of its own, with copies of its weights."""
    alone = HipNN(network.config.model_copy(update={"members": 1})).to(network.cutoff)
    shared = {"mu", "sigma"}
    alone.load_state_dict(
        {
            key: value if key.rsplit(".", 1)[-1] in shared else value[index : index + 1]
            for key, value in network.state_dict().items()
        }
    )
    return alone
