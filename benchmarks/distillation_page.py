"""The figure and the table of docs/distillation.md from a record: `python -m benchmarks.distillation_page`."""

from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from benchmarks.distillation import ALL_CPU, COMMITTEE, LIVING, STUDENT, TEACHER, TRUE
from benchmarks.record import RECORDS
from contract.files import write_text
from training.files import read_json
from training.report.figures import BLUE, GREEN, GREY, VERMILLION, drawn

RECORD: Final = RECORDS / "distillation_gfn2.json"
PAGE_FIGURE: Final = Path(__file__).parents[1] / "docs" / "distillation-survival.svg"
LINES: Final = {
    TEACHER: (GREY, "-"),
    ALL_CPU: (GREY, (0, (1, 1.5))),
    COMMITTEE: (BLUE, (0, (4, 2))),
    STUDENT: (VERMILLION, "-"),
    TRUE: (GREEN, "-"),
}
ENERGY, FORCE = "energy RMSE meV", "force RMSE meV/angstrom"


def figure(survival: dict[str, Any]) -> str:
    """Share of the runs that are alive over time, a panel for each time step; the mean over seeds."""
    seeds = list(survival["by seed"].values())
    steps = [each["step fs"] for each in seeds[0][STUDENT]]

    def draw(sheet: Figure) -> None:
        panels = sheet.subplots(1, len(steps), sharey=True)
        for k, (axes, step) in enumerate(zip(panels, steps, strict=True)):
            for name in LIVING:
                colour, style = LINES[name]
                alive = np.mean([seed[name][k]["alive"] for seed in seeds], axis=0)
                axes.plot(np.array(survival["at fs"]) / 1000, alive, color=colour, ls=style, lw=1.6, label=name)
            axes.set(title=f"steps of {step:g} fs", xlabel="time (ps)", ylim=(-0.03, 1.03))
        panels[0].set(ylabel="runs alive")
        sheet.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=3)

    return drawn("survival", 11.0, 3.4, draw)


def tables(values: dict[str, Any]) -> str:
    """Markdown: errors with their ratio to one teacher, and the runs that lived to the end by time step."""
    means, ratios = values["mean and 95 % interval over seeds"], values["over one teacher, paired"]
    lines = ["| | energy, meV | forces, meV/Å | energy, ratio | forces, ratio |", "|---|---|---|---|---|"]
    for name, mean in means.items():
        pair = (ratios[name][key] for key in (ENERGY, FORCE))
        each = " | ".join(f"{ratio:.2f} ± {half:.2f}" for ratio, half in pair)
        lines.append(f"| {name} | {mean[ENERGY][0]:,.0f} | {mean[FORCE][0]:,.0f} | {each} |")
    survival = values["survival"]
    steps = [each["step fs"] for each in next(iter(survival["by seed"].values()))[STUDENT]]
    lines += ["", f"| alive after 1 ps, % | {' | '.join(f'{step:g} fs' for step in steps)} |"]
    lines += ["|---" * (len(steps) + 1) + "|"]
    for name in LIVING:
        ends = [[each["alive"][-1] for each in seed[name]] for seed in survival["by seed"].values()]
        lines.append(f"| {name} | {' | '.join(f'{100 * share:.0f}' for share in np.mean(ends, axis=0))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    _values = read_json(RECORD)["values"]
    write_text(PAGE_FIGURE, figure(_values["survival"]))
    print(tables(_values))
