"""Prometheus metrics of the two-speed surrogate and of the harvest, beside those of the gateway."""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from service.harvest import Harvest
from service.plane import Plane
from service.teachers import Ledger

_COUNTERS: Final[dict[str, tuple[str, Callable[[Ledger], float]]]] = {
    "teacher_unchecked": ("structures left unchecked because the teacher's share was spent", lambda o: o.refused),
    "teacher_seconds": ("engine seconds of the teacher's checks, by its batching curve", lambda o: o.teacher_s),
    "student_seconds": ("engine seconds of the student, by its batching curve", lambda o: o.student_s),
}


class Learning(Collector):
    """What the teachers and the harvest know, read when it is asked for."""

    def __init__(self, plane: Plane, harvest: Harvest | None) -> None:
        self._plane = plane
        self._harvest = harvest

    def collect(self) -> Iterator[Metric]:
        """All metrics, as they are now."""
        students = [model for model in self._plane.models.potentials if model.card.teacher is not None]
        ledgers = [(model.card.name, self._plane.teachers.ledger(model)) for model in students]
        checks = CounterMetricFamily("understudy_teacher_checks", "structures compared", labels=["model", "why"])
        energy = SummaryMetricFamily(
            "understudy_teacher_gap_energy_ev_per_atom", "size of the gap in energy", labels=["model"]
        )
        forces = SummaryMetricFamily(
            "understudy_teacher_gap_forces_ev_angstrom", "root mean square gap in forces", labels=["model"]
        )
        drift = GaugeMetricFamily("understudy_teacher_drift", "1: the student has drifted", labels=["model"])
        for name, ledger in ledgers:
            for why, count in ledger.checks.items():
                checks.add_metric([name, why], count)
            energy.add_metric([name], ledger.checks.total(), ledger.energy_sum)
            forces.add_metric([name], ledger.checks.total(), ledger.forces_sum)
            drift.add_metric([name], float(ledger.drifted))
        yield from (checks, energy, forces, drift)
        for metric, (meaning, value) in _COUNTERS.items():
            family = CounterMetricFamily(f"understudy_{metric}", meaning, labels=["model"])
            for name, ledger in ledgers:
                family.add_metric([name], value(ledger))
            yield family
        if self._harvest is not None:
            yield from _harvested(self._harvest)


def _harvested(harvest: Harvest) -> Iterator[Metric]:
    outcomes = CounterMetricFamily("understudy_harvest", "structures offered to the harvest", labels=["outcome"])
    for outcome, count in harvest.outcomes.items():
        outcomes.add_metric([outcome], count)
    yield outcomes
    yield GaugeMetricFamily("understudy_harvest_structures", "structures in the folder", value=harvest.structures)
    yield GaugeMetricFamily("understudy_harvest_bytes", "size of the folder", value=harvest.bytes)
