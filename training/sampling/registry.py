"""Which campaign a sampling configuration belongs to: its key `sampling` names it; molecules without one."""

from concurrent.futures import Executor
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter

from training.sampling.errors import LabellerNeeded
from training.sampling.liquid import LiquidConfig, sample_liquid
from training.sampling.organic import OrganicConfig, sample_organic
from training.sampling.permeability import PermeabilityConfig, sample_permeability
from training.simulators.references import AniSpec, ReferenceSpec

SamplingConfig = OrganicConfig | PermeabilityConfig | LiquidConfig
_ADAPTER: TypeAdapter[SamplingConfig] = TypeAdapter(Annotated[SamplingConfig, Field(discriminator="sampling")])


def read_sampling(path: Path) -> SamplingConfig:
    """Read a YAML configuration.

    Raises:
        pydantic.ValidationError: naming each field that is missing, unknown or out of range.
    """
    return _ADAPTER.validate_python({"sampling": "organic"} | (yaml.safe_load(path.read_text()) or {}))


def run_sampling(config: SamplingConfig, folder: Path, labeller: Path | None, workers: Executor | None) -> Path:
    """Run the campaign that the configuration names; what it wrote last.

    Args:
        config: of any kind.
        folder: for its labels and its record.
        labeller: published ANI networks, for the kinds that label with such.
        workers: for the kinds whose labels are made one by one; None: here, one after another.

    Raises:
        LabellerNeeded: the kind needs a labeller, and none is named or two are.
    """
    if isinstance(config, PermeabilityConfig):
        return sample_permeability(config, folder, workers)
    if isinstance(config, LiquidConfig):
        return sample_liquid(config, folder)
    return sample_organic(config, _labeller(config, labeller), folder)


def _labeller(config: OrganicConfig, networks: Path | None) -> ReferenceSpec:
    """The calculator that either the configuration or the command line names."""
    if config.reference is not None and networks is None:
        return config.reference
    if config.reference is None and networks is not None:
        return AniSpec(path=networks)
    what = (
        "nothing that labels is named" if networks is None else f"both `reference` and --labeller {networks} are named"
    )
    raise LabellerNeeded(
        f"{config.name}: {what}. Give either `reference: {{kind: gfn2}}` (or another kind) in the configuration or "
        "--labeller with published ANI networks."
    )
