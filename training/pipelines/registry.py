"""Which pipeline a configuration belongs to, and how its result becomes a candidate for the gate."""

from concurrent.futures import Executor
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, TypeAdapter

from training.checkpoint import Run
from training.fit import require_device
from training.pipelines.coarse_graining import CoarseGrainingConfig, train_coarse_graining
from training.pipelines.committee import CommitteeConfig, train_committee
from training.pipelines.distillation import DistillationConfig, train_student
from training.pipelines.learning import learn_metal
from training.pipelines.metal import MetalConfig
from training.pipelines.permeability import PermeabilityTraining
from training.pipelines.resumption import begin_run
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
        NotReady: the configuration's device is not there.
    """
    require_device(config.fit.device)
    begin_run(config, folder)
    if isinstance(config, CommitteeConfig):
        return train_committee(config, folder)
    if isinstance(config, CoarseGrainingConfig):
        return train_coarse_graining(config, folder)
    if isinstance(config, DistillationConfig):
        return train_student(config, folder)
    return train_taught(config, folder)


def read_learning_config(path: Path) -> LearningConfig:
    """Read a YAML configuration of active learning.

    Raises:
        pydantic.ValidationError: naming each field that is missing, unknown or out of range.
    """
    return LearningConfig.model_validate(yaml.safe_load(path.read_text()))


def learn_run(config: LearningConfig, folder: Path, executor: Executor) -> Run:
    """Run the loop that the configuration describes, or go on with one; `executor` runs the reference.

    Raises:
        OtherRun: the folder holds a loop of another configuration.
        NotReady: the configuration's device is not there.
    """
    require_device(config.fit.device)
    begin_run(config, folder)
    return learn_metal(config, folder, executor)
