"""Everything that can be wrong with an input or a model folder.

UnderstudyError
├── InvalidInput                what a caller sent; carries code, status, hint and facts
│   ├── MalformedInput          not the shape or type that was asked for (400)
│   │   ├── BadShape
│   │   ├── BadType
│   │   └── NonFinite
│   ├── UnphysicalInput         well-formed, but not physics (422)
│   │   ├── EmptyStructure
│   │   ├── UnknownElement
│   │   ├── CoordinateRange
│   │   ├── CoincidentAtoms
│   │   ├── ImpossibleDistances
│   │   ├── MissingCell
│   │   └── SingularCell
│   └── TooLarge                over a limit (413)
└── RepositoryError             a model folder that must not be served
    ├── ModelNotFound
    ├── InvalidCard
    ├── DigestMismatch
    ├── NotReproduced
    ├── UnsafeArtefact
    ├── BrokenGraph
    └── VersionExists
"""

from typing import Any, ClassVar


class UnderstudyError(Exception):
    """Root of all errors raised by Understudy on purpose."""


class InvalidInput(UnderstudyError):
    """An input that is refused.

    Args:
        detail: what is wrong and where.
        hint: what to do about it.
        facts: typed particulars (field, structure index, atoms, limit, got, unit).
    """

    code: ClassVar[str] = "invalid_input"
    status: ClassVar[int] = 400
    title: ClassVar[str] = "Invalid input"

    def __init__(self, detail: str, *, hint: str, **facts: Any) -> None:
        super().__init__(f"{detail} {hint}")
        self.detail = detail
        self.hint = hint
        self.facts = facts


class MalformedInput(InvalidInput):
    """Not of the shape or type that was asked for."""

    code = "malformed_input"
    title = "Malformed input"


class BadShape(MalformedInput):
    """An array is not of the shape that was asked for."""

    code = "bad_shape"
    title = "Wrong shape"


class BadType(MalformedInput):
    """Text, booleans or nulls where numbers were asked for, or the reverse."""

    code = "bad_type"
    title = "Wrong type"


class NonFinite(MalformedInput):
    """NaN or infinity."""

    code = "non_finite"
    title = "Not a finite number"


class UnphysicalInput(InvalidInput):
    """Well-formed, but not physics."""

    code = "unphysical_input"
    status = 422
    title = "Unphysical input"


class EmptyStructure(UnphysicalInput):
    """A structure without atoms."""

    code = "empty_structure"
    title = "Empty structure"


class UnknownElement(UnphysicalInput):
    """An atomic number that is no element."""

    code = "unknown_element"
    title = "Unknown element"


class CoordinateRange(UnphysicalInput):
    """Atoms absurdly far from the origin."""

    code = "coordinate_range"
    title = "Coordinates out of range"


class CoincidentAtoms(UnphysicalInput):
    """Two atoms at one place."""

    code = "coincident_atoms"
    title = "Coincident atoms"


class ImpossibleDistances(UnphysicalInput):
    """Most atoms are nearer to another than any two nuclei in matter: most likely a wrong unit of length."""

    code = "impossible_distances"
    title = "Impossible distances"


class MissingCell(UnphysicalInput):
    """Periodic, but without lattice vectors."""

    code = "missing_cell"
    title = "Periodic without a cell"


class SingularCell(UnphysicalInput):
    """Lattice vectors that span no volume."""

    code = "singular_cell"
    title = "Singular cell"


class TooLarge(InvalidInput):
    """Over a limit of the model or the server."""

    code = "cost_over_limit"
    status = 413
    title = "Structure too large"


class RepositoryError(UnderstudyError):
    """A model folder that cannot be served as it stands."""


class ModelNotFound(RepositoryError):
    """No model, or no version of it, under that name."""


class InvalidCard(RepositoryError):
    """card.json is missing, unreadable or incomplete."""


class DigestMismatch(RepositoryError):
    """A file differs from the sha256 on its card."""


class NotReproduced(RepositoryError):
    """A graph does not give the answers that were stored beside it when it was admitted."""


class UnsafeArtefact(RepositoryError):
    """A file that could reach outside its folder: a link, or ONNX external data."""


class BrokenGraph(RepositoryError):
    """A graph that does not run."""


class VersionExists(RepositoryError):
    """A version is written once: another model needs another number."""
