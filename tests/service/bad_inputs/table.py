"""The suite as the tables of docs/serving.md: `python tests/service/bad_inputs/table.py` prints them."""

import sys
from pathlib import Path

for _folder in (Path(__file__).parent, Path(__file__).parents[1]):
    sys.path.append(str(_folder))

from cases import ANSWERED, BAD_TENSORS, IMAGES, STRUCTURES, Refused, Tensors  # noqa: E402


def refused_table() -> str:
    """What is refused, by number of the design."""
    cases: list[tuple[str, Refused | Tensors]] = [*BAD_TENSORS.items(), *STRUCTURES.items(), *IMAGES.items()]
    rows = [
        f"| {case.number} | {name} | {case.status} `{case.code}` | {_others(case)} |"
        for name, case in sorted(cases, key=lambda item: item[1].number)
    ]
    return "\n".join(["| # | what | refusal | elsewhere |", "|---|---|---|---|", *rows])


def answered_table() -> str:
    """What looks wrong and is answered as its harmless form is."""
    rows = [f"| {case.number} | {name} |" for name, case in sorted(ANSWERED.items(), key=lambda item: item[1].number)]
    return "\n".join(["| # | what is answered |", "|---|---|", *rows])


def _others(case: Refused | Tensors) -> str:
    refusals = {p: case.on(p) for p in case.elsewhere}
    codes = {refusal for refusal in refusals.values() if refusal not in (None, (case.status, case.code))}
    said = [
        f"{', '.join(p for p, other in refusals.items() if other == (status, code))}: {status} `{code}`"
        for status, code in sorted(filter(None, codes))
    ]
    return "; ".join(said)


if __name__ == "__main__":
    print(refused_table(), answered_table(), sep="\n\n")
