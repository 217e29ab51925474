"""Why a liquid cannot be coarse-grained.

CoarseGrainingError
├── BadMapping       groups that share atoms, are empty, or reach across half of the cell
├── BadFrames        a file that does not hold bead frames with forces and states
└── Unresolved       too little data for what was asked
"""

from contract.errors import UnderstudyError


class CoarseGrainingError(UnderstudyError):
    """Root of all errors of this room."""


class BadMapping(CoarseGrainingError):
    """Groups of atoms that cannot be beads."""


class BadFrames(CoarseGrainingError):
    """A file that does not hold bead frames with forces and states."""


class Unresolved(CoarseGrainingError):
    """Too little data for what was asked."""
