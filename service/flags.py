"""What is remarkable in a prediction: why a caller should hesitate, a teacher look, and a harvest keep it."""

from typing import Final

from understudy.wire import Flag

from contract.card import ModelCard
from service.families.potential import Prediction
from service.trust import Verdict

_VERDICTS: Final[dict[Verdict, tuple[Flag, ...]]] = {
    "in": (),
    "edge": ("edge_of_domain",),
    "out": ("out_of_domain",),
}


def flags_of(prediction: Prediction, card: ModelCard) -> list[Flag]:
    """The flags of one prediction by itself.

    `high_std`: the committee's spread is above that of all but the worst held-out structures, as the card says it.
    """
    flags = [*_VERDICTS[prediction.domain.verdict]]
    usual, _ = card.domain.energy_std_limits(len(prediction.sample.structure))
    if usual is not None and prediction.energy_std is not None and prediction.energy_std > usual:
        flags.append("high_std")
    return flags
