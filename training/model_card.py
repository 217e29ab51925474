"""MODEL_CARD.md: the card for people, with its plots."""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Final

from contract.card import Comparison, Metric, ModelCard
from training.calibration import NOMINAL
from training.candidate import Candidate, HeldOut, reference_energies
from training.report.figures import Scatter, Spread, batching, calibration, parity
from training.report.summary import duration

_PLACED: Final = {"parity", "batching", "calibration"}
BAR: Final = r"\|"


def write_model_card(card: ModelCard, candidate: Candidate, folder: Path) -> None:
    """Write MODEL_CARD.md and its plots (SVG) into a model's folder."""
    plots = _plots(card, candidate)
    for name, drawing in plots.items():
        (folder / f"{name}.svg").write_text(drawing)
    (folder / "MODEL_CARD.md").write_text("\n\n".join(_paragraphs(card, plots)) + "\n")


def _plots(card: ModelCard, candidate: Candidate) -> dict[str, str]:
    test, references = candidate.test, candidate.references
    plots = {"parity": _parity(test, references), "batching": batching(card.batching)}
    committee = card.committee
    if test.std is not None and committee.energy is not None:
        quantities = [Spread("energy", "eV", test.error(references), test.std, committee.energy.scale)]
        if test.forces is not None and committee.forces is not None:
            quantities.append(Spread("forces", "eV/Å", *test.forces, committee.forces.scale))
        plots["calibration"] = calibration(quantities, committee.members)
    return plots | dict(candidate.figures)


def _parity(test: HeldOut, references: dict[str, float]) -> str:
    """Of energies, or of forces where those are all that is known."""
    if test.energy is not None:
        beside = test.energy - reference_energies(test.structures, references)
        points = Scatter(beside, beside + test.error(references))
        return parity({"test": points}, "energy above atomic references", "eV")
    if test.force_labels is None:
        raise ValueError("held-out frames have neither energies nor forces")
    target, predicted = (each.astype(float).ravel() for each in test.force_labels)
    return parity({"test": Scatter(target, predicted)}, "force component", "eV/Å")


def _paragraphs(card: ModelCard, plots: Collection[str]) -> Iterable[str]:
    yield f"# {card.name}, version {card.version}"
    yield card.purpose
    yield "## What it answers"
    yield table(("quantity", "unit", "sign"), [(k, u, card.signs.get(k, "")) for k, u in card.units.items()])
    yield from _beads(card)
    yield "## What it was trained on"
    yield f"{card.domain.description}. Anything else is answered with `in_domain: false` and the reason."
    yield "\n".join(_domain(card))
    for source in card.data:
        yield (
            f"**{source.name}**: {source.count:,} labels at {source.level_of_theory}, {source.licence}. "
            f"{source.notes} sha256 `{source.sha256}`. {source.citation}. <{source.origin}>"
        )
    split = card.split
    yield f"Split {split.train:,} / {split.valid:,} / {split.test:,} (train, validation, test), {split.method}."
    yield "## Errors on data it never saw"
    yield metrics_table(card.metrics, card.compared_with)
    yield from (f"{other.name}: {other.notes}" for other in card.compared_with if other.notes)
    yield from (f"![{name}]({name}.svg)" for name in plots if name not in _PLACED)
    yield "![parity](parity.svg)"
    if card.properties:
        yield "## Properties beside those of the reference"
        yield "No label states them; both were computed alike."
        yield table(
            ("property", "unit", "this model", "reference"),
            [(p.name, p.unit, f"**{p.value:.4g}**", f"{p.reference:.4g}") for p in card.properties],
        )
    yield "## Uncertainty"
    yield from _uncertainty(card)
    if "calibration" in plots:
        yield "![calibration](calibration.svg)"
    yield from _detection(card)
    yield from _teacher(card)
    yield "## Speed"
    best = min(card.batching.points, key=lambda p: p.milliseconds / p.slots)
    yield (
        f"{card.batching.engine} on {card.batching.device}, {card.batching.threads} thread: "
        f"{card.batching.points[0].milliseconds:.3g} ms for one structure of the test set, "
        f"{1e3 * best.milliseconds / best.slots:.3g} microseconds a neighbour slot in batches of {best.slots:,} slots."
    )
    if memory := card.batching.memory.get("model.onnx"):
        per_slot, per_atom = memory.bytes_per_slot / 1e3, memory.bytes_per_atom / 1e3
        yield f"A call takes {per_slot:.3g} kB of memory for each neighbour slot and {per_atom:.3g} kB for each atom."
    yield "![batching](batching.svg)"
    yield "## How it was made"
    training = card.training
    yield (
        f"Pipeline `{training.pipeline}`, seed {training.seed}, {training.parameters:,} parameters, {training.epochs} "
        f"epochs, {duration(training.cpu_seconds)} of CPU time. Code revision `{training.revision}`, configuration "
        f"sha256 `{training.config_sha256}`."
    )
    yield "## Admission checks"
    yield table(
        ("check", "measured", "allowed", "unit"),
        [(c.name, f"{c.measured:.2g}", f"{c.bound:.2g}", c.unit) for c in card.checks],
    )
    yield f"## Licence and citation\n\n{card.licence}"
    yield "\n".join(f"- {entry}" for entry in card.citation)


def _beads(card: ModelCard) -> Iterable[str]:
    """What a coarse-grained model's symbols and energies mean."""
    if card.energy_is == "free energy":
        yield (
            "The energy is an **effective free energy** of the beads at the states listed below, not a potential "
            "energy: its forces are means over the atoms that are left out. Its zero is arbitrary, and it changes with "
            "temperature and density."
        )
    if card.domain.beads:
        yield "## Beads, not atoms"
        rows = [(s, b.label, b.stands_for, f"{b.mass_u:g} u") for s, b in card.domain.beads.items()]
        yield table(("symbol in requests", "bead", "stands for", "mass"), rows)


def _domain(card: ModelCard) -> Iterable[str]:
    domain = card.domain
    if domain.states:
        states = "; ".join(f"{state.kelvin:g} K, {state.density_g_cm3:g} g/cm3" for state in domain.states)
        yield f"- states: {states}"
    yield f"- elements: {', '.join(domain.elements)}; formulas: {', '.join(domain.formulas or ['any'])}"
    yield f"- cutoff: {domain.cutoff_angstrom:g} angstrom; at most {card.max_slots:,} neighbour slots a request"
    if domain.min_distance_angstrom:
        closest = ", ".join(f"{pair} {d:.2f}" for pair, d in domain.min_distance_angstrom.items())
        yield f"- closest neighbours in training (angstrom): {closest}"
    if domain.energy_std_in_ev is not None and domain.energy_std_out_ev is not None:
        inside, outside = 1e3 * domain.energy_std_in_ev, 1e3 * domain.energy_std_out_ev
        of = (
            ""
            if domain.energy_std_atoms is None
            else f", of {domain.energy_std_atoms} atoms; more of more in proportion"
        )
        yield f"- committee std: in the domain up to {inside:.1f} meV, out of it beyond {outside:.1f} meV{of}"


def _teacher(card: ModelCard) -> Iterable[str]:
    if card.teacher is None:
        return
    yield "## Its teacher"
    yield f"Distilled from {card.teacher.name}, version {card.teacher.version}, digest `{card.teacher.digest}`."
    if (gap := card.teacher.gap) is not None:
        yield (
            f"On {gap.count:,} structures that neither was fitted to, the two are {1e3 * gap.energy_ev_per_atom:.2f} "
            f"meV an atom and {gap.forces_ev_angstrom:.3f} eV/angstrom (forces, root mean square) apart in the mean; "
            f"one structure in twenty exceeds {1e3 * gap.energy_bound_ev_per_atom:.2f} meV an atom or "
            f"{gap.forces_bound_ev_angstrom:.3f} eV/angstrom. The service takes a running mean above that for drift."
        )


def _uncertainty(card: ModelCard) -> Iterable[str]:
    committee = card.committee
    if committee.members == 1:
        yield "A single network: no standard deviation is given."
        return
    if committee.energy is None:
        yield (
            f"{committee.members} members. A standard deviation in an answer is their sample standard deviation "
            f"(ddof = {committee.ddof}) as it is: no held-out labels of the quantity itself are there to scale it."
        )
        return
    yield (
        f"{committee.members} members. A standard deviation in an answer is their sample standard deviation "
        f"(ddof = {committee.ddof}) times a scale that was fitted on the validation part, so that it holds 68 % of the "
        f"errors; {committee.energy.half_width_95:.2f} of them hold 95 % (Student's t with {committee.members - 1} "
        "degrees of freedom). On the test part, which neither the weights nor the scale have seen:"
    )
    rows = [
        (name, f"{c.scale:.3g}", *(f"{held.observed:.1%}" for held in c.coverage), f"{c.coverage[0].count:,}",
         "" if c.rank_correlation is None else f"{c.rank_correlation:.2f}", c.against)
        for name, c in (("energy", committee.energy), ("force component", committee.forces))
        if c is not None
    ]  # fmt: skip
    held = (f"{100 * level:.0f} % interval held" for level in NOMINAL)
    yield table(("of", "scale", *held, "numbers", "Spearman's, spread and error", "against"), rows)
    if committee.forces is None:
        yield "No forces were held out: the scale of the energy serves forces and stress too, untested."
    else:
        yield "The scale of the forces serves the stress too, untested."


def _detection(card: ModelCard) -> Iterable[str]:
    around = card.domain.surroundings
    if around is None:
        return
    yield "## Structures unlike the training data"
    yield (
        f"Each atom's surroundings are compared with {around.centres} kept environments of its element. The distance "
        f"is 1 at the edge of what held-out frames reach; beyond {around.out_beyond:g} the verdict is `out`. Of the "
        f"test frames {around.held_out_flagged:.1%} are flagged. Made from them:"
    )
    rows = [(d.kind, f"{d.auroc:.3f}", f"{d.flagged:.0%}", f"{d.count:,}") for d in around.detection]
    yield table(("kind", "AUROC", "flagged", "structures"), rows)


def metrics_table(metrics: Sequence[Metric], others: Sequence[Comparison]) -> str:
    """Errors of a model beside those of others, as Markdown."""
    names = [m.name for m in metrics]
    columns = [{m.name: m for m in other.metrics} for other in others]
    rows = []
    for metric in metrics:
        beside = [f"{c[metric.name].value:.4g}" if metric.name in c else "" for c in columns]
        rows.append((metric.name, metric.unit, f"{metric.count:,}", f"**{metric.value:.4g}**", *beside))
    for column, other in zip(columns, others, strict=True):
        for name in column.keys() - set(names):
            empty = [""] * len(others)
            empty[list(others).index(other)] = f"{column[name].value:.4g}"
            rows.append((name, column[name].unit, f"{column[name].count:,}", "", *empty))
    return table(("error", "unit", "structures", "this model", *(o.name for o in others)), rows)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    return "\n".join([_row(head), f"|{'---|' * len(head)}", *(_row(row) for row in rows)])


def _row(cells: Sequence[str]) -> str:
    """A bar inside a cell, as in |det cell|, would end it."""
    return f"| {' | '.join(cell.replace('|', BAR) for cell in cells)} |"
