"""Why no frames were made."""

from contract.errors import UnderstudyError


class NothingKept(UnderstudyError):
    """Every frame was left out: the limits of the configuration are too tight for this labeller."""


class LabellerNeeded(UnderstudyError):
    """A campaign was started without anything that labels, or with two such."""


class NoCommittee(UnderstudyError):
    """A model whose dynamics is to be followed has no members that could disagree."""


class NoSurvivor(UnderstudyError):
    """Trajectories all end before they have given a frame."""


class NoSuchMolecule(UnderstudyError):
    """A configuration names a molecule that is none."""
