"""Our network with hippynn's weights answers what hippynn answers."""

from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from contract.units import BOHR_ANGSTROM, HARTREE_EV
from training.networks.errors import AmbiguousWeights, UnknownWeights, UnsupportedNetwork
from training.networks.hipnn import Batch, HipNN
from training.networks.hippynn_weights import HippynnSettings, ImportedNetwork, load_hippynn

ELEMENTS = [1, 6, 8, 13]
CUTOFF = 4.0
SETTINGS = HippynnSettings(
    cutoff=CUTOFF,
    soft_min=0.8,
    soft_max=3.5,
    energy_unit="eV",
    length_unit="angstrom",
    activation="softplus",
    elements=ELEMENTS,
)
CLASSES = {0: "Hipnn", 1: "HipnnVec", 2: "HipnnQuad"}


class Oracle:
    """A random hippynn network with its energy readout, run on the pairs of one of our batches."""

    def __init__(self, hippynn: ModuleType, order: int, blocks: int, **changes: Any) -> None:
        torch.manual_seed(order + 10 * blocks)
        settings = {
            "n_features": 8,
            "n_sensitivities": 6,
            "dist_soft_min": 0.8,
            "dist_soft_max": 3.5,
            "dist_hard_max": CUTOFF,
            "n_atom_layers": 2,
            "n_interaction_layers": blocks,
            "possible_species": [0, *ELEMENTS],
        } | changes
        self.network = getattr(hippynn.networks.hipnn, CLASSES[order])(**settings).double()
        self.readout = hippynn.layers.targets.HEnergy(self.network.feature_sizes).double()
        self.order = order

    def state_dict(self) -> dict[str, Any]:
        return self.network.state_dict() | self.readout.state_dict()

    def __call__(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Energy [B], atomic energies [N], hierarchicality [B], forces [N, 3]."""
        positions = batch.positions.clone().requires_grad_()
        first, k = torch.nonzero(batch.reverse != torch.arange(batch.reverse.numel()).reshape(batch.reverse.shape)).T
        second = batch.neighbours[first, k]
        coordinates = positions[second] - positions[first] + batch.shifts[first, k]
        one_hot = batch.species[:, None] == torch.tensor(ELEMENTS)
        pairs = [first, second, coordinates.norm(dim=1)] + ([coordinates] if self.order else [])
        answer = self.readout(self.network(one_hot, *pairs), batch.structure, len(batch.cells))
        energy, atomic, hierarchicality = answer[0], answer[1], answer[3]
        forces = -torch.autograd.grad(energy.sum(), positions)[0]
        return energy[:, 0].detach(), atomic[:, 0].detach(), hierarchicality[:, 0].detach(), forces


@pytest.mark.parametrize("order", [0, 1, 2])
@pytest.mark.parametrize("blocks", [1, 2])
def test_energies_forces_and_atomic_energies_equal_those_of_hippynn(
    hippynn: ModuleType, order: int, blocks: int, molecules: list, crystals: list, batch_of: Any
) -> None:
    oracle = Oracle(hippynn, order, blocks)
    imported = load_hippynn(oracle.state_dict(), SETTINGS)
    batch = batch_of([*molecules, *crystals])
    energy, atomic, hierarchicality, forces = oracle(batch)
    ours = imported.network.evaluate(batch)
    reference = _reference_of_atoms(imported, batch)
    per_structure = torch.zeros_like(energy).index_add(0, batch.structure, reference)

    assert _difference(ours.energy[0] + per_structure, energy) < 1e-12
    assert _difference(ours.atomic_energy[0] + reference, atomic) < 1e-12
    assert _difference(ours.forces, forces) < 1e-12
    assert _difference(_autograd_forces(imported.network, batch), forces) < 1e-12
    orders = torch.cat([reference[None], imported.network.hierarchy(batch)[:, 0]])
    assert _difference(_hierarchicality(orders, batch), hierarchicality) < 1e-12


def test_other_units_of_energy_and_length_become_ev_and_angstrom(
    hippynn: ModuleType, molecules: list, batch_of: Any
) -> None:
    oracle = Oracle(hippynn, 1, 2)
    units: dict[str, Any] = {"energy_unit": "hartree", "length_unit": "bohr"}
    imported = load_hippynn(oracle.state_dict(), SETTINGS.model_copy(update=units))
    batch = batch_of(molecules, imported.network.config.cutoff_angstrom)
    in_bohr = batch._replace(positions=batch.positions / BOHR_ANGSTROM, shifts=batch.shifts / BOHR_ANGSTROM)
    _, atomic, _, forces = oracle(in_bohr)
    ours = imported.network.evaluate(batch)

    assert imported.network.config.cutoff_angstrom == pytest.approx(CUTOFF * BOHR_ANGSTROM)
    expected = HARTREE_EV * atomic
    assert _difference(ours.atomic_energy[0] + _reference_of_atoms(imported, batch), expected) < 1e-12
    assert _difference(ours.forces, HARTREE_EV / BOHR_ANGSTROM * forces) < 1e-12


def test_as_many_elements_as_features_need_no_adjustment(hippynn: ModuleType, molecules: list, batch_of: Any) -> None:
    oracle = Oracle(hippynn, 1, 1, n_features=len(ELEMENTS))
    imported = load_hippynn(oracle.state_dict(), SETTINGS)
    batch = batch_of(molecules)
    assert _difference(imported.network.evaluate(batch).forces, oracle(batch)[3]) < 1e-12


def test_old_files_without_a_cusp_regulariser_get_the_value_they_were_trained_with(hippynn: ModuleType) -> None:
    state = Oracle(hippynn, 1, 1).state_dict()
    del state["blocks.0.0.base_layer._extra_state"]
    assert load_hippynn(state, SETTINGS).network.config.cusp_regulariser == 1e-30


def test_a_copy_of_the_network_from_an_l2_term_is_ignored(hippynn: ModuleType) -> None:
    oracle = Oracle(hippynn, 2, 2)
    state = {f"moddict.node7.{k}": v for k, v in oracle.network.state_dict().items()}
    state |= {f"moddict.node8.network.{k}": v for k, v in oracle.network.state_dict().items()}
    state |= {f"moddict.node9.{k}": v for k, v in oracle.readout.state_dict().items()}
    plain = load_hippynn(oracle.state_dict(), SETTINGS).network.state_dict()
    for key, weight in load_hippynn(state, SETTINGS).network.state_dict().items():
        assert torch.equal(weight, plain[key])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"resnet": False}, "resnet=False"),
        ({"resnet": 5}, "one width"),
        ({"n_features": (8, 6), "n_interaction_layers": None}, "one width"),
        ({"activation": torch.nn.PReLU}, "activation"),
    ],
)
def test_a_network_that_hipnn_cannot_represent_is_refused_with_the_reason(
    hippynn: ModuleType, changes: dict[str, Any], reason: str
) -> None:
    with pytest.raises(UnsupportedNetwork, match=reason):
        load_hippynn(Oracle(hippynn, 1, 2, **changes).state_dict(), SETTINGS)


def test_a_sensitivity_bottleneck_is_refused(hippynn: ModuleType) -> None:
    bottleneck = hippynn.layers.hiplayers.SensitivityBottleneck
    oracle = Oracle(hippynn, 0, 1, sensitivity_type=lambda *given: bottleneck(*given, n_dist_bare=9))
    with pytest.raises(UnknownWeights, match="bottleneck"):
        load_hippynn(oracle.state_dict(), SETTINGS)


def test_several_targets_and_other_readouts_are_refused(hippynn: ModuleType) -> None:
    oracle = Oracle(hippynn, 0, 2)
    for readout, reason in (
        (hippynn.layers.targets.HEnergy(oracle.network.feature_sizes, n_target=2), "2"),
        (hippynn.layers.targets.AtomizationEnergy(oracle.network.feature_sizes), "HEnergy"),
    ):
        with pytest.raises(UnsupportedNetwork, match=reason):
            load_hippynn(oracle.network.state_dict() | readout.state_dict(), SETTINGS)


def test_members_of_an_ensemble_are_refused_because_they_do_not_share_sensitivities(hippynn: ModuleType) -> None:
    members = [Oracle(hippynn, 0, 1).state_dict() for _ in range(2)]
    state = {f"moddict.node{m}.{k}": v for m, weights in enumerate(members) for k, v in weights.items()}
    with pytest.raises(AmbiguousWeights, match="each member as its own model"):
        load_hippynn(state, SETTINGS)


def test_which_energy_is_meant_must_be_said_when_there_are_several(hippynn: ModuleType) -> None:
    oracle = Oracle(hippynn, 0, 1)
    state = oracle.network.state_dict()
    state |= {f"moddict.{n}.{k}": v for n in ("node3", "node4") for k, v in oracle.readout.state_dict().items()}
    with pytest.raises(AmbiguousWeights, match="energy_node"):
        load_hippynn(state, SETTINGS)
    load_hippynn(state, SETTINGS.model_copy(update={"energy_node": "node4"}))


def test_a_state_dict_without_elements_or_of_something_else_is_refused(hippynn: ModuleType) -> None:
    with pytest.raises(UnknownWeights, match="give the elements"):
        load_hippynn(Oracle(hippynn, 0, 1).state_dict(), SETTINGS.model_copy(update={"elements": None}))
    with pytest.raises(UnknownWeights, match=r"3 elements .* 4 input features"):
        load_hippynn(Oracle(hippynn, 0, 1).state_dict(), SETTINGS.model_copy(update={"elements": [1, 6, 8]}))
    with pytest.raises(UnknownWeights, match=r"best_model\.pt"):
        load_hippynn(torch.nn.Linear(2, 2).state_dict(), SETTINGS)


def _reference_of_atoms(imported: ImportedNetwork, batch: Batch) -> Tensor:
    values = torch.tensor(list(imported.references.values()), dtype=torch.float64)
    return (batch.species[:, None] == torch.tensor(ELEMENTS)).double() @ values


def _autograd_forces(network: HipNN, batch: Batch) -> Tensor:
    positions = batch.positions.clone().requires_grad_()
    energy = network.energy(batch._replace(positions=positions)).sum()
    return -torch.autograd.grad(energy, positions)[0]


def _hierarchicality(orders: Tensor, batch: Batch) -> Tensor:
    """R of Lubbers et al. 2018: sum over atoms and orders of E_k^2 / (E_k^2 + E_(k-1)^2)."""
    squares = orders**2
    terms = (squares[1:] / (squares[1:] + squares[:-1])).sum(dim=0)
    return torch.zeros(len(batch.cells), dtype=terms.dtype).index_add(0, batch.structure, terms)


def _difference(value: Tensor, reference: Tensor) -> float:
    return ((value - reference).abs().max() / reference.abs().max()).item()
