"""Understudy from Python: energies, forces, stress and their uncertainty, from a gateway.

    from understudy import Client, UnderstudyCalculator

    prediction = Client("http://127.0.0.1:8000").predict("malonaldehyde", atoms)
    atoms.calc = UnderstudyCalculator("http://127.0.0.1:8000", "malonaldehyde")     # needs ASE

Units are ASE's: eV, angstrom, eV/angstrom, eV/angstrom^3 with tension positive.
"""

from typing import TYPE_CHECKING, Any

from understudy.client import AsyncClient, Client
from understudy.errors import (
    AmbiguousModel,
    BadAnswer,
    BadRequest,
    Busy,
    DeadlineExceeded,
    DigestMismatch,
    FramingError,
    InvalidImage,
    InvalidStructure,
    ModelChanged,
    NotAllowed,
    NotFound,
    NotReachable,
    OutOfDomain,
    Refused,
    ServerFault,
    TimedOut,
    TooLarge,
    Unavailable,
    UnderstudyError,
)
from understudy.predictions import Prediction
from understudy.retries import Retries
from understudy.rocks import Permeability
from understudy.structures import Structure
from understudy.version import VERSION

if TYPE_CHECKING:
    from understudy.calculator import OutOfDomainWarning, UnderstudyCalculator

__all__ = [
    "AmbiguousModel",
    "AsyncClient",
    "BadAnswer",
    "BadRequest",
    "Busy",
    "Client",
    "DeadlineExceeded",
    "DigestMismatch",
    "FramingError",
    "InvalidImage",
    "InvalidStructure",
    "ModelChanged",
    "NotAllowed",
    "NotFound",
    "NotReachable",
    "OutOfDomain",
    "OutOfDomainWarning",
    "Permeability",
    "Prediction",
    "Refused",
    "Retries",
    "ServerFault",
    "Structure",
    "TimedOut",
    "TooLarge",
    "Unavailable",
    "UnderstudyCalculator",
    "UnderstudyError",
    "__version__",
]

__version__ = VERSION
_NEEDS_ASE = ("OutOfDomainWarning", "UnderstudyCalculator")


def __getattr__(name: str) -> Any:
    """Import the calculator only where it is used: it needs ASE, the client does not."""
    if name not in _NEEDS_ASE:
        raise AttributeError(f"module 'understudy' has no attribute '{name}'")
    try:
        from understudy import calculator
    except ImportError as error:
        raise ImportError(f"{name} needs ASE: pip install ase") from error
    return getattr(calculator, name)
