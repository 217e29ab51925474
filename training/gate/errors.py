"""Why a version was not admitted.

GateError
├── Refused             it failed checks; the message names each, what was measured and what is allowed
├── OutdatedVersion     its number is not above the one that is served
└── NotMeasured         something of its cost could not be measured
"""

from collections.abc import Sequence

from contract.card import Check
from contract.errors import UnderstudyError


class GateError(UnderstudyError):
    """Root of all errors of the gate."""


class Refused(GateError):
    """A version that must not be served.

    Args:
        subject: the model's name and version.
        failed: the checks that failed.
    """

    def __init__(self, subject: str, failed: Sequence[Check]) -> None:
        plural = "check" if len(failed) == 1 else "checks"
        lines = [f"{subject} is not admitted: {len(failed)} {plural} failed.", *(_line(check) for check in failed)]
        super().__init__("\n".join(lines))
        self.failed = tuple(failed)


class OutdatedVersion(GateError):
    """A version whose number is not above the one that is served."""


class NotMeasured(GateError):
    """Something of a version's cost could not be measured."""


def _line(check: Check) -> str:
    unit = f" {check.unit}" if check.unit else ""
    detail = f" ({check.detail})" if check.detail else ""
    return f"  {check.name}: {check.measured:.3g}{unit}, at most {check.bound:.3g}{unit} is allowed{detail}"
