"""Everything that can be wrong with training data, before any training.

DataError
├── UnreadableData      a file that is not in the format it was said to be; names the line, frame or group
├── InconsistentData    arrays of one data set that do not belong together
├── EmptyData           a cut or a selection that leaves nothing
├── UnsoundData         labels or geometries that must not be trained on; carries the findings
├── TooAlike            so many copies of a frame that comparing them is hopeless
├── CannotSplit         parts that cannot be made as asked
└── FetchError
    ├── UnknownDataset  no public data set under that name
    ├── Unreachable     the file is neither here nor downloadable; says where to put it
    └── HashMismatch    the file is not the one that was pinned
"""

from contract.errors import UnderstudyError


class DataError(UnderstudyError):
    """Root of all errors of the data room."""


class UnreadableData(DataError):
    """A file that is not in the format it was said to be."""


class InconsistentData(DataError):
    """Arrays of one data set whose shapes or lengths disagree."""


class EmptyData(DataError):
    """A cut or a selection that leaves no frame."""


class TooAlike(DataError):
    """So many frames within a tolerance of each other that their pairs do not fit in memory."""


class CannotSplit(DataError):
    """Parts that cannot be made as asked."""


class FetchError(DataError):
    """A public data set that could not be had."""


class UnknownDataset(FetchError):
    """No public data set under that name."""


class Unreachable(FetchError):
    """The file is not in the cache and could not be downloaded."""


class HashMismatch(FetchError):
    """The file is not the one whose sha256 was pinned."""
