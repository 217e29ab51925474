"""The networks that a potential can be: what training, export, gate and evaluation ask of any of them.

Each has `config` (elements, cutoff_angstrom, members), `cutoff`, `evaluate(batch)` and `energy(batch)`; its weights are
stacked by member.
"""

from collections.abc import Mapping
from typing import Any

from training.networks.ani import Ani, AniConfig
from training.networks.hipnn import HipNN, HipNNConfig

Potential = HipNN | Ani
PotentialConfig = HipNNConfig | AniConfig
_HIP_NN = {0: "HIP-NN", 1: "HIP-NN-TS", 2: "HIP-NN-TS"}


def network_of(fields: Mapping[str, Any]) -> Potential:
    """An untrained network of the architecture in these fields, as `config.model_dump()` gives them."""
    if fields.get("kind") == "ani":
        return Ani(AniConfig.model_validate(fields))
    return HipNN(HipNNConfig.model_validate(fields))


def architecture(config: PotentialConfig) -> dict[str, Any]:
    """The entry of a model card: the name of the architecture, and its fields."""
    name = "ANI" if isinstance(config, AniConfig) else _HIP_NN[config.order]
    return {"network": name, **config.model_dump(exclude_none=True)}
