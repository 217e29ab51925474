"""What `understudy train` and `understudy publish` do with a run, whatever its pipeline."""

import json
from pathlib import Path

from contract.repository import ModelRepository
from training import processes
from training.pipelines.admission import candidate_of
from training.pipelines.permeability import PermeabilityTraining, train_permeability
from training.pipelines.registry import AnyConfig, train_run
from training.pipelines.resumption import begin_run
from training.publish import publish
from training.publish_flow import publish_flow
from training.report import write_report
from training.report.flow import write_flow_report


def train_and_report(config: AnyConfig, folder: Path) -> Path | None:
    """Run the pipeline that the configuration names, and write its report.

    Returns:
        The path of the report; None in the further processes of a run on several.

    Raises:
        OtherRun: the folder holds a run of another configuration.
    """
    if not isinstance(config, PermeabilityTraining):
        train_run(config, folder)
        return write_report(folder) if processes.is_first() else None
    if not processes.is_first():
        return None
    begin_run(config, folder)
    train_permeability(config, folder)
    return write_flow_report(folder)


def publish_run(folder: Path, repository: ModelRepository) -> Path:
    """Put a finished run through the admission checks into the repository; the model's folder there."""
    record = folder / "run.json"
    if record.exists() and json.loads(record.read_text())["config"]["pipeline"] == "permeability":
        return publish_flow(folder, repository)
    return publish(candidate_of(folder), repository)
