"""Whether the committee's spread tells the size of its error: fitted on validation frames, tested on test frames."""

from dataclasses import dataclass
from typing import Final

from training.calibration import NOMINAL, calibration_scale, coverage, rank_correlation
from training.evaluation import Predictions
from training.report.errors import Table, short
from training.report.figures import Spread, calibration

_LOW_RANK: Final = 0.2


@dataclass(frozen=True, slots=True)
class Trust:
    """The scale, its test, and the figure of both (SVG)."""

    scale: str
    rank: str
    useless: bool
    table: Table
    figure: str


def trust(valid: Predictions, test: Predictions) -> Trust | None:
    """Fit the scale on the validation part and test it; None for a single network, which has no spread."""
    if valid.std is None or test.std is None:
        return None
    scale, members = calibration_scale(valid.error, valid.std), len(test.energy)
    rank = rank_correlation(test.error, test.std)
    rows = []
    for name, part, std in (("validation (fitted here)", valid, valid.std), ("test", test, test.std)):
        for how, times in (("as the members spread", 1.0), (f"times {scale:.3g}", scale)):
            held = [f"{100 * coverage(part.error, times * std, level, members):.1f} %" for level in NOMINAL]
            rows.append([name, how, *held, short(calibration_scale(part.error, times * std))])
    head = ["part", "standard deviation", *(f"inside the {100 * level:.0f} % interval" for level in NOMINAL)]
    return Trust(
        f"{scale:.3g}",
        f"{rank:.2f}",
        not rank >= _LOW_RANK,
        Table([*head, "68 % of errors below, in std"], rows, len(rows) - 1),
        calibration([Spread("energy", "eV", test.error, test.std, scale)], members),
    )
