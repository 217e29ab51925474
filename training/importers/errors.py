"""Why a model that someone else trained was not imported. Weights that do not fit raise training.networks.errors.

ImportRefused
├── UnreadableCheckpoint    no file, or not one of tensors and plain values
├── MissingSettings         what the weights do not hold was not given
├── ConflictingSettings     what was given contradicts the experiment's own file
└── UnsupportedExperiment   an experiment whose energy is more than one network and its readout
"""

from contract.errors import UnderstudyError


class ImportRefused(UnderstudyError):
    """Root of all errors of the importers."""


class UnreadableCheckpoint(ImportRefused):
    """A file that is missing or holds more than tensors and plain values."""


class MissingSettings(ImportRefused):
    """Settings that stand in no file that may be read."""


class ConflictingSettings(ImportRefused):
    """Two sources that disagree on the same setting."""


class UnsupportedExperiment(ImportRefused):
    """A model of which only a part could be imported."""
