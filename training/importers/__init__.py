"""Models that others trained, brought into the form of a training run."""
