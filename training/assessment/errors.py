"""What stops an assessment.

AssessmentError
├── NoSuchModel        neither a published model nor a run
└── NothingToJudge     no labelled frame that the model can answer
"""

from contract.errors import UnderstudyError


class AssessmentError(UnderstudyError):
    """Root of all errors of this room."""


class NoSuchModel(AssessmentError):
    """A name under which there is neither a published model nor a run."""


class NothingToJudge(AssessmentError):
    """No labelled frame is left that the model can answer."""
