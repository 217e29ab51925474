"""What stops a training command. Errors of the data, of imports and of the gate have rooms of their own."""

from contract.errors import UnderstudyError


class NotReady(UnderstudyError):
    """A command lacks what it needs: a run that is not finished, or a file that was not named."""
