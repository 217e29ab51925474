"""The figure and the tables of docs/coarse_graining.md from its record: `python -m benchmarks.coarse_page`."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.record import RECORDS
from contract.files import write_text
from training.files import read_json
from training.report.figures import BLUE, GREY, VERMILLION, drawn

PAGE_FIGURE: Final = Path(__file__).parents[1] / "docs" / "coarse_graining-states.svg"
NAMES: Final = {"tensor": "l = 2", "scalar": "l = 0", "no-prior": "l = 2, no prior", "pair": "pair force"}
PLACES: Final = {
    "on": (-0.14, "o", BLUE, "at the state of the training"),
    "off": (0.14, "s", VERMILLION, "at the others"),
}


def figure(values: dict[str, Any]) -> str:
    """Errors of every arm at the state of its training and at the others: each seed, mean and 95 % interval."""

    def draw(sheet: Figure) -> None:
        for axes, error in zip(sheet.subplots(1, 2), ("E_RDF", "E_ADF"), strict=True):
            _panel(axes, error, values)
        sheet.legend(*sheet.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)

    return drawn("states", 8.0, 3.2, draw)


def _panel(axes: Axes, error: str, values: dict[str, Any]) -> None:
    arms = [name for name in NAMES if name in values["arms"]]
    noise = float(np.mean(values["noise_floor"][error]))
    axes.axhline(noise, color=GREY, linestyle="--", linewidth=1.0, label="halves of the atoms' own frames")
    for x, arm in enumerate(arms):
        found = values["arms"][arm][error]
        for kind, (beside, marker, colour, name) in PLACES.items():
            mean, half = found[kind]["mean"], _half(found[kind])
            label = name if x == 0 else None
            axes.errorbar(x + beside, mean, half, fmt=marker, color=colour, capsize=3, label=label)
            seeds = found[f"{kind}_by_seed"]
            axes.plot(np.full(len(seeds), x + beside + 0.1), seeds, ".", color=colour, markersize=4)
    axes.set_xticks(range(len(arms)), [NAMES[arm].replace(", ", ",\n") for arm in arms])
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel(error)


def tables(values: dict[str, Any]) -> str:
    """Markdown: means with half of their 95 % interval over seeds, and differences from the pair force."""
    arms = {name: values["arms"][name] for name in NAMES if name in values["arms"]}
    lines = [_row("", *(NAMES[name] for name in arms)), _row(*["---"] * (len(arms) + 1))]
    for error in ("E_RDF", "E_ADF", "R2"):
        for kind, (*_, where) in PLACES.items():
            lines.append(_row(f"{error} {where}", *(_spread(found[error][kind]) for found in arms.values())))
    lines.append(_row("runs that broke", *(str(found["runs_that_broke"]) for found in arms.values())))
    against = values["against_pair"]
    lines += ["", _row("less the pair force", *(NAMES[name] for name in against)), _row(*["---"] * (len(against) + 1))]
    for error in ("E_RDF", "E_ADF"):
        for kind, (*_, where) in PLACES.items():
            lines.append(_row(f"{error} {where}", *(_spread(found[error][kind]) for found in against.values())))
        wins = (found[error]["off_states_with_smaller_error"] for found in against.values())
        lines.append(_row(f"{error} smaller at", *(f"{won} others" for won in wins)))
    names, of = values["states"], {name: arms[name]["E_RDF"]["matrix"] for name in ("tensor", "pair")}
    lines += ["", _row("E_RDF, l = 2 / pair force", *names), _row(*["---"] * (len(names) + 1))]
    for a, name in enumerate(names):
        lines.append(_row(name, *(f"{x:.3f} / {y:.3f}" for x, y in zip(of["tensor"][a], of["pair"][a], strict=True))))
    return "\n".join(lines)


def _spread(found: dict[str, Any]) -> str:
    half = _half(found)
    return f"{found['mean']:.3f}" if half is None else f"{found['mean']:.3f} ± {half:.3f}"


def _half(found: dict[str, Any]) -> float | None:
    """Half of the interval; one seed has none."""
    return None if found["high"] is None else found["high"] - found["mean"]


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    _values = read_json(RECORDS / "coarse_graining.json")["values"]
    write_text(PAGE_FIGURE, figure(_values))
    print(tables(_values))
