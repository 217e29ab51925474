"""Why no frames were made."""

from contract.errors import UnderstudyError


class NothingKept(UnderstudyError):
    """Every frame was left out: the limits of the configuration are too tight for this labeller."""
