"""Why a loop of active learning cannot go on."""

from contract.errors import UnderstudyError


class NoPool(UnderstudyError):
    """Workers that cannot be had."""


class WorkersLost(UnderstudyError):
    """Workers that ended before they had answered."""
