"""Models and predictions as tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from understudy.elements import hill_formula, symbols
from understudy.predictions import Prediction
from understudy.receipts import Receipt
from understudy.structures import Structure
from understudy.wire import (
    UNITS,
    DomainVerdict,
    ModelSummary,
    ModelVersions,
    PlanAnswer,
    ReplayReport,
    ShadowReport,
)

MAX_ROWS: Final = 30
MAX_ATOMS_WITH_FORCES: Final = 30
PLAIN_UP_TO: Final = 1e7
_STYLES: Final = {"in": "green", "edge": "yellow", "out": "bold red"}
_SHORT: Final[dict[str, str]] = {"angstrom": "Å", "eV/angstrom": "eV/Å", "eV/angstrom^3": "eV/Å³"}


def plain(value: float, digits: int) -> str:
    """A number to so many digits; large ones below ten million as whole numbers and not as a power of ten."""
    text = f"{value:.{digits}g}"
    return f"{float(text):.0f}" if "e" in text and 1.0 <= abs(value) < PLAIN_UP_TO else text


def models_table(models: Sequence[ModelSummary]) -> Table:
    """One row per model."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("model", "version", "family", "members", "elements", "purpose", "digest"):
        table.add_column(name, overflow="fold")
    for model in models:
        table.add_row(
            Text(model.name, "bold"),
            model.version,
            model.family,
            str(model.members),
            " ".join(_element(symbol, model) for symbol in model.elements),
            Text(model.purpose),
            model.digest[:12],
        )
    return table


def _element(symbol: str, model: ModelSummary) -> str:
    """An element, or the bead that its symbol stands for."""
    return f"{symbol} = {model.beads[symbol]}" if symbol in model.beads else symbol


def versions_table(models: Sequence[ModelVersions]) -> RenderableType:
    """One row per version of each model, and below what their shadows show."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("model", "version", "state", "role", "under way", "digest"):
        table.add_column(name, overflow="fold")
    for model in models:
        for each in model.versions:
            state = Text(f"{each.state.lower()}{f' ({each.reason})' if each.reason else ''}")
            role = Text(_role(model, each.version), "bold")
            table.add_row(model.model, each.version, state, role, str(each.requests), each.digest[:12])
    return Group(table, *(_shadow(model.model, model.shadow) for model in models if model.shadow))


def _role(model: ModelVersions, version: str) -> str:
    if version == model.promoted:
        return "promoted"
    return "shadow" if model.shadow and version == model.shadow.version else ""


def _shadow(name: str, report: ShadowReport) -> Text:
    ratio = "" if report.latency_ratio is None else f"; its answers took {report.latency_ratio:.2f} times as long"
    text = Text(
        f"Shadow {report.version} of {name}: {report.requests} requests followed ({report.requests_wanted} wanted), "
        f"{report.structures} structures compared: {report.energy_rms_mev_per_atom:.3g} meV/atom (largest "
        f"{report.energy_max_mev_per_atom:.3g}), {report.forces_rms_ev_per_angstrom:.3g} eV/Å (largest "
        f"{report.forces_max_ev_per_angstrom:.3g}){ratio}"
    )
    for reason in report.drift:
        text.append(f"\n{reason}", "bold red")
    return text


def predictions_table(structures: Sequence[Structure], predictions: Sequence[Prediction]) -> RenderableType:
    """One row per structure; for a single small structure its forces too."""
    first = predictions[0]
    title = Text.assemble(
        (first.model, "bold"), f" version {first.version}, digest {first.digest[:12]}{_members(first)}"
    )
    parts: list[RenderableType] = [title, _energies(structures, predictions)]
    if len(predictions) > MAX_ROWS:
        parts.append(_rest(predictions))
    if len(predictions) == 1 and len(structures[0]) <= MAX_ATOMS_WITH_FORCES:
        parts.append(_forces(structures[0], first))
    return Group(*parts)


def plan_text(plan: PlanAnswer) -> Text:
    """What a request would cost, in a few lines."""
    verdict = ("fits", "green") if plan.fits else ("does not fit", "bold red")
    lines = [Text.assemble((plan.model, "bold"), f" version {plan.version}, digest {plan.digest[:12]}: ", verdict)]
    atoms = sum(structure.atoms for structure in plan.structures)
    counts = [(len(plan.structures), "structure"), (atoms, "atom"), (plan.slots, "neighbour slot")]
    lines.append(Text(", ".join(_counted(*each) for each in (*counts, (plan.batches, "engine call")))))
    if plan.seconds is not None:
        time = f"{plan.seconds.total:.3g} s ({plan.seconds.queue:.3g} s of it waiting), by {plan.measured_on}"
        lines.append(Text(time))
    if plan.memory_bytes is not None:
        lines.append(Text(f"{plan.memory_bytes / 1e6:,.0f} MB of memory beside the loaded model"))
    lines += [
        Text(f"over the limit {hit.name}: {hit.got:,.6g} of {hit.limit:,.6g} {hit.unit}", "bold red")
        for hit in plan.limits
    ]
    for index, structure in list(enumerate(plan.structures))[:MAX_ROWS]:
        if structure.refusal is not None:
            lines.append(Text(f"structure {index}: {structure.refusal.detail} {structure.refusal.hint}", "bold red"))
        elif structure.domain is not None and structure.domain.verdict != "in":
            lines.append(Text.assemble(f"structure {index}: ", _domain(structure.domain)))
    if plan.alternative is not None and plan.alternative.seconds is not None:
        other = plan.alternative
        lines.append(Text(f"'{other.model}' would take {other.seconds.total:.3g} s", "green"))  # type: ignore[union-attr]
    return Text("\n").join(lines)


def replay_text(receipt: Receipt, report: ReplayReport) -> Text:
    """What came of a replay, in a few lines."""
    style = {"bitwise": "green", "within_tolerance": "green", "not_compared": "yellow", "different": "bold red"}
    lines = [Text.assemble((report.verdict.replace("_", " "), style[report.verdict]), f": {report.reason}")]
    lines.append(Text(f"{receipt.model} version {receipt.version}, digest {receipt.digest[:12]}; inputs verified."))
    promise = "bit for bit" if report.promised == "bitwise" else "within the tolerance"
    lines.append(Text(f"Promised {promise}: the first answer was {receipt.batch_mode}.", "dim"))
    if report.energy_difference_ev is not None and report.forces_difference_ev_angstrom is not None:
        energy, forces = report.energy_difference_ev, report.forces_difference_ev_angstrom
        lines.append(Text(f"Largest differences: {energy:.2e} eV, {forces:.2e} eV/Å.", "dim"))
    lines += [Text(f"{name}: {then} then, {now} now", "yellow") for name, (then, now) in report.changed.items()]
    return Text("\n").join(lines)


def _energies(structures: Sequence[Structure], predictions: Sequence[Prediction]) -> Table:
    units = predictions[0].units
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("#", justify="right", style="dim", overflow="fold")
    table.add_column("formula", overflow="fold")
    _add_number(table, "atoms", "")
    _add_number(table, "energy", _unit(units, "energy"))
    _add_number(table, "committee std", _unit(units, "energy_std"))
    _add_number(table, "max |force|", _unit(units, "forces"))
    table.add_column("domain", overflow="fold")
    rows = zip(structures, predictions, strict=True)
    for index, (structure, prediction) in enumerate(rows):
        if index == MAX_ROWS:
            break
        table.add_row(
            str(index),
            hill_formula(structure.numbers),
            str(len(structure)),
            f"{prediction.energy:.4f}",
            "-" if prediction.energy_std is None else f"{prediction.energy_std:.4f}",
            f"{prediction.max_force:.4f}",
            _domain(prediction.domain),
        )
    return table


def _forces(structure: Structure, prediction: Prediction) -> Table:
    unit, std = _unit(prediction.units, "forces"), prediction.forces_std
    table = Table(title=f"forces, {unit}", title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("atom", justify="right", style="dim")
    table.add_column("")
    for name in ("x", "y", "z", "norm", *(("std x", "std y", "std z") if std is not None else ())):
        _add_number(table, name, "")
    values = np.column_stack([prediction.forces, np.linalg.norm(prediction.forces, axis=1)])
    values = values if std is None else np.column_stack([values, std])
    for index, (symbol, row) in enumerate(zip(symbols(structure.numbers), values, strict=True)):
        table.add_row(str(index), symbol, *(f"{value:.4f}" for value in row))
    return table


def _add_number(table: Table, name: str, unit: str) -> None:
    """A column of numbers: in a narrow terminal they go over two lines, and never lose a digit."""
    table.add_column(f"{name}\n{unit}".strip(), justify="right", overflow="fold")


def _rest(predictions: Sequence[Prediction]) -> Text:
    outside = sum(not p.domain.in_domain for p in predictions)
    return Text(
        f"{len(predictions) - MAX_ROWS} more structures; {outside} of all {len(predictions)} lie outside the domain. "
        "Use --out or --json for all of them.",
        "dim",
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _domain(domain: DomainVerdict) -> Text:
    reasons = f": {' '.join(domain.reasons)}" if domain.reasons else ""
    return Text.assemble((domain.verdict, _STYLES[domain.verdict]), reasons)


def _members(prediction: Prediction) -> str:
    spread = prediction.uncertainty
    if spread is None or spread.members < 2:
        return ""
    how = ", calibrated" if spread.calibrated else ""
    return f", committee of {spread.members} (std with ddof = {spread.ddof}{how})"


def _unit(units: Mapping[str, str], name: str) -> str:
    unit = units.get(name, UNITS[name])
    return _SHORT.get(unit, unit)
