"""Every shipped configuration can be read by the command that it names, and its comment promises only what is there."""

import re
from pathlib import Path

import pytest
import yaml

from training.pipelines.registry import read_config, read_learning_config
from training.sampling.registry import read_sampling

CONFIGS = Path(__file__).parents[2] / "training" / "configs"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_a_shipped_configuration_can_be_read(path: Path) -> None:
    said = yaml.safe_load(path.read_text())
    if "sampling" in said:
        read_sampling(path)
    elif said["pipeline"] == "metal":
        read_learning_config(path)
    else:
        read_config(path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_a_configuration_names_only_files_that_there_are(path: Path) -> None:
    comment = "".join(line for line in path.read_text().splitlines() if line.startswith("#"))
    named = re.findall(r"[\w-]+-(?:small|full)\.yaml", comment)
    assert [name for name in named if not (CONFIGS / name).exists()] == []
