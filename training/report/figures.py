"""Figures of a training report as inline SVG: no scripts, no fonts or files from outside, colour-blind safe.

Colours: Okabe and Ito, "Color Universal Design" (2008); lines and markers differ in style too.
"""

import io
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from contract.card import BatchingCurve
from training.calibration import NOMINAL, ONE_SIGMA, conformal_width, coverage
from training.fit import Epoch

Array = NDArray[np.float64]

BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
MEMBER_COLOURS: Final = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
PART_COLOURS: Final = {"valid": GREEN, "test": BLUE}
PART_NAMES: Final = {"valid": "validation part", "test": "test part"}
_STYLE: Final[dict[Any, Any]] = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "svg.fonttype": "path",
    "savefig.dpi": 160,
}
_OVERLAID: Final = ("#BBBBBB", BLUE, VERMILLION, GREEN)
_MOST_POINTS: Final = 20_000
_MOST_SIZES: Final = 3_000
_LEVELS: Final = np.linspace(0.02, 0.99, 60)
_MOST_BINS, _LEAST_IN_BIN = 12, 20


class Scatter(NamedTuple):
    """Predictions beside references, one number a point, both in the same unit."""

    reference: Array
    predicted: Array


class Spread(NamedTuple):
    """Errors of one quantity in a unit, the members' std beside each, and the fitted scale of the latter.

    Where no law of the errors is assumed, `ranked` are the sizes of those that the scale was fitted to, in calibrated
    standard deviations and rising order; wider intervals are their quantiles.
    """

    quantity: str
    unit: str
    error: Array
    std: Array
    scale: float
    ranked: Array | None = None

    @property
    def calibrated(self) -> Array:
        """Standard deviations that hold 68 % of the errors."""
        return self.scale * self.std

    def held(self, scale: float, level: float, members: int) -> float:
        """Percent of the errors inside the interval that is to hold the share `level`, of a std times a scale."""
        if self.ranked is None or scale != self.scale:
            return 100 * coverage(self.error, scale * self.std, level, members)
        width = conformal_width(self.ranked, level)
        return 100 * float(np.mean(np.abs(self.error) <= width * self.calibrated))


def learning_curves(histories: Sequence[Sequence[Epoch]], *, steps: bool) -> str:
    """Loss of every fit on the training and validation parts, and below it the learning rate.

    Args:
        histories: one for each network that was fitted by itself.
        steps: mark the epochs at which the batch grew or the rate fell; not for a rate that moves all the time.
    """

    def draw(figure: Figure) -> None:
        loss, rate = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        for m, history in enumerate(histories):
            _curve(loss, rate, history, MEMBER_COLOURS[m % len(MEMBER_COLOURS)], f" {m}" if len(histories) > 1 else "")
            if steps:
                _mark_steps(loss, history, named=len(histories) == 1)
        loss.set(yscale="log", ylabel="loss (see caption)")
        loss.legend(ncols=min(4, len(histories)))
        rate.set(yscale="log", xlabel="epoch", ylabel="learning rate")
        rate.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain_numbers(loss)
        _plain_numbers(rate)

    return drawn("learning-curves", 9.0, 4.8, draw)


def parity(parts: Mapping[str, Scatter], quantity: str, unit: str) -> str:
    """Prediction against reference for each part, or each model, with MAE and RMSE in thousandths of the unit."""

    def draw(figure: Figure) -> None:
        for axes, (part, points) in zip(_row(figure, len(parts)), parts.items(), strict=True):
            _parity_panel(axes, points, PART_COLOURS.get(part, BLUE), unit)
            axes.set(
                title=f"{PART_NAMES.get(part, part)}, {len(points.reference):,} points",
                xlabel=f"reference {quantity} ({unit})",
                ylabel=f"predicted {quantity} ({unit})",
            )

    return drawn(f"parity-{quantity.split()[0]}", 4.6 * len(parts), 4.4, draw)


def error_by_energy(energy: Array, error: Array) -> str:
    """Error of the mean energy against the reference energy, eV above the lowest frame, with its RMSE in windows."""
    return drawn("error-by-energy", 9.0, 3.6, lambda figure: _error_panel(figure.subplots(), energy, error))


def calibration(spreads: Sequence[Spread], members: int) -> str:
    """A row for each quantity: how often the truth lies within intervals, and the size of the error against the std.

    Args:
        spreads: on a part that the scales were not fitted to.
        members: of the committee.
    """

    def draw(figure: Figure) -> None:
        rows = figure.subplots(len(spreads), 2, squeeze=False)
        for (covered, sized), spread in zip(rows, spreads, strict=True):
            _coverage_panel(covered, spread, members)
            _size_panel(sized, spread)

    return drawn("calibration", 9.2, 4.2 * len(spreads), draw)


def batching(curve: BatchingCurve) -> str:
    """Time per neighbour slot against the size of a batch, with the size that the service aims at."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        slots = np.array([point.slots for point in curve.points])
        each = 1e3 * np.array([point.milliseconds for point in curve.points]) / slots
        axes.plot(slots, each, "o-", color=BLUE, lw=1.8, ms=5)
        axes.axvline(curve.best_slots, color=GREY, ls=":", lw=1.2, label=f"batches aim at {curve.best_slots:,} slots")
        axes.set(xscale="log", ylim=(0, None), xlabel="neighbour slots of a batch", ylabel="microseconds a slot")
        axes.legend()

    return drawn("batching", 6.0, 3.4, draw)


def overlaid(name: str, panels: Mapping[str, Mapping[str, tuple[Array, Array]]], xlabel: str, ylabel: str) -> str:
    """Curves (x, y) by label in a panel for each key, two in a row; the first one of each is drawn broad and grey."""

    def draw(figure: Figure) -> None:
        grid = figure.subplots((len(panels) + 1) // 2, 2, squeeze=False).ravel()
        for axes, (title, curves) in zip(grid, panels.items(), strict=False):
            for (label, (x, y)), colour, style in zip(curves.items(), _OVERLAID, ("-", "-", (0, (4, 2))), strict=False):
                axes.plot(x, y, color=colour, ls=style, lw=4.0 if colour == "#BBBBBB" else 1.5, label=label)
            axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
        grid[0].legend()
        for axes in grid[len(panels) :]:
            axes.set_visible(False)

    return drawn(name, 9.2, 3.0 * ((len(panels) + 1) // 2), draw)


def _curve(loss: Axes, rate: Axes, history: Sequence[Epoch], colour: str, member: str) -> None:
    epochs = [line.epoch for line in history]
    best = min(history, key=lambda line: line.valid)
    loss.plot(epochs, [line.train for line in history], color=colour, ls=(0, (4, 2)), lw=1.2, label=f"training{member}")
    loss.plot(epochs, [line.valid for line in history], color=colour, lw=1.8, label=f"validation{member}")
    loss.plot(best.epoch, best.valid, "o", ms=6, mec=colour, mfc="white", mew=1.6)
    rate.plot(epochs, [line.learning_rate for line in history], color=colour, lw=1.4)


def _mark_steps(axes: Axes, history: Sequence[Epoch], *, named: bool) -> None:
    """A dotted line with what changed, or a bar on the curve where several curves would cross the lines."""
    for before, after in itertools.pairwise(history):
        text = _step(before, after)
        if not text:
            continue
        if not named:
            axes.plot(after.epoch, after.valid, "|", ms=12, mew=1.6, color=GREY)
            continue
        axes.axvline(after.epoch, color=GREY, ls=":", lw=1.0)
        axes.annotate(
            text, (after.epoch, 1.0), (-2, -2), xycoords=("data", "axes fraction"), textcoords="offset points",
            rotation=90, ha="right", va="top", fontsize=8, color=GREY,
        )  # fmt: skip


def _step(before: Epoch, after: Epoch) -> str:
    if after.batch_size != before.batch_size:
        return f"batch {after.batch_size}"
    return f"rate {after.learning_rate:.1e}" if after.learning_rate < before.learning_rate else ""


def _parity_panel(axes: Axes, points: Scatter, colour: str, unit: str) -> None:
    shown = _shown(len(points.reference))
    everything = np.concatenate([points.reference, points.predicted])
    low, high = float(everything.min()), float(everything.max())
    pad = 0.03 * (high - low)
    ends = (low - pad, high + pad)
    axes.plot(ends, ends, color=GREY, lw=0.8)
    axes.scatter(
        points.reference[shown],
        points.predicted[shown],
        s=_dot(points.reference),
        c=colour,
        alpha=0.4,
        lw=0,
        rasterized=True,
    )
    error = 1e3 * (points.predicted - points.reference)
    text = f"MAE {np.abs(error).mean():.3g} m{unit}\nRMSE {_rms(error):.3g} m{unit}"
    axes.annotate(text, (0.04, 0.96), xycoords="axes fraction", va="top")
    axes.set(xlim=ends, ylim=ends, aspect="equal")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))


def _error_panel(axes: Axes, energy: Array, error: Array) -> None:
    millis = 1e3 * error
    limit = 1.05 * float(np.percentile(np.abs(millis), 99.5))
    outside = int((np.abs(millis) > limit).sum())
    shown = _shown(len(energy))
    axes.scatter(energy[shown], millis[shown], s=_dot(error), c=BLUE, alpha=0.35, lw=0, rasterized=True)
    edges = np.linspace(energy.min(), energy.max(), _bins(energy) + 1)
    inside = np.clip(np.digitize(energy, edges) - 1, 0, _bins(energy) - 1)
    rms = np.array([_rms(millis[inside == b]) for b in range(_bins(energy))])
    axes.stairs(rms, edges, baseline=None, color=VERMILLION, lw=1.8, label="RMSE in windows of energy")
    axes.stairs(-rms, edges, baseline=None, color=VERMILLION, lw=1.8)
    axes.axhline(0.0, color=GREY, lw=0.8)
    axes.set(
        ylim=(-limit, limit),
        xlabel="reference energy above the lowest test frame (eV)",
        ylabel="predicted $-$ reference (meV)",
    )
    if outside:
        axes.set_title(f"{outside} of {len(error):,} frames lie outside the axis", loc="right", color=GREY)
    axes.legend(loc="upper left")


def _coverage_panel(axes: Axes, spread: Spread, members: int) -> None:
    axes.plot((0, 100), (0, 100), color=GREY, lw=0.8, label="as they should")
    lines = (("as the members spread", 1.0, VERMILLION, (0, (4, 2)), "s"), ("calibrated", spread.scale, BLUE, "-", "o"))
    for label, scale, colour, style, marker in lines:
        observed = [spread.held(scale, level, members) for level in _LEVELS]
        axes.plot(100 * _LEVELS, observed, color=colour, ls=style, lw=1.8, label=label)
        marked = [spread.held(scale, level, members) for level in NOMINAL]
        axes.plot(100 * np.array(NOMINAL), marked, marker, color=colour, ms=6)
        if scale == spread.scale:
            for level, held in zip(NOMINAL, marked, strict=True):
                axes.annotate(f"{held:.1f}", (100 * level, held), (6, -10), textcoords="offset points", fontsize=9)
    axes.set(
        xlim=(0, 100), ylim=(0, 102), aspect="equal", title=f"{spread.quantity}: intervals on the test part",
        xlabel="interval is to hold (%)", ylabel="interval held (%)",
    )  # fmt: skip
    axes.legend(loc="upper left")


def _size_panel(axes: Axes, spread: Spread) -> None:
    unit = "thousandths" if spread.unit == "1" else f"m{spread.unit}"
    std, size = 1e3 * spread.calibrated.ravel(), 1e3 * np.abs(spread.error).ravel()
    shown = _shown(len(size), _MOST_SIZES)
    axes.scatter(std[shown], size[shown], s=_dot(size[shown]), c=BLUE, alpha=0.3, lw=0, rasterized=True)
    axes.plot([], [], "o", color=BLUE, ms=3, label=f"{len(shown):,} of {len(size):,} test numbers")
    bins = np.array_split(np.argsort(std), _bins(std))
    middle, held = [float(np.median(std[b])) for b in bins], [float(np.quantile(size[b], ONE_SIGMA)) for b in bins]
    axes.plot(middle, held, "o-", color=VERMILLION, lw=1.8, ms=5, label="68 % of equal bins lie below")
    least = 1e-2 * float(np.median(std))  # a force that symmetry makes zero has no spread to show
    ends = (max(float(np.percentile(std, 0.5)), least) / 1.3, float(std.max()) * 1.3)
    axes.plot(ends, ends, color=GREY, lw=0.8, label="as they should")
    lowest = max(float(np.percentile(size, 1)), 0.1 * least)
    axes.set(
        xscale="log", yscale="log", xlim=ends, ylim=(lowest, 1.3 * float(size.max())),
        title=f"{spread.quantity}: size of the error",
        xlabel=f"calibrated standard deviation ({unit})", ylabel=f"|error| ({unit})",
    )  # fmt: skip
    axes.legend(loc="lower right")


def _plain_numbers(axes: Axes) -> None:
    """0.2 instead of 2 x 10^-1 along a logarithmic y axis; fewer labels where it spans decades."""
    low, high = axes.get_ylim()
    plain = FuncFormatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "125" else "")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(plain if high < 100 * low else NullFormatter())


def _row(figure: Figure, panels: int) -> list[Axes]:
    axes: list[Axes] = list(figure.subplots(1, panels, squeeze=False)[0])
    return axes


def _rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else float("nan")


def _bins(values: Array) -> int:
    return int(np.clip(len(values) // _LEAST_IN_BIN, 1, _MOST_BINS))


def _dot(values: Array) -> float:
    """Area of a dot, points^2: fewer are drawn larger."""
    return float(np.clip(6_000 / max(1, len(values)), 5, 20))


def _shown(count: int, most: int = _MOST_POINTS) -> NDArray[np.int64]:
    """Which points are drawn: all, or an even sample of very many."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))


def drawn(name: str, width: float, height: float, draw: Callable[[Figure], None]) -> str:
    """A figure of that size in inches as an <svg> element; the same content gives the same text.

    Each id gets the figure's name, so that several figures can stand in one page.
    """
    text = io.StringIO()
    with mpl.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    whole = text.getvalue()
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", whole[whole.index("<svg") :])
