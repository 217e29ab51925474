"""Why a loop of active learning cannot go on."""

from contract.errors import UnderstudyError


class OtherLoop(UnderstudyError):
    """A folder that holds a loop of another configuration."""


class NoPool(UnderstudyError):
    """Workers that cannot be had."""


class WorkersLost(UnderstudyError):
    """Workers that ended before they had answered."""
