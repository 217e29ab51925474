"""Two models on the same frames: which errs less, beyond what the choice of frames could do, and what each costs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from contract.elements import hill_formula
from training.assessment.bootstrap import Array, Errors, Estimate, Sums, draws, errors, estimate
from training.assessment.evaluate import joined, molecules_of, sums_of
from training.assessment.judged import Answers, Judged, ask, milliseconds
from training.assessment.labelled import Reading, answerable, read_labelled
from training.data.dataset import Dataset

UNDECIDED: Final = "undecided"


@dataclass(frozen=True, slots=True)
class Contest:
    """One quantity of both models: errors of A and B, B's less A's on the same draws, and who errs less."""

    first: Errors
    second: Errors
    mae_difference: Estimate
    rmse_difference: Estimate
    better: str


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Two models on the same frames.

    Attributes:
        models: A and B.
        dataset: frames that both can answer.
        answers: of each.
        drawn: what was drawn for the intervals.
        contests: by quantity.
        milliseconds: one structure alone, energy and forces, on one thread, of each.
        left_out: frames that one of them cannot answer.
    """

    models: tuple[Judged, Judged]
    dataset: Dataset
    answers: tuple[Answers, Answers]
    drawn: str
    contests: dict[str, Contest]
    milliseconds: tuple[float, float]
    left_out: int


def compare(first: Judged, second: Judged, files: Sequence[Path], how: Reading | None = None) -> Comparison:
    """Ask both models for everything that both can answer.

    Raises:
        DataError: files that cannot be read.
        NothingToJudge: no frame that both can answer.
    """
    models = (first, second)
    read = [answerable(read_labelled(path, how or Reading()), models) for path in files]
    dataset = joined(read)
    structures = list(dataset)
    answers = (ask(first, structures), ask(second, structures))
    formulas = np.array([hill_formula(structure.numbers) for structure in structures])
    molecule, drawn = molecules_of(dataset, formulas)
    sums = [sums_of(dataset, answer, formulas, molecule) for answer in answers]
    times = draws(int(molecule.max()) + 1)
    return Comparison(
        models=models,
        dataset=dataset,
        answers=answers,
        drawn=drawn,
        contests={name: _contest(sums[0][name], sums[1][name], models, times) for name in sums[0]},
        milliseconds=(milliseconds(first, structures), milliseconds(second, structures)),
        left_out=sum(r.unknown for r in read),
    )


def _contest(first: Sums, second: Sums, models: tuple[Judged, Judged], drawn: Array) -> Contest:
    mae = _apart(first.mae(drawn), second.mae(drawn), drawn)
    rmse = _apart(first.rmse(drawn), second.rmse(drawn), drawn)
    return Contest(errors(first, drawn), errors(second, drawn), mae, rmse, _better(mae, models))


def _apart(first: Array, second: Array, drawn: Array) -> Estimate:
    """B's error less A's, on the very same draws."""
    return estimate(second - first, drawn.shape[1])


def _better(difference: Estimate, models: tuple[Judged, Judged]) -> str:
    """Whose mean absolute error is lower on 95 % of the draws and more."""
    if difference.high < 0.0:
        return models[1].name
    return models[0].name if difference.low > 0.0 else UNDECIDED
