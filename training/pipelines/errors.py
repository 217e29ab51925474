"""Why a pipeline cannot begin."""

from contract.errors import UnderstudyError


class NotEnoughLabels(UnderstudyError):
    """A campaign that was not run, or that leaves a part of the data empty."""


class OtherRun(UnderstudyError):
    """A folder that holds a run of another configuration."""
