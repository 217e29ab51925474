"""The page itself."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup

from contract.card import DataSource, Split
from contract.files import write_text
from training.pipelines.coarse_graining import DISTRIBUTIONS
from training.report import coarse, errors, figures, summary
from training.report.coarse import CoarseGrained, read_coarse
from training.report.folder import Finished, read_finished
from training.report.trust import Trust, trust


def write_report(folder: Path) -> Path:
    """Write report.html of a finished run into its folder, in one step.

    Args:
        folder: of the run (training/checkpoint.py) with its predictions (training/evaluation.py). comparisons.json, a
            list of contract.card.Comparison, is optional: what others achieve on the same test part.

    Raises:
        IncompleteRun: naming the files that are missing.
    """
    text = render_coarse(read_coarse(folder)) if (folder / DISTRIBUTIONS).exists() else render(read_finished(folder))
    return write_page(text, folder / "report.html")


def render(finished: Finished) -> str:
    """The report of a run as HTML."""
    record, trusted = finished.run.record, trust(finished.valid.energies, finished.test.energies)
    return template("report.html").render(
        config=record["config"],
        config_text=finished.config,
        record=record,
        members=finished.members,
        sources=[DataSource.model_validate(source) for source in record["data"]],
        split=Split.model_validate(record["split"]),
        network=summary.network(finished),
        cost=summary.cost(finished),
        loss=summary.loss(finished),
        commands=summary.commands(record["config"]),
        headline=_headline(finished, trusted),
        test_errors=errors.test_errors(finished),
        part_errors=errors.errors_by_part(finished),
        window_errors=errors.errors_by_stratum(finished),
        member_errors=errors.errors_by_member(finished),
        comparisons=finished.comparisons,
        trust=trusted,
        figures={name: Markup(svg) for name, svg in _figures(finished, trusted).items()},
    )


def _headline(finished: Finished, trusted: Trust | None) -> list[tuple[str, str]]:
    """The numbers to know, each with what it is."""
    found = {metric.name: metric.value for metric in finished.test.metrics()}
    trivial = next(m.value for m in finished.comparisons[0].metrics if m.name == "energy MAE")
    tiles = [(f"{errors.short(found['energy MAE'])} meV", "energy MAE on the test part")]
    if "forces MAE" in found:
        tiles.append((f"{errors.short(found['forces MAE'])} meV/Å", "force MAE on the test part"))
    tiles.append(
        (f"{errors.short(trivial / found['energy MAE'])} ×", f"better than the {finished.comparisons[0].name}")
    )
    if trusted is not None:
        tiles.append((trusted.rank, "rank correlation of spread and error"))
    return [*tiles, (summary.duration(finished.run.record["cpu_seconds"]), "CPU time of the training")]


def _figures(finished: Finished, trusted: Trust | None) -> dict[str, str]:
    test = finished.test
    stepwise = finished.run.record["config"]["fit"]["schedule"] == "plateau"
    drawn = {
        "curves": figures.learning_curves(finished.histories, steps=stepwise),
        "energies": figures.parity(
            {name: figures.Scatter(p.above, p.above + p.energies.error) for name, p in finished.parts.items()},
            "energy above the lowest frame",
            "eV",
        ),
        "windows": figures.error_by_energy(test.above, test.energies.error),
    }
    forces = {
        name: figures.Scatter(part.target_forces.ravel(), part.forces.ravel())
        for name, part in finished.parts.items()
        if part.forces is not None and part.target_forces is not None
    }
    if forces:
        drawn["forces"] = figures.parity(forces, "force component", "eV/Å")
    return drawn if trusted is None else drawn | {"calibration": trusted.figure}


def render_coarse(finished: CoarseGrained) -> str:
    """The report of a coarse-grained force field as HTML."""
    run = finished.run
    return template("coarse.html").render(
        config=run.record["config"],
        config_text=finished.config,
        record=run.record,
        members=run.network.config.members,
        sources=[DataSource.model_validate(source) for source in run.record["data"]],
        split=Split.model_validate(run.record["split"]),
        prior=run.network.config.prior,
        network=summary.network(finished),
        cost=summary.cost(finished),
        commands=coarse.commands(run.record["config"]),
        headline=coarse.headline(finished),
        arrangement=coarse.arrangement(finished),
        forces=coarse.forces(finished),
        figures={name: Markup(svg) for name, svg in coarse.drawn(finished).items()},
    )


def write_page(text: str, path: Path) -> Path:
    """Write a page in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def template(name: str) -> Template:
    """A page of this room, strict about what it is given."""
    environment = Environment(
        loader=PackageLoader("training.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    return environment.get_template(name)
