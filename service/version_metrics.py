"""Prometheus metrics of versions: which are loaded and promoted, how loading went, what the shadows show."""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from service.followers.shadow import Shadow
from service.models import Served
from service.operator import Operator

_COUNTED: dict[str, str] = {
    "requests": "requests that the shadow has followed",
    "structures": "structures on which the shadow was compared",
    "failed": "requests that the shadow gave no answer to",
    "missed": "requests that the shadow did not follow because the gateway was busy",
}
_MEASURED: dict[str, tuple[str, Callable[[Shadow], float]]] = {
    "energy_rms_mev_per_atom": ("difference of energies", lambda shadow: shadow.energy.rms),
    "energy_max_mev_per_atom": ("largest difference of energies", lambda shadow: shadow.energy.largest),
    "forces_rms_ev_per_angstrom": ("difference of force components", lambda shadow: shadow.forces.rms),
    "forces_max_ev_per_angstrom": ("largest difference of force components", lambda shadow: shadow.forces.largest),
    "latency_ratio": ("time of its answers over the promoted version's", lambda shadow: shadow.latency_ratio or 0.0),
}


class VersionMetrics(Collector):
    """Reads the operator's books when Prometheus asks."""

    def __init__(self, operator: Operator) -> None:
        self._operator = operator

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        yield from self._versions()
        yield from self._shadows()

    def _versions(self) -> Iterator[Metric]:
        loaded = GaugeMetricFamily(
            "understudy_version",
            "1: it answers those who name no version; 0: loaded",
            labels=["model", "version", "digest"],
        )
        first = CounterMetricFamily(
            "understudy_first_runs", "shapes first run after the version was ready", labels=["model", "version"]
        )
        for model in self._operator.models.every():
            name, version = model.card.name, model.version
            loaded.add_metric([name, version, model.stored.digest], float(self._is_promoted(model)))
            first.add_metric([name, version], model.warm.first_runs)
        loads = CounterMetricFamily("understudy_loads", "versions loaded on command", labels=["model", "outcome"])
        for (name, outcome), count in self._operator.loads.items():
            loads.add_metric([name, outcome], count)
        yield from (loaded, first, loads)

    def _shadows(self) -> Iterator[Metric]:
        shadows = list(self._operator.shadows)
        for name, meaning in _COUNTED.items():
            family = CounterMetricFamily(f"understudy_shadow_{name}", meaning, labels=["model", "version"])
            for shadow in shadows:
                family.add_metric([shadow.model.card.name, shadow.model.version], getattr(shadow, name))
            yield family
        measured = {name: (meaning, value) for name, (meaning, value) in _MEASURED.items()}
        measured["drifted"] = (
            "1: it differs by more than is allowed",
            lambda shadow: float(bool(shadow.drift(self._operator.shadows.demands))),
        )
        for name, (meaning, value) in measured.items():
            gauge = GaugeMetricFamily(f"understudy_shadow_{name}", meaning, labels=["model", "version"])
            for shadow in shadows:
                gauge.add_metric([shadow.model.card.name, shadow.model.version], value(shadow))
            yield gauge

    def _is_promoted(self, model: Served) -> bool:
        return self._operator.models.promoted(model.card.name) is model
