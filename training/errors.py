"""What stops a training command. Errors of the data, of imports and of the gate have rooms of their own."""

from contract.errors import UnderstudyError


class NotReady(UnderstudyError):
    """A run that is not there, or that cannot be published as it stands."""
