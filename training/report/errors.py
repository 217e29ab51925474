"""Errors of a run, and of what it is compared with, as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contract.card import Metric
from training.evaluation import energy_metrics, force_metrics_by_stratum, metrics_by_stratum
from training.report.folder import Finished, Part

_ENERGY: Final = ("energy MAE", "energy RMSE")
_FORCES: Final = ("forces MAE", "forces RMSE")
_UNITS: Final = {"energy": "meV", "forces": "meV/Å"}

Row = tuple[str, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Table:
    """Text by row and column; the first column names the row. `emphasised` is the index of a row, -1 for none."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    emphasised: int = -1


def test_errors(finished: Finished) -> Table:
    """The test part: the mean predictor, other comparisons, one member, the mean of the members."""
    rows: list[Row] = [(c.name, _by_name(c.metrics)) for c in finished.comparisons]
    if finished.members > 1:
        rows.append((f"one member of this run, mean of {finished.members}", _mean_member(finished.test)))
    rows.append((this_run(finished), _by_name(finished.test.metrics())))
    return _table("test part", rows, emphasised=len(rows) - 1)


def errors_by_part(finished: Finished) -> Table:
    """This run on the part that chose its weights, and on the part that nothing saw."""
    return _table(
        this_run(finished),
        [
            (f"validation, {len(finished.valid.reference):,} frames", _by_name(finished.valid.metrics())),
            (f"test, {len(finished.test.reference):,} frames", _by_name(finished.test.metrics())),
        ],
    )


def errors_by_stratum(finished: Finished) -> Table:
    """The test part by stratum: this run beside its comparisons."""
    test = finished.test
    ours = metrics_by_stratum(test.energies.error, test.strata)[2:]
    others = [(c.name, _by_name(c.metrics)) for c in finished.comparisons]
    forces = _by_name([] if test.force_error is None else _forces(test.force_error, test))
    rows = []
    for (stratum, inside), mae, rmse in zip(test.strata.items(), ours[::2], ours[1::2], strict=True):
        rows.append([stratum, f"{inside.sum():,}", short(mae.value), short(rmse.value)])
        rows[-1] += [short(forces[f"forces ({stratum}) {kind}"]) for kind in ("MAE", "RMSE") if forces]
        rows[-1] += [short(by_name[mae.name]) if mae.name in by_name else "" for _, by_name in others]
    head = ["frames", "number", "MAE (meV)", "RMSE (meV)"]
    head += ["forces MAE (meV/Å)", "forces RMSE (meV/Å)"] if forces else []
    return Table(head + [f"MAE of {name} (meV)" for name, _ in others], rows)


def _forces(error: NDArray[np.float64], part: Part) -> list[Metric]:
    return force_metrics_by_stratum(error, part.sizes, part.strata)


def errors_by_member(finished: Finished) -> Table:
    """Every member by itself on the validation and test parts."""
    rows: list[list[str]] = []
    for m in range(finished.members):
        row = [f"member {m}"]
        for part in finished.parts.values():
            row += [short(metric.value) for metric in _member(part, m)]
        rows.append(row)
    head = [f"{part} {name} (meV)" for part in ("validation", "test") for name in ("MAE", "RMSE")]
    return Table(["energies", *head], rows)


def this_run(finished: Finished) -> str:
    """What the run's own line is called."""
    return "this run, mean of its members" if finished.members > 1 else "this run"


def short(value: float) -> str:
    """Three significant digits, no exponent for what people read."""
    if not np.isfinite(value):
        return "n/a"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def _table(corner: str, rows: Sequence[Row], emphasised: int = -1) -> Table:
    columns = [name for name in (*_ENERGY, *_FORCES) if any(name in by_name for _, by_name in rows)]
    head = [f"{name} ({_UNITS[name.split()[0]]})" for name in columns]
    texts = [[name, *(short(by_name[c]) if c in by_name else "" for c in columns)] for name, by_name in rows]
    return Table([corner, *head], texts, emphasised)


def _by_name(metrics: Sequence[Metric]) -> dict[str, float]:
    return {metric.name: metric.value for metric in metrics}


def _member(part: Part, m: int) -> list[Metric]:
    return energy_metrics(part.energies.energy[m] - part.energies.target)


def _mean_member(part: Part) -> dict[str, float]:
    members = [_by_name(_member(part, m)) for m in range(len(part.energies.energy))]
    return {name: float(np.mean([member[name] for member in members])) for name in _ENERGY}
