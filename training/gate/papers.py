"""What the card declares: units, signs, hashes, origins."""

import math
from collections.abc import Iterator, Mapping

from contract.card import Check, ModelCard
from contract.elements import NUMBERS
from contract.repository import sha256_of
from contract.units import POTENTIAL_SIGNS, POTENTIAL_UNITS
from training.gate.deviation import count
from training.gate.submission import Submission

_NO_HASH = "0" * 64


def units_declared(submission: Submission) -> list[Check]:
    """Every unit as this project means it."""
    return [count("units on the card", _differing(submission.card.units, POTENTIAL_UNITS), "entries")]


def signs_declared(submission: Submission) -> list[Check]:
    """Every sign convention as this project means it."""
    return [count("signs on the card", _differing(submission.card.signs, POTENTIAL_SIGNS), "entries")]


def digests_match(submission: Submission) -> list[Check]:
    """The card lists the files that are there, each with its sha256."""
    return [count("digests on the card", _stale(submission), "files")]


def origins_declared(submission: Submission) -> list[Check]:
    """Data sources with hash, licence and level of theory; a licence and a citation of the model itself."""
    return [count("origins on the card", _unsaid(submission.card), "entries")]


def references_complete(submission: Submission) -> list[Check]:
    """A finite atomic reference for each element of the domain."""
    return [count("atomic references on the card", _without_reference(submission.card), "elements")]


def _differing(declared: Mapping[str, str], meant: Mapping[str, str]) -> Iterator[str]:
    for name, text in meant.items():
        if declared.get(name) != text:
            yield f"{name} is {declared.get(name, 'not declared')!r} instead of {text!r}"
    yield from (f"{name} is not known" for name in declared.keys() - meant.keys())


def _stale(submission: Submission) -> Iterator[str]:
    version = submission.card.version
    there = {f"{version}/{path.name}": path for path in submission.folder.iterdir()}
    listed = {entry.path: entry.sha256 for entry in submission.card.files}
    yield from (f"{path} is not on the card" for path in sorted(there.keys() - listed.keys()))
    for path, sha256 in listed.items():
        if path not in there:
            yield f"{path} is missing"
        elif sha256_of(there[path]) != sha256:
            yield f"{path} differs from its sha256"


def _unsaid(card: ModelCard) -> Iterator[str]:
    for source in card.data:
        said = {"origin": source.origin, "licence": source.licence, "level_of_theory": source.level_of_theory}
        yield from (f"{source.name} has no {name}" for name, text in said.items() if not text.strip())
        if source.sha256 == _NO_HASH:
            yield f"{source.name} has no sha256"
    if not card.licence.strip():
        yield "the model has no licence"
    if not card.purpose.strip():
        yield "the model has no purpose"


def _without_reference(card: ModelCard) -> Iterator[str]:
    for symbol in card.domain.elements:
        if symbol not in NUMBERS:
            yield f"{symbol} is no element"
        elif not math.isfinite(card.atomic_reference_ev.get(symbol, math.nan)):
            yield symbol
