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
        labeller: published networks, for the kinds that label with such.
        workers: for the kinds whose labels are made one by one; None: here, one after another.

    Raises:
        LabellerNeeded: the kind labels with published networks and none were named.
    """
    if isinstance(config, PermeabilityConfig):
        return sample_permeability(config, folder, workers)
    if isinstance(config, LiquidConfig):
        return sample_liquid(config, folder)
    if labeller is None:
        raise LabellerNeeded(f"{config.name}: sampling {config.sampling} needs --labeller, published ANI networks")
    return sample_organic(config, labeller, folder)
