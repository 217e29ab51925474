"""Weights of hippynn 0.1.3 (Hipnn, HipnnVec, HipnnQuad with an HEnergy readout) as a HipNN of one member.

hippynn: github.com/lanl/hippynn, BSD-3-Clause. Its state dicts hold the weights and the elements, not the cutoff, the
activation, the units or where the sensitivities started: those come with `HippynnSettings`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from contract.elements import SYMBOLS
from contract.units import BOHR_ANGSTROM, HARTREE_EV, KCAL_MOL_EV
from training.networks.errors import AmbiguousWeights, UnknownWeights, UnsupportedNetwork
from training.networks.hipnn import HipNN, HipNNConfig

EnergyUnit = Literal["eV", "hartree", "kcal/mol", "kJ/mol"]
LengthUnit = Literal["angstrom", "bohr"]

_EV: Final[dict[EnergyUnit, float]] = {
    "eV": 1.0,
    "hartree": HARTREE_EV,
    "kcal/mol": KCAL_MOL_EV,
    "kJ/mol": KCAL_MOL_EV / 4.184,
}
_ANGSTROM: Final[dict[LengthUnit, float]] = {"angstrom": 1.0, "bohr": BOHR_ANGSTROM}

_CUSP_BEFORE_IT_WAS_STORED: Final = 1e-30
_FIRST_WEIGHT = "blocks.0.0.base_layer.int_weights"
_READOUT = re.compile(r"(?:^|(?<=\.))layers\.(\d+)\.weight$")


class HippynnSettings(BaseModel):
    """What a hippynn state dict does not hold. Nothing here has a default that could be wrong unnoticed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    cutoff: float = Field(gt=0, description="dist_hard_max, in length_unit")
    soft_min: float = Field(gt=0, description="dist_soft_min, in length_unit; recorded, no answer depends on it")
    soft_max: float = Field(gt=0, description="dist_soft_max, in length_unit; recorded, no answer depends on it")
    energy_unit: EnergyUnit
    length_unit: LengthUnit
    activation: Literal["softplus"] = Field(description="hippynn's default, and the only one that HipNN has")
    elements: list[int] | None = Field(None, description="atomic numbers in one-hot order, if there is no encoder")
    energy_node: str | None = Field(None, description="which readout, such as node18, if there are several")


@dataclass(frozen=True, slots=True)
class ImportedNetwork:
    """A HipNN in eV and angstrom, in the dtype of the weights, and its atomic references in eV per element."""

    network: HipNN
    references: dict[str, float]


def load_hippynn(state: Mapping[str, Any], settings: HippynnSettings) -> ImportedNetwork:
    """Copy the weights of a hippynn network.

    Args:
        state: state dict of a hippynn GraphModule (moddict.node<K>...), or those of a network (`blocks...`) and its
            HEnergy (`layers...`) in one.
        settings: what the state dict does not hold.

    Returns:
        Energies, forces and atomic energies equal hippynn's to rounding, converted to eV and angstrom.

    Raises:
        UnknownWeights: no hippynn network in it, or a part is missing.
        AmbiguousWeights: several networks or energies.
        UnsupportedNetwork: no residual layers, a bottleneck, unequal widths, another activation or readout.
    """
    blocks = _under(state, _network_prefix(state))
    readouts = _readouts(state, settings)
    config = _config(blocks, _elements(state, blocks, settings), settings)
    first, orders = _split_readouts(readouts, config)
    weights = _copied(blocks, orders, config, settings)
    if blocks:
        raise UnsupportedNetwork(f"HipNN has no place for {', '.join(sorted(blocks)[:5])}")
    network = HipNN(config).to(weights["blocks.0.readout"].dtype)
    network.load_state_dict(weights)
    energies = [0.0] * len(config.elements) if first is None else (first.double() * _ev(settings)).tolist()
    return ImportedNetwork(network, {SYMBOLS[z]: e for z, e in zip(config.elements, energies, strict=True)})


def _network_prefix(state: Mapping[str, Any]) -> str:
    """Where the network's tensors are. An L2 term in the loss repeats them under `<term>.network.`: left out."""
    prefixes = [key.removesuffix(_FIRST_WEIGHT) for key in state if key.endswith(_FIRST_WEIGHT)]
    prefixes = [prefix for prefix in prefixes if not prefix.endswith(".network.")]
    if len(prefixes) > 1:
        raise AmbiguousWeights(
            f"{len(prefixes)} networks in one state dict ({', '.join(sorted(prefixes))}). Members of a hippynn "
            "ensemble have their own sensitivities, a HipNN committee shares them: import each member as its own model"
        )
    if prefixes:
        return prefixes[0]
    if any(key.endswith("blocks.0.0.int_weights") for key in state):
        raise UnsupportedNetwork(
            "the network was built with resnet=False; HipNN has a residual path around every layer"
        )
    raise UnknownWeights(
        f"no key ends with {_FIRST_WEIGHT}: not the state dict of a hippynn network. hippynn writes it to best_model.pt"
    )


def _under(state: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    start = prefix + "blocks."
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}


def _readouts(state: Mapping[str, Any], settings: HippynnSettings) -> list[tuple[Tensor, Tensor | None]]:
    """Weight [1, f] and bias [1] or None of each order of the energy, lowest first."""
    names = {_READOUT.sub("", key) for key in state if _READOUT.search(key)}
    if settings.energy_node is not None:
        names = {name for name in names if settings.energy_node in name.split(".")}
    if not names:
        raise UnknownWeights("no key ends with layers.<k>.weight: the state dict has no HEnergy readout of that name")
    if len(names) > 1:
        raise AmbiguousWeights(f"several readouts: {', '.join(sorted(names))}. Name the energy's with energy_node")
    start = names.pop() + "layers."
    count = sum(1 for key in state if key.startswith(start) and key.endswith(".weight"))
    return [(state[f"{start}{k}.weight"], state.get(f"{start}{k}.bias")) for k in range(count)]


def _elements(state: Mapping[str, Any], blocks: Mapping[str, Any], settings: HippynnSettings) -> list[int]:
    """Atomic numbers in one-hot order, from the encoder's map of atomic numbers to places (0 is the padding atom)."""
    count = _tensor(blocks, "0.0.base_layer.int_weights").shape[2]
    maps = {tuple(value.tolist()) for key, value in state.items() if key.rsplit(".", 1)[-1] == "species_map"}
    if len(maps) > 1:
        raise AmbiguousWeights("several encoders with different elements in one state dict")
    stored = [z for place, z in sorted((place, z) for z, place in enumerate(next(iter(maps), ())) if place > 0)]
    elements = stored or settings.elements
    if elements is None:
        raise UnknownWeights("no species_map in the state dict: give the elements, in the order of possible_species")
    if settings.elements is not None and settings.elements != elements:
        raise AmbiguousWeights(f"elements {settings.elements} were given, the state dict says {elements}")
    if len(elements) != count:
        raise UnknownWeights(f"{len(elements)} elements ({elements}), but the first layer has {count} input features")
    return elements


def _config(blocks: Mapping[str, Any], elements: list[int], settings: HippynnSettings) -> HipNNConfig:
    first = _tensor(blocks, "0.0.base_layer.int_weights")
    per_block = [sum(1 for k in blocks if re.fullmatch(rf"{b}\.\d+\.res_layer\.bias", k)) for b in _blocks_of(blocks)]
    features = {_tensor(blocks, f"{b}.0.res_layer.bias").shape[0] for b in _blocks_of(blocks)}
    middle = {_tensor(blocks, f"{b}.0.res_layer.weight").shape[1] for b in _blocks_of(blocks)}
    if middle | features != {first.shape[1]}:
        raise UnsupportedNetwork(
            f"features {sorted(features)} with residual layers of width {sorted(middle)}; HipNN has one width for all"
        )
    scale = _ANGSTROM[settings.length_unit]
    return HipNNConfig(
        elements=elements,
        order=2 if "0.0.base_layer.quadscales" in blocks else 1 if "0.0.base_layer.vecscales" in blocks else 0,
        features=first.shape[1],
        sensitivities=first.shape[0],
        soft_min_angstrom=scale * settings.soft_min,
        soft_max_angstrom=scale * settings.soft_max,
        cutoff_angstrom=scale * settings.cutoff,
        interaction_layers=len(per_block),
        atom_layers=per_block[0] - 1,
        cusp_regulariser=_cusp(blocks),
    )


def _blocks_of(blocks: Mapping[str, Any]) -> list[int]:
    return sorted({int(key.split(".", 1)[0]) for key in blocks})


def _cusp(blocks: Mapping[str, Any]) -> float:
    """Epsilon of the tensor norms; files from before it was stored were trained with 1e-30."""
    layers = [f"{b}.0.base_layer." for b in _blocks_of(blocks) if f"{b}.0.base_layer.vecscales" in blocks]
    if not layers:
        return 1e-6
    stored = {blocks.get(f"{layer}_extra_state", {}).get("cusp_reg", _CUSP_BEFORE_IT_WAS_STORED) for layer in layers}
    if len(stored) > 1:
        raise UnsupportedNetwork(f"the blocks have different cusp_reg {sorted(stored)}; HipNN has one for all")
    return float(stored.pop())


def _split_readouts(
    readouts: list[tuple[Tensor, Tensor | None]], config: HipNNConfig
) -> tuple[Tensor | None, list[tuple[Tensor, Tensor]]]:
    """Atomic references [elements] in hippynn's unit (None with first_is_interacting), and a readout for each block."""
    targets = {weight.shape[0] for weight, _ in readouts}
    if targets != {1}:
        raise UnsupportedNetwork(f"the readout has {sorted(targets)} targets; HipNN has one energy")
    first = None
    if readouts[0][1] is None and len(readouts) == config.interaction_layers + 1:
        first, readouts = readouts[0][0][0], readouts[1:]
    orders = [(weight, bias) for weight, bias in readouts if bias is not None]
    if len(orders) != len(readouts) or len(orders) != config.interaction_layers:
        raise UnsupportedNetwork(
            "the readout is not an HEnergy of this network (one layer with bias for each of its "
            f"{config.interaction_layers} blocks); charges and atomization energies cannot be imported"
        )
    return first, orders


def _copied(
    blocks: dict[str, Any], orders: list[tuple[Tensor, Tensor]], config: HipNNConfig, settings: HippynnSettings
) -> dict[str, Tensor]:
    """State dict of a HipNN of one member; what is taken leaves `blocks`."""
    weights: dict[str, Tensor] = {}
    for b, (readout, bias) in enumerate(orders):
        ours = f"blocks.{b}."
        weights |= {
            ours + "readout": readout.T[None] * _ev(settings),
            ours + "readout_bias": bias[None] * _ev(settings),
        }
        scale = _ANGSTROM[settings.length_unit]
        weights |= {f"{ours}interaction.{key}": w for key, w in _interaction(blocks, f"{b}.0.", scale)}
        for k in range(config.atom_layers):
            weights |= {f"{ours}atom_layers.{k}.{key}": w for key, w in _atom_layer(blocks, f"{b}.{k + 1}.")}
    return {key: value.detach().contiguous() for key, value in weights.items()}


def _interaction(blocks: dict[str, Any], layer: str, scale: float) -> Iterator[tuple[str, Tensor]]:
    base = layer + "base_layer."
    blocks.pop(base + "_extra_state", None)
    yield "weight", _taken(blocks, base + "int_weights").permute(0, 2, 1).flatten(0, 1)[None]
    yield "self_weight", _taken(blocks, base + "selfint.weight").T[None]
    yield "bias", _taken(blocks, base + "selfint.bias")[None, None]
    yield "sensitivity.mu", scale * _taken(blocks, base + "sensitivity.mu")[0]
    yield "sensitivity.sigma", scale * _taken(blocks, base + "sensitivity.sigma")[0]
    if base + "vecscales" in blocks:
        yield "vector_scale", _taken(blocks, base + "vecscales")[None, None]
    if base + "quadscales" in blocks:
        yield "tensor_scale", _taken(blocks, base + "quadscales")[None, None]
    if layer + "adjust_layer.weight" in blocks:
        yield "skip_weight", _taken(blocks, layer + "adjust_layer.weight").T[None]
    yield "out_weight", _taken(blocks, layer + "res_layer.weight").T[None]
    yield "out_bias", _taken(blocks, layer + "res_layer.bias")[None, None]


def _atom_layer(blocks: dict[str, Any], layer: str) -> Iterator[tuple[str, Tensor]]:
    for ours, theirs in (("", "base_layer."), ("out_", "res_layer.")):
        yield ours + "weight", _taken(blocks, f"{layer}{theirs}weight").T[None]
        yield ours + "bias", _taken(blocks, f"{layer}{theirs}bias")[None, None]


def _tensor(blocks: Mapping[str, Any], key: str) -> Tensor:
    value = blocks.get(key)
    if not isinstance(value, Tensor):
        raise UnknownWeights(
            f"blocks.{key} is missing: not a complete Hipnn, HipnnVec or HipnnQuad of hippynn 0.1.3 "
            "with its own sensitivities (HIP-HOP-NN and sensitivity bottlenecks cannot be imported)"
        )
    return value


def _taken(blocks: dict[str, Any], key: str) -> Tensor:
    value = _tensor(blocks, key)
    del blocks[key]
    return value


def _ev(settings: HippynnSettings) -> float:
    return _EV[settings.energy_unit]
