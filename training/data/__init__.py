"""Training data: read real formats, refuse what is unsound, split without leaks. Everything in eV and angstrom."""

from training.data.dataset import Dataset
from training.data.spec import DataSpec, load

__all__ = ["DataSpec", "Dataset", "load"]
