"""Prometheus metrics, read from counters that are kept anyway: a request pays nothing for them."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from service.followers.canary import Canary
from service.journal import STAGES, Journal
from service.lanes import Lane
from service.models import Served

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


_HISTOGRAMS = {
    "neighbour_list_seconds": ("encode_s", "neighbour lists of a request"),
    "queue_seconds": ("queue_s", "from the lane's door to the first engine call of a request"),
    "collate_seconds": ("collate_s", "making one batch of the structures of an engine call"),
    "engine_seconds": ("engine_s", "the graph of an engine call"),
    "decode_seconds": ("decode_s", "taking the outputs of an engine call apart, verdicts included"),
    "batch_slots": ("batch_slots", "neighbour slots of an engine call, padding included"),
    "batch_structures": ("batch_samples", "structures of an engine call"),
}


class _Gateway(Collector):
    def __init__(
        self, answers: Answers, models: Callable[[], Iterable[Served]], canary: Canary, journal: Journal
    ) -> None:
        self._journal = journal
        self._answers = answers
        self._models = models
        self._canary = canary

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        answers = CounterMetricFamily("understudy_answers", "answers", labels=["route", "method", "status"])
        for (route, method, status), count in self._answers.items():
            answers.add_metric([route, method, str(status)], count)
        yield answers
        yield from _requests(self._journal)
        yield _info(self._models())
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
        for name, (attribute, meaning) in _HISTOGRAMS.items():
            yield _histogram(name, meaning, lanes, attribute)
        yield _family(GaugeMetricFamily, "waiting", "structures that wait", lanes, lambda lane: lane.waiting)
        yield _family(
            GaugeMetricFamily,
            "oldest_waiting_seconds",
            "for how long the oldest of them has waited",
            lanes,
            lambda lane: lane.waiting_s,
        )
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


def _histogram(name: str, meaning: str, lanes: Iterable[tuple[str, str, Lane]], attribute: str) -> Metric:
    family = HistogramMetricFamily(f"understudy_{name}", meaning, labels=["model", "graph"])
    for model, file, lane in lanes:
        histogram = getattr(lane.meter, attribute)
        family.add_metric([model, file], buckets=histogram.cumulative(), sum_value=histogram.sum)
    return family


def _requests(journal: Journal) -> Iterator[Metric]:
    """What became of requests; labels are ours, never a caller's, so that there are only so many."""
    refusals = CounterMetricFamily("understudy_refusals", "requests refused", labels=["protocol", "code"])
    for labels, count in journal.refusals.items():
        refusals.add_metric(labels, count)
    yield refusals
    left = CounterMetricFamily(
        "understudy_cancellations", "requests whose caller left, by how far they had come", labels=["stage"]
    )
    for stage in STAGES:
        left.add_metric([stage], journal.cancellations[stage])
    yield left
    slots = CounterMetricFamily("understudy_tenant_slots", "neighbour slots asked for", labels=["tenant"])
    for tenant, count in journal.tenant_slots.items():
        slots.add_metric([tenant], count)
    yield slots


def _info(models: Iterable[Served]) -> Metric:
    labels = ["model", "version", "digest", "engine", "device"]
    family = GaugeMetricFamily("understudy_model_info", "what is served, and by what", labels=labels)
    for model in models:
        family.add_metric([str(model.origin[name]) for name in labels], 1.0)
    return family


def _count_of(name: str) -> Callable[[Lane], float]:
    return lambda lane: float(getattr(lane.counts, name))


def registry_of(
    answers: Answers, models: Callable[[], Iterable[Served]], canary: Canary, journal: Journal
) -> CollectorRegistry:
    """A registry of its own for one gateway, so that two in one process do not meet."""
    registry = CollectorRegistry()
    registry.register(_Gateway(answers, models, canary, journal))
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """The text that Prometheus reads."""
    return generate_latest(registry)
