"""What stops a training command. Errors of the data, of imports and of the gate have rooms of their own."""

from contract.errors import UnderstudyError


class NotReady(UnderstudyError):
    """A run that cannot be published as it stands, or something that a run needs and that is not there."""
