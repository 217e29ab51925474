"""Which kind of sampling a configuration asks for: its `sampling` key says; molecules without one."""

from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter

from training.errors import NotReady
from training.sampling.liquid import LiquidConfig, sample_liquid
from training.sampling.organic import OrganicConfig, sample_organic

SamplingConfig = Annotated[OrganicConfig | LiquidConfig, Field(discriminator="sampling")]
_ADAPTER: TypeAdapter[OrganicConfig | LiquidConfig] = TypeAdapter(SamplingConfig)


def read_sampling(path: Path) -> OrganicConfig | LiquidConfig:
    """Read a YAML configuration.

    Raises:
        pydantic.ValidationError: naming each field that is missing, unknown or out of range.
    """
    return _ADAPTER.validate_python({"sampling": "organic"} | (yaml.safe_load(path.read_text()) or {}))


def sample_run(config: OrganicConfig | LiquidConfig, folder: Path, labeller: Path | None = None) -> Path:
    """Make the frames that the configuration asks for; returns the file.

    Raises:
        NotReady: molecules need a labeller, and there is none.
    """
    if isinstance(config, LiquidConfig):
        return sample_liquid(config, folder)
    if labeller is None:
        raise NotReady("frames of molecules need --labeller: published ANI networks, a folder or .tar.gz")
    return sample_organic(config, labeller, folder)
