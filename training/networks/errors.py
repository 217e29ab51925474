"""Why weights from elsewhere cannot become one of our networks.

NetworkError
├── UnknownWeights          not the weights of a hippynn network
├── AmbiguousWeights        several networks or several energies in one file
└── UnsupportedNetwork      a variant that HipNN does not have
"""

from contract.errors import UnderstudyError


class NetworkError(UnderstudyError):
    """Root of all errors of the networks' room."""


class UnknownWeights(NetworkError):
    """Tensors that are not, or not completely, those of a hippynn network with its energy."""


class AmbiguousWeights(NetworkError):
    """More than one network or energy, and nothing that says which is meant."""


class UnsupportedNetwork(NetworkError):
    """A network whose function HipNN cannot represent."""
