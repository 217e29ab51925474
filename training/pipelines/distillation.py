"""A light student of a committee: reference energies, and the committee's mean forces where no forces exist.

Ensemble knowledge distillation, Matin et al., arXiv:2503.14293:

    teachers     <- a committee trained on energies (pipelines/committee.py)
    F(x)         <- mean force of the teachers, once, for every configuration
    student      <- minimise <E_hat, E> + w_F <F_hat, F>,  E the reference energy, not the teachers' mean

The student here is a small committee itself, so that its answers carry an uncertainty. Its members share one fixed set
of sensitivities and are trained apart, each from its own seed.
"""

from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from rich.console import Console

from training.batches import LabelledGraphs
from training.checkpoint import Run, load_run, save_run
from training.data.checks import require_known
from training.evaluation import predict_forces, predict_member_forces, save_predictions
from training.fit import FitConfig
from training.networks.hipnn import HipNN, HipNNConfig
from training.objectives.forces import EnergyForceObjective
from training.pipelines.committee import CommitteeConfig, validation
from training.pipelines.members import cpu_seconds, train_apart
from training.pipelines.preparation import Prepared, member_weights, prepare
from training.record import run_record

HELD_OUT: Final[tuple[Literal["valid"], Literal["test"]]] = ("valid", "test")
STAND_IN: Final = "one of its teachers for each frame, drawn at random, as the data hold no forces"


class DistillationConfig(BaseModel):
    """A student of a committee that has been trained; it takes the committee's data and split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: Literal["distillation"] = "distillation"
    name: str
    purpose: str
    teacher: str
    network: HipNNConfig
    forces: EnergyForceObjective = EnergyForceObjective()
    fit: FitConfig = FitConfig()


def train_student(config: DistillationConfig, folder: Path) -> Run:
    """Train the student of the run that lies beside `folder` under the teacher's name, and save it in `folder`."""
    teacher = load_run(folder.parent / config.teacher)
    taught = CommitteeConfig.model_validate(teacher.record["config"])
    prepared = replace(prepare(taught.data, taught.split), references=teacher.references)
    require_known(prepared.dataset, config.network.elements)
    train = _labelled(teacher.network, prepared, "train", config, taught)
    valid = _labelled(teacher.network, prepared, "valid", config, taught)
    alone = taught.model_copy(update={"forces": config.forces, "fit": config.fit})
    value, title = validation(valid, alone), f"training {config.name}"
    network, history = train_apart(config.network, config.forces, train, value, config.fit, folder, title)
    record = run_record(config, prepared, history) | {"cpu_seconds": cpu_seconds(history)}
    run = Run(network, prepared.references, record)
    save_run(folder, run)
    save_predictions(folder, run.network, prepared, one_teacher_each(teacher.network, prepared, config.fit.seed))
    return run


def one_teacher_each(teacher: HipNN, prepared: Prepared, seed: int) -> dict[str, NDArray[np.float32]]:
    """For each held-out frame the forces of one teacher drawn at random, eV/angstrom [A, 3] by part.

    They stand in for labels where the data have none. The teachers' mean would not do: it is nearer to the student than
    the truth is, by the teachers' own error, which scatters about as their members do.
    """
    generator = np.random.default_rng(seed)
    drawn: dict[str, NDArray[np.float32]] = {}
    for part in HELD_OUT:
        graphs = prepared.graphs(part, teacher.config.cutoff_angstrom)
        each = predict_member_forces(teacher, graphs)
        who = generator.integers(0, len(each), len(graphs.graphs))
        atom_of = np.repeat(who, [graph.n_atoms for graph in graphs.graphs])
        drawn[part] = each[atom_of, np.arange(len(atom_of))]
    return drawn


def _labelled(
    teacher: HipNN,
    prepared: Prepared,
    part: Literal["train", "valid"],
    config: DistillationConfig,
    taught: CommitteeConfig,
) -> LabelledGraphs:
    """Graphs of a part with the reference energies and the teachers' mean forces."""
    cutoffs = {teacher.config.cutoff_angstrom, config.network.cutoff_angstrom}
    with Console(stderr=True).status(f"the teachers label the {part} part"):
        seen = prepared.graphs(part, teacher.config.cutoff_angstrom)
        _, forces = predict_forces(teacher, seen)
        own = seen if len(cutoffs) == 1 else prepared.graphs(part, config.network.cutoff_angstrom)
    ends = np.cumsum([graph.n_atoms for graph in own.graphs])[:-1]
    weight = member_weights(own.energy, config.network.members, taught.energy_scale_ev, folds=0, seed=0)
    return replace(own, forces=np.split(forces, ends), weight=weight)
