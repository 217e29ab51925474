"""What an assessment found, as tables for the terminal and as one self-contained page without scripts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from markupsafe import Markup

from training.assessment.bootstrap import Errors, Estimate
from training.assessment.comp6 import OVERALL, Quantity, Subset
from training.assessment.compare import Comparison
from training.assessment.evaluate import ENERGY, FORCES, SHIFTED, Evaluation, Group, less_its_mean
from training.assessment.judged import Answers
from training.calibration import NOMINAL
from training.candidate import reference_energies
from training.data.dataset import Dataset
from training.report import figures
from training.report.errors import Table, short
from training.report.page import template

UNITS: Final[dict[Quantity, str]] = {"energy": "kcal/mol", "relative energy": "kcal/mol", "forces": "kcal/mol/Å"}
_INTERVALS = "In brackets the interval that holds 95 % of 2,000 draws"


@dataclass(frozen=True, slots=True)
class Section:
    """A heading with a sentence, a table and figures (SVG, caption)."""

    heading: str
    text: str = ""
    table: Table | None = None
    figures: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """All that is said."""

    title: str
    kind: str
    lead: str
    tiles: Sequence[tuple[str, str]]
    sections: Sequence[Section]
    notes: Sequence[str] = field(default_factory=list)


def render(page: Page) -> str:
    """The page as HTML."""
    return template("assessment.html").render(page=page, headline=page.tiles)


def evaluation_page(found: Evaluation) -> Page:
    """One model on labelled files."""
    sections = [
        Section(
            "Errors",
            f"{_INTERVALS} of {found.drawn}.",
            _errors_table(found.errors),
            _parities(found.dataset, {found.model.name: found.answers}, found.model.references),
        ),
        *(Section(f"By {how}", table=_groups_table(how, rows)) for how, rows in found.groups.items()),
    ]
    if found.elements:
        head = ["force components of", "atoms", "MAE (meV/Å)", "RMSE (meV/Å)"]
        rows = [[symbol, f"{atoms:,}", short(mae), short(rmse)] for symbol, atoms, mae, rmse in found.elements]
        sections.append(Section("Forces by element", table=Table(head, rows)))
    if found.spread is not None:
        sections.append(_spread_section(found))
    names = ", ".join(path.name for path in found.files)
    return Page(
        title=f"{found.model.name} on {names}",
        kind="Evaluation",
        lead=f"{found.model.name}: {found.model.what}. {len(found.dataset):,} frames, "
        f"{len(found.dataset.numbers):,} atoms.",
        tiles=_tiles(found.errors),
        sections=sections,
        notes=found.notes,
    )


def comp6_page(model: str, what: str, subsets: Sequence[Subset], window: float, pairs: str) -> Page:
    """The COMP6 protocol."""
    whole = subsets[-1].errors
    counted = "pairs of all conformers" if pairs == "all" else "each conformer with the lowest"
    return Page(
        title=f"{model} on COMP6's protocol",
        kind="Evaluation",
        lead=f"{model}: {what}. Conformers at most {window:g} kcal/mol above the lowest of their molecule by reference "
        f"energies; relative energies: {counted} of one molecule. In kcal/mol and kcal/mol/Å, not per atom.",
        tiles=[(f"{short(e.mae.value)} {UNITS[name]}", f"{name}, MAE") for name, e in whole.items()],
        sections=[_subset_section(subset) for subset in reversed(subsets)],
        notes=[f"{subset.name}: {subset.notes}" for subset in subsets if subset.notes],
    )


def comparison_page(found: Comparison) -> Page:
    """Two models on the same frames."""
    first, second = found.models
    head = ["", first.name, second.name, "second less first, MAE", "second less first, RMSE", "errs less"]
    rows = [
        [name, _text(c.first.mae), _text(c.second.mae), _text(c.mae_difference), _text(c.rmse_difference), c.better]
        for name, c in found.contests.items()
    ]
    text = (
        f"Mean absolute errors. {_INTERVALS} of {found.drawn}, the same draws for both models: a difference whose "
        "interval leaves out 0 is not one of the choice of frames."
    )
    both = {f"first: {first.name}": found.answers[0], f"second: {second.name}": found.answers[1]}
    decided = {name: contest.better for name, contest in found.contests.items()}
    return Page(
        title=f"{first.name} and {second.name}",
        kind="Comparison",
        lead=f"{len(found.dataset):,} frames that both can answer. {first.name}: {first.what}. {second.name}: "
        f"{second.what}.",
        tiles=[(better, f"{name.split(' (')[0]}: errs less") for name, better in decided.items()],
        sections=[
            Section("Errors", text, Table(head, rows), _parities(found.dataset, both, first.references)),
            Section("Cost", _COST, _cost_table(found)),
        ],
        notes=[f"{found.left_out} frames with elements that one of them does not know were left out."]
        if found.left_out
        else [],
    )


_COST = (
    "Milliseconds: energy and forces of one structure of these files alone, neighbour list included, in this process "
    "on one thread; of 30 structures the median, of each the best of five."
)


def _cost_table(found: Comparison) -> Table:
    head = ["", *(model.name for model in found.models), "first over second"]
    kinds = {
        "one structure (ms)": found.milliseconds,
        "members": tuple(float(model.members) for model in found.models),
        "parameters": tuple(float(model.parameters) for model in found.models),
        "file that answers (MB)": tuple(model.bytes / 1e6 for model in found.models),
    }
    return Table(head, [[name, *map(_plain, both), f"{both[0] / both[1]:.3g}"] for name, both in kinds.items()])


def _plain(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else short(value)


def _tiles(found: dict[str, Errors]) -> list[tuple[str, str]]:
    units = {ENERGY: "meV", SHIFTED: "meV", FORCES: "meV/Å"}
    return [
        (f"{short(found[name].mae.value)} {unit}", f"{name.split(' (')[0]}, MAE")
        for name, unit in units.items()
        if name in found
    ]


def _errors_table(found: dict[str, Errors]) -> Table:
    head = ["", "MAE", "RMSE", "numbers"]
    return Table(head, [[name, _text(e.mae), _text(e.rmse), f"{e.count:,}"] for name, e in found.items()])


def _groups_table(how: str, rows: Sequence[Group]) -> Table:
    head = [how, "frames", "energy MAE (meV)", "energy RMSE (meV)", "MAE an atom (meV)"]
    with_forces = any(np.isfinite(row.forces_mae) for row in rows)
    head += ["force MAE (meV/Å)", "force RMSE (meV/Å)"] if with_forces else []
    texts = []
    for row in rows:
        texts.append([row.name, f"{row.frames:,}", short(row.energy_mae), short(row.energy_rmse)])
        texts[-1] += [short(row.per_atom_mae)]
        texts[-1] += [short(row.forces_mae), short(row.forces_rmse)] if with_forces else []
    return Table(head, texts)


def _subset_section(subset: Subset) -> Section:
    head = ["", "MAE", "RMSE", "mean of the molecules' MAE", "numbers"]
    rows = [
        [f"{name} ({UNITS[name]})", _text(e.mae), _text(e.rmse), _text(e.by_molecule), f"{e.count:,}"]
        for name, e in subset.errors.items()
    ]
    kept = f"{subset.molecules:,} molecules, {subset.kept:,} of {subset.total:,} conformers kept"
    text = f"{kept}. {_INTERVALS} of molecules."
    return Section("All files" if subset.name == OVERALL else subset.name, text, Table(head, rows))


def _text(of: Estimate) -> str:
    if not np.isfinite(of.low):
        return short(of.value)
    return f"{short(of.value)} [{short(of.low)}, {short(of.high)}]"


def _parities(dataset: Dataset, answers: dict[str, Answers], references: dict[str, float]) -> list[tuple[str, str]]:
    """Energies beside atomic references, which would hide everything else, and forces; predictions by name."""
    beside = dataset.energy - reference_energies(list(dataset), references)
    formulas = dataset.compositions()
    energies = {
        name: figures.Scatter(beside, beside + less_its_mean(answer.energy - dataset.energy, formulas))
        for name, answer in answers.items()
    }
    drawn = [(figures.parity(energies, "energy", "eV"), _ENERGIES)]
    if (label := dataset.forces) is not None:
        forces = {name: figures.Scatter(label.ravel(), answer.forces.ravel()) for name, answer in answers.items()}
        drawn.append((figures.parity(forces, "force component", "eV/Å"), "Force components."))
    return [(Markup(svg), caption) for svg, caption in drawn]


_ENERGIES = (
    "Energies without atomic references, and one constant a formula off the predictions: labels may have a zero of "
    "their own. On the line model and label agree."
)


def _spread_section(found: Evaluation) -> Section:
    spread, std = found.spread, found.answers.std
    if spread is None or std is None:
        raise ValueError("a single network has no spread")
    held = [f"{100 * share:.1f} %" for share in spread.held]
    head = [*(f"inside the {100 * level:.0f} % interval" for level in NOMINAL), "68 % of errors below, in std", "rank"]
    text = (
        "How often the label lay inside the interval of the standard deviation that the model gives, and Spearman's "
        "correlation of spread and error. A published model's was scaled on its own validation data, a run's is as its "
        "members spread."
    )
    table = Table(["energy", *head], [["all frames", *held, short(spread.scale), f"{spread.rank_correlation:.2f}"]])
    drawn = figures.calibration(
        [figures.Spread("energy", "eV", found.energy_error, std, spread.scale)], found.model.members
    )
    caption = "Dashed: the spread as it was given; full: with the scale that would hold 68 % of these errors."
    return Section("Whether its uncertainty can be trusted here", text, table, [(Markup(drawn), caption)])
