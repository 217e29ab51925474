"""MODEL_CARD.md of a model of flow, with its plots: the card for people."""

from collections.abc import Iterable
from pathlib import Path

from contract.card import FieldCard
from training.flow_evaluation import load_tables
from training.model_card import metrics_table, table
from training.report.flow import calibration_figure, parity_figure
from training.report.summary import duration


def write_flow_card(card: FieldCard, run: Path, folder: Path) -> None:
    """Write MODEL_CARD.md and its plots into a model's folder.

    Args:
        card: complete.
        run: the training run, with its predictions and slices.png.
        folder: of the model.
    """
    tables = load_tables(run)
    (folder / "parity.svg").write_text(parity_figure(tables))
    (folder / "slices.png").write_bytes((run / "slices.png").read_bytes())
    if card.committee.log_permeability is not None:
        (folder / "calibration.svg").write_text(calibration_figure(tables))
    (folder / "MODEL_CARD.md").write_text("\n\n".join(_paragraphs(card)) + "\n")


def _paragraphs(card: FieldCard) -> Iterable[str]:
    yield f"# {card.name}, version {card.version}"
    yield card.purpose
    yield "## What it answers"
    yield table(("quantity", "unit", "convention"), [(k, u, card.signs.get(k, "")) for k, u in card.units.items()])
    yield f"Axes: {card.signs['axes']}."
    yield "## What it was trained on"
    yield from _domain(card)
    split, source = card.split, card.data[0]
    yield (
        f"**{source.name}**: {source.count:,} flows, {source.level_of_theory}, {source.licence}. {source.notes} sha256 "
        f"`{source.sha256}`; {source.origin}."
    )
    yield f"Split {split.train:,} / {split.valid:,} / {split.test:,} (train, validation, test): {split.method}."
    yield "## Errors on images it never saw"
    yield metrics_table(card.metrics, card.compared_with)
    yield "![parity](parity.svg)"
    yield "![slices](slices.png)"
    yield "## Uncertainty"
    yield from _uncertainty(card)
    yield "## Speed"
    last = card.batching.points[-1]
    yield (
        f"{card.batching.engine} on {card.batching.device}, {card.batching.threads} thread: "
        f"{last.milliseconds / 1e3:.2g} s for an image of {last.slots:,} voxels and one axis. At most "
        f"{card.max_voxels:,} voxels a request and axis."
    )
    yield "## How it was made"
    training = card.training
    yield (
        f"Pipeline `{training.pipeline}`, seed {training.seed}, {training.parameters:,} parameters, about "
        f"{training.epochs} cubes of each image, {duration(training.cpu_seconds)} of CPU time. Code revision "
        f"`{training.revision}`, configuration sha256 `{training.config_sha256}`."
    )
    yield "## Admission checks"
    rows = [(c.name, f"{c.measured:.2g}", f"{c.bound:.2g}", c.unit) for c in card.checks]
    yield table(("check", "measured", "allowed", "unit"), rows)
    yield f"## Licence and citation\n\n{card.licence}"
    yield "\n".join(f"- {entry}" for entry in card.citation)


def _domain(card: FieldCard) -> Iterable[str]:
    domain = card.domain
    yield f"{domain.description}. Anything else is answered with a verdict and the reason."
    low, high = domain.lengths_voxels
    yield "\n".join(
        [
            f"- families: {', '.join(domain.families)}",
            f"- porosity {domain.porosity[0]:.2f} to {domain.porosity[1]:.2f}",
            f"- pores: root mean square distance to the wall {domain.length_scale_voxels[0]:.2f} to "
            f"{domain.length_scale_voxels[1]:.2f} voxels",
            f"- sides of {low} to {high} voxels" if low != high else f"- cubes of {low} voxels",
            f"- std of log k: in the domain up to {domain.log_std_in:.2f}, out of it beyond {domain.log_std_out:.2f}",
        ]
    )


def _uncertainty(card: FieldCard) -> Iterable[str]:
    calibrated = card.committee.log_permeability
    if calibrated is None:
        yield "A single network: no interval is given."
        return
    held = ", ".join(f"{c.observed:.0%} of {c.count} within the {c.nominal:.0%} interval" for c in calibrated.coverage)
    yield (
        f"{card.committee.members} members. The interval of an answer is the members' standard deviation of log k, "
        f"joined with {calibrated.floor:.3g} as the root of both squares, times {calibrated.scale:.3g}, and times "
        f"{calibrated.half_width_95:.2f} for 95 %: quantiles of the errors on {calibrated.fitted_to} validation "
        f"images. On the test part: {held}."
    )
    yield "![calibration](calibration.svg)"
