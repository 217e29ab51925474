"""How well permeabilities are predicted, and what simple formulas make of the same images.

Kozeny-Carman   k = phi^3 / (c S^2), phi connected porosity, S pore surface over bulk volume, c fitted
regression      ridge of log k on the logarithms of porosity, surface, and moments of the distance to the wall
parabola        the field a (d - 1/2)^2 of the distance d to the wall, a fitted
conduction      the estimate that the networks add to (contract/conduction.py), times a fitted factor; and with the
                logarithm of the estimate as one more feature of the regression
mean            one value for all
Each is fitted in log k on the training part; the ridge's strength is chosen on the validation part.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from contract.card import Comparison, Metric

Array = NDArray[np.float64]
Table = Mapping[str, NDArray[Any]]

FLOOR: Final = 1e-6
"""voxel^2: a permeability below it, or below zero, counts as so much."""
RIDGES: Final = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
MEAN: Final = "mean predictor"
_FEATURES: Final = ("porosity", "connected_porosity", "surface", "mean_distance", "scale_squared", "parabola")
_WITH_CONDUCTION: Final = (*_FEATURES, "conduction")


def load_tables(folder: Path) -> dict[str, dict[str, NDArray[Any]]]:
    """predictions.npz of a run by part, then by quantity."""
    with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
        tables: dict[str, dict[str, NDArray[Any]]] = {}
        for name in arrays.files:
            part, _, quantity = name.partition("/")
            tables.setdefault(part, {})[quantity] = arrays[name]
    return tables


def network_permeability(table: Table) -> Array:
    """Mean of the members, voxel^2 [n]."""
    return np.asarray(np.maximum(FLOOR, table["members"].mean(axis=1)))


def log_spread(table: Table) -> Array:
    """Sample standard deviation over members of log k, [n]."""
    return np.asarray(np.log(np.maximum(FLOOR, table["members"])).std(axis=1, ddof=1))


def log_error(table: Table) -> Array:
    """Log of predicted over true permeability, [n]."""
    return np.asarray(np.log(network_permeability(table) / table["permeability"]))


def baselines(tables: Mapping[str, Table], part: str = "test") -> dict[str, Array]:
    """Permeabilities of a part, voxel^2 [n], by what simple formulas fitted to the training part say."""
    train, other = tables["train"], tables[part]
    log_k = np.log(train["permeability"])
    return {
        "conduction": _scaled(train["conduction"], log_k) * other["conduction"],
        "regression with conduction": np.exp(_ridge(tables, other, _WITH_CONDUCTION)),
        "regression": np.exp(_ridge(tables, other, _FEATURES)),
        "Kozeny-Carman": _scaled(_kozeny(train), log_k) * _kozeny(other),
        "local parabola": _scaled(train["parabola"], log_k) * other["parabola"],
        MEAN: np.full(len(other["permeability"]), np.exp(log_k.mean())),
    }


def permeability_metrics(predicted: Array, true: Array) -> list[Metric]:
    """Errors of permeabilities, both voxel^2 [n]."""
    relative, logs = np.abs(predicted / true - 1.0), np.log10(predicted / true)
    spread = np.log10(true) - np.log10(true).mean()
    values = {
        "rmse of log10 k": (np.sqrt(np.mean(logs**2)), "1"),
        "median of |k/k_true - 1|": (np.median(relative), "1"),
        "90th percentile of |k/k_true - 1|": (np.quantile(relative, 0.9), "1"),
        "R^2 of log10 k": (1.0 - np.sum(logs**2) / np.sum(spread**2) if np.any(spread) else 0.0, "1"),
    }
    return [Metric(name=n, value=float(v), unit=unit, count=len(true)) for n, (v, unit) in values.items()]


def test_metrics(tables: Mapping[str, Table]) -> list[Metric]:
    """Errors on the test part, of all images and by family, and those of the field."""
    table = tables["test"]
    predicted, true = network_permeability(table), table["permeability"]
    metrics = permeability_metrics(predicted, true)
    for family in sorted(set(table["family"].tolist())):
        at = table["family"] == family
        first = permeability_metrics(predicted[at], true[at])[0]
        metrics.append(first.model_copy(update={"name": f"{first.name}, {family}"}))
    fields = {"sum |u - u_true| / sum |u_true|": "field_error", "flux std over slices / mean": "flux_std"}
    for name, quantity in fields.items():
        metrics.append(Metric(name=name, value=float(np.median(table[quantity])), unit="1", count=len(true)))
    return metrics


def comparisons(tables: Mapping[str, Table]) -> list[Comparison]:
    """What simple formulas make of the test part."""
    true = tables["test"]["permeability"]
    return [
        Comparison(name=name, metrics=permeability_metrics(predicted, true), notes="")
        for name, predicted in baselines(tables).items()
    ]


def _kozeny(table: Table) -> Array:
    return np.asarray(table["connected_porosity"] ** 3 / table["surface"] ** 2)


def _scaled(shape: Array, log_k: Array) -> float:
    """The factor that is right in the mean of the logarithms."""
    return float(np.exp(np.mean(log_k - np.log(shape))))


def _ridge(tables: Mapping[str, Table], other: Table, features: Sequence[str]) -> Array:
    train, valid = tables["train"], tables["valid"]
    log_k, logs = np.log(train["permeability"]), _logs(train, features)
    mean, width = logs.mean(axis=0), logs.std(axis=0) + 1e-12
    x = (logs - mean) / width

    def fitted(strength: float) -> Array:
        return np.asarray(np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ (log_k - log_k.mean())))

    def said(weights: Array, table: Table) -> Array:
        return np.asarray((_logs(table, features) - mean) / width @ weights + log_k.mean())

    errors = [np.mean((said(fitted(r), valid) - np.log(valid["permeability"])) ** 2) for r in RIDGES]
    return said(fitted(RIDGES[int(np.argmin(errors))]), other)


def _logs(table: Table, names: Sequence[str]) -> Array:
    return np.asarray(np.log(np.stack([table[name] for name in names], axis=1)))
