"""Whether the committee's spread tells the size of its error: fitted on validation frames, tested on test frames."""

from dataclasses import dataclass
from typing import Final

from training.calibration import NOMINAL, calibration_factor, coverage, rank_correlation
from training.report.errors import Table, short
from training.report.figures import calibration
from training.report.folder import Finished

_LOW_RANK: Final = 0.2


@dataclass(frozen=True, slots=True)
class Trust:
    """The factor, its test, and the figure of both (SVG)."""

    factor: str
    rank: str
    useless: bool
    table: Table
    figure: str


def trust(finished: Finished) -> Trust | None:
    """Fit the factor on the validation part and test it; None for a single network, which has no spread."""
    valid, test = finished.valid.energies, finished.test.energies
    if valid.std is None or test.std is None:
        return None
    factor = calibration_factor(valid.error, valid.std)
    rank = rank_correlation(test.error, test.std)
    rows = []
    for name, part, std in (("validation (fitted here)", valid, valid.std), ("test", test, test.std)):
        for how, scale in (("as the members spread", 1.0), (f"times {factor:.3g}", factor)):
            held = [f"{100 * coverage(part.error, scale * std, level):.1f} %" for level in NOMINAL]
            rows.append([name, how, *held, short(calibration_factor(part.error, scale * std))])
    head = ["part", "standard deviation", *(f"inside the {100 * level:.0f} % interval" for level in NOMINAL)]
    return Trust(
        f"{factor:.3g}",
        f"{rank:.2f}",
        not rank >= _LOW_RANK,
        Table([*head, "RMS of error / std"], rows, len(rows) - 1),
        calibration(test.error, test.std, factor),
    )
