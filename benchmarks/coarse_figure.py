"""The figure of docs/coarse_graining.md from its record: `python -m benchmarks.coarse_figure`."""

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
NAMES: Final = {"tensor": "l = 2", "scalar": "l = 0", "no-prior": "l = 2,\nno prior", "pair": "pair\nforce"}
PLACES: Final = {
    "on": (-0.14, "o", BLUE, "at the state of the training"),
    "off": (0.14, "s", VERMILLION, "at the others"),
}


def figure(values: dict[str, Any]) -> str:
    """Errors of every arm at the state of its training and at the others: each seed, mean and 95 % interval."""

    def draw(sheet: Figure) -> None:
        for axes, error in zip(sheet.subplots(1, 2), ("E_RDF", "E_ADF"), strict=True):
            _panel(axes, error, values)

    return drawn("states", 8.0, 3.2, draw)


def _panel(axes: Axes, error: str, values: dict[str, Any]) -> None:
    arms = [name for name in NAMES if name in values["arms"]]
    noise = float(np.mean(values["noise_floor"][error]))
    axes.axhline(noise, color=GREY, linestyle="--", linewidth=1.0, label="halves of the atoms' own frames")
    for x, arm in enumerate(arms):
        found = values["arms"][arm][error]
        for kind, (beside, marker, colour, name) in PLACES.items():
            mean, low, high = (found[kind][key] for key in ("mean", "low", "high"))
            label = name if x == 0 else None
            half = [[mean - low], [high - mean]]
            axes.errorbar(x + beside, mean, half, fmt=marker, color=colour, capsize=3, label=label)
            seeds = found[f"{kind}_by_seed"]
            axes.plot(np.full(len(seeds), x + beside + 0.1), seeds, ".", color=colour, markersize=4)
    axes.set_xticks(range(len(arms)), [NAMES[arm] for arm in arms])
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel(error)
    if error == "E_RDF":
        axes.legend(loc="upper left")


if __name__ == "__main__":
    write_text(PAGE_FIGURE, figure(read_json(RECORDS / "coarse_graining.json")["values"]))
