"""What the opening of a model of any family shares."""

from contract.card import AnyCard
from contract.errors import BrokenGraph
from contract.repository import StoredModel
from service.engines import Engine
from service.lanes import Bounds
from service.settings import Limits


def does_not_run(stored: StoredModel, file: str, error: Exception) -> BrokenGraph:
    """What to say of a graph that an engine failed on, with the first line of its reason."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return BrokenGraph(f"model '{stored.card.name}' version {stored.card.version}: {file} does not run: {reason}")


def bounds_of(card: AnyCard, limits: Limits, engine: Engine) -> Bounds:
    """Sizes by the card's curve; how fast a worker is only if the curve was measured on this kind of engine."""
    curve, here = card.batching, engine.description
    best = min(curve.points, key=lambda p: p.milliseconds / p.slots, default=None)
    measured = curve.engine.split()[0] == here.engine and curve.device == here.device
    seconds = best.milliseconds / best.slots / 1e3 if best and measured else 0.0
    return Bounds(curve.best_slots, limits.queued_structures, limits.queued_slots, seconds, curve.gains)
