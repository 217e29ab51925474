"""All checks of a version, and the refusal of one that fails any."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from contract.card import Check, ModelCard
from training.candidate import HeldOut
from training.gate import derivatives, isolation, meaning, papers, parity, size, symmetry
from training.gate.errors import Refused
from training.gate.files import inspect_files
from training.gate.submission import Submission
from training.networks.potential import Potential

Examination = Callable[[Submission], list[Check]]

PAPERS: Final[tuple[Examination, ...]] = (
    papers.units_declared,
    papers.signs_declared,
    papers.origins_declared,
    papers.references_complete,
    papers.digests_match,
)
BEHAVIOUR: Final[tuple[Examination, ...]] = (
    parity.formats_agree,
    parity.members_agree,
    parity.padding_is_nothing,
    parity.reference_reproduced,
    parity.weights_kept,
    derivatives.network_derivatives,
    derivatives.served_derivatives,
    derivatives.member_derivatives,
    symmetry.translation,
    symmetry.wrapping,
    symmetry.rotation,
    symmetry.permutation,
    size.twins,
    size.two_copies,
    size.doubled_cell,
    size.lone_atom,
    isolation.alone_or_batched,
    isolation.order_of_the_batch,
    isolation.sick_mate,
    meaning.cutoff_of_the_graph,
    meaning.energy_moves,
    meaning.elements_known,
    meaning.members_as_declared,
    meaning.labels_held_out,
    meaning.better_than_the_mean,
    meaning.unit_of_the_energies,
    meaning.answers_of_the_run,
)


def admit_files(folder: Path, subject: str) -> list[Check]:
    """Inspect a version's folder before anything in it is opened.

    Raises:
        Refused: naming each check that failed.
    """
    return _passed(subject, inspect_files(folder))


def admit(card: ModelCard, folder: Path, network: Potential, test: HeldOut) -> list[Check]:
    """Examine a version whose files were inspected.

    Args:
        card: the card it is to be served with.
        folder: the version's folder.
        network: what was exported, in any dtype; it is cast to float64.
        test: labelled frames that the network was not fitted to.

    Returns:
        Every check with what was measured and what is allowed.

    Raises:
        Refused: naming each check that failed.
    """
    return examine(Submission.of(card, folder, network, test))


def examine(submission: Submission) -> list[Check]:
    """Run every examination of an opened version; nothing is run on papers that are wrong.

    Raises:
        Refused: naming each check that failed.
    """
    subject = f"{submission.card.name} version {submission.card.version}"
    checks = _passed(subject, _examined(submission, PAPERS))
    return _passed(subject, checks + _examined(submission, BEHAVIOUR))


def _examined(submission: Submission, examinations: Sequence[Examination]) -> list[Check]:
    with np.errstate(all="ignore"):
        return [check for examination in examinations for check in _survived(examination, submission)]


def _survived(examination: Examination, submission: Submission) -> list[Check]:
    """Its checks, or the failure that a graph which cannot run at all is."""
    try:
        return examination(submission)
    except Exception as error:  # noqa: BLE001 (engines share no base of errors, and a crash is a result here)
        name = f"{examination.__module__.rsplit('.', 1)[-1]}.{examination.__name__}"
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return [Check(name=f"{name} can run", measured=1, bound=0, unit="crashes", detail=reason)]


def _passed(subject: str, checks: list[Check]) -> list[Check]:
    failed = [check for check in checks if not check.passed]
    if failed:
        raise Refused(subject, failed)
    return checks
