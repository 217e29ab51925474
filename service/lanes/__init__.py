"""The queues of the models: work-conserving batches by physical cost, fair among those who wait."""

from service.lanes.lane import Counts, Lane
from service.lanes.terms import PADDING, Bounds, Compute, Sample, Terms
from service.lanes.turns import Turns

__all__ = ["PADDING", "Bounds", "Compute", "Counts", "Lane", "Sample", "Terms", "Turns"]
