"""Which pipeline a configuration belongs to, and how its result becomes a candidate for the gate."""

from concurrent.futures import Executor
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, Field, TypeAdapter

from training import processes
from training.checkpoint import Run
from training.pipelines.coarse_graining import CoarseGrainingConfig, train_coarse_graining
from training.pipelines.committee import CommitteeConfig, train_committee
from training.pipelines.distillation import DistillationConfig, train_student
from training.pipelines.learning import learn_metal
from training.pipelines.metal import MetalConfig
from training.pipelines.permeability import PermeabilityTraining
from training.pipelines.resumption import CONFIG, refuse_another
from training.pipelines.teacher_student import TeacherStudentConfig, train_taught

PotentialConfig = CommitteeConfig | DistillationConfig | TeacherStudentConfig | CoarseGrainingConfig
AnyConfig = PotentialConfig | PermeabilityTraining
PipelineConfig = Annotated[AnyConfig, Field(discriminator="pipeline")]
_ADAPTER: TypeAdapter[AnyConfig] = TypeAdapter(PipelineConfig)
LearningConfig = MetalConfig


def read_config(path: Path) -> AnyConfig:
    """Read a YAML configuration.

    Raises:
        pydantic.ValidationError: naming each field that is missing, unknown or out of range.
    """
    return _ADAPTER.validate_python(yaml.safe_load(path.read_text()))


def train_run(config: PotentialConfig, folder: Path) -> Run:
    """Run the pipeline of a potential, in this process or in several (training/processes.py).

    Raises:
        OtherRun: the folder holds a run of another configuration.
    """
    begin_run(config, folder)
    if isinstance(config, CommitteeConfig):
        return train_committee(config, folder)
    if isinstance(config, CoarseGrainingConfig):
        return train_coarse_graining(config, folder)
    if isinstance(config, DistillationConfig):
        return train_student(config, folder)
    return train_taught(config, folder)


def begin_run(config: AnyConfig, folder: Path) -> None:
    """Keep the configuration with its run, new or interrupted.

    Raises:
        OtherRun: the folder holds checkpoints of another configuration.
    """
    refuse_another(config, folder)
    write_config(config, folder)


def write_config(config: BaseModel, folder: Path) -> None:
    """Keep the configuration with its run."""
    folder.mkdir(parents=True, exist_ok=True)
    if processes.is_first():
        part = folder / f"{CONFIG}.part"
        part.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
        part.replace(folder / CONFIG)


def read_learning_config(path: Path) -> LearningConfig:
    """Read a YAML configuration of active learning.

    Raises:
        pydantic.ValidationError: naming each field that is missing, unknown or out of range.
    """
    return LearningConfig.model_validate(yaml.safe_load(path.read_text()))


def learn_run(config: LearningConfig, folder: Path, executor: Executor) -> Run:
    """Run the loop that the configuration describes, or go on with one; `executor` runs the reference."""
    folder.mkdir(parents=True, exist_ok=True)
    run = learn_metal(config, folder, executor)
    write_config(config, folder)
    return run
