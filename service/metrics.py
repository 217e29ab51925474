"""Prometheus metrics, read from counters that are kept anyway: a request pays nothing for them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.followers.canary import Canary
from service.lanes import Lane
from service.models import Model

Answers = Counter[tuple[str, str, int]]
_LANE_COUNTERS = {
    "batches": "engine calls begun",
    "samples": "structures in engine calls",
    "slots": "neighbour slots in engine calls, padding included",
    "refused": "requests refused because the queue was full",
    "refused_share": "requests refused because their tenant had its share of the queue",
    "refused_budget": "requests refused because their tenant's budget was used up",
    "refused_deadline": "requests refused because they could not be answered in their time",
    "expired": "requests whose time was over before their answer was there",
    "cancelled": "requests whose caller left",
    "stopped": "engine calls stopped because nobody waited for them any more",
    "repeated": "structures run again after their batch failed",
    "out_of_memory": "engine calls for which memory was short",
}


class _Gateway(Collector):
    def __init__(self, answers: Answers, models: Callable[[], Iterable[Model]], canary: Canary) -> None:
        self._answers = answers
        self._models = models
        self._canary = canary

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        answers = CounterMetricFamily("understudy_answers", "answers", labels=["route", "method", "status"])
        for (route, method, status), count in self._answers.items():
            answers.add_metric([route, method, str(status)], count)
        yield answers
        yield CounterMetricFamily(
            "understudy_isolation_checks", "structures that were run again alone", value=self._canary.checked
        )
        yield CounterMetricFamily(
            "understudy_isolation_violations",
            "structures whose answer was another one alone: must stay 0",
            value=self._canary.violations,
        )
        lanes = [(model.card.name, file, lane) for model in self._models() for file, lane in model.lanes.items()]
        for name, meaning in _LANE_COUNTERS.items():
            yield _family(CounterMetricFamily, name, meaning, lanes, _count_of(name))
        yield _family(GaugeMetricFamily, "waiting", "structures that wait", lanes, lambda lane: lane.waiting)
        yield _family(
            GaugeMetricFamily, "waiting_slots", "neighbour slots that wait", lanes, lambda lane: lane.waiting_slots
        )
        yield _family(
            GaugeMetricFamily,
            "batch_budget_slots",
            "neighbour slots of a batch at most: less than the model's best where memory was short",
            lanes,
            lambda lane: lane.budget_slots,
        )
        yield _family(
            GaugeMetricFamily,
            "batching",
            "1 if structures share batches; 0 if the model loses by it, or after an isolation violation",
            lanes,
            lambda lane: lane.together,
        )


def _family(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    meaning: str,
    lanes: Iterable[tuple[str, str, Lane]],
    value: Callable[[Lane], float],
) -> Metric:
    family = kind(f"understudy_{name}", meaning, labels=["model", "graph"])
    for model, file, lane in lanes:
        family.add_metric([model, file], value(lane))
    return family


def _count_of(name: str) -> Callable[[Lane], float]:
    return lambda lane: float(getattr(lane.counts, name))


def registry_of(answers: Answers, models: Callable[[], Iterable[Model]], canary: Canary) -> CollectorRegistry:
    """A registry of its own for one gateway, so that two in one process do not meet."""
    registry = CollectorRegistry()
    registry.register(_Gateway(answers, models, canary))
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """The text that Prometheus reads."""
    return generate_latest(registry)
