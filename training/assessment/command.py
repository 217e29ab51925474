"""`understudy evaluate`, `understudy evaluate comp6` and `understudy compare`: the commands for training/cli.py."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table as RichTable
from typer.core import TyperGroup

from contract.repository import ModelRepository
from training.refusals import told

if TYPE_CHECKING:
    from training.assessment.page import Page

FILES = "files"

ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="Name of a published model, NAME:VERSION, or the folder of a run.")
]
FilesArgument = Annotated[
    list[Path], typer.Argument(exists=True, dir_okay=False, help="Labelled extended xyz, or HDF5 by molecule (.h5).")
]
RepositoryOption = Annotated[Path, typer.Option("--model-repo", help="Folder of published models.")]
PageOption = Annotated[Path, typer.Option("--page", help="Where the HTML page is written.")]
UnitOption = Annotated[
    Literal["eV", "hartree", "kcal/mol"], typer.Option(help="Of extended xyz; forces are in it per angstrom.")
]
SignOption = Annotated[
    Literal["forces", "gradient", "measured"],
    typer.Option(help="What HDF5 files call forces: -dE/dr, +dE/dr, or measured from energies of close conformers."),
]
EnergyKeyOption = Annotated[str | None, typer.Option(help="HDF5: name of the energies, if there are several.")]
ForcesKeyOption = Annotated[str | None, typer.Option(help="HDF5: name of the forces; `none` to leave them alone.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="CPU threads.")]

_console = Console(stderr=True)


class _FilesUnlessNamed(TyperGroup):
    """A group whose first word may be left out: what is no command of it is the model of `files`."""

    def resolve_command(self, ctx: typer.Context, args: list[str]) -> Any:  # type: ignore[override]
        """The named command, or `files`."""
        return super().resolve_command(ctx, args if args[0] in self.commands else [FILES, *args])


evaluate_app = typer.Typer(
    cls=_FilesUnlessNamed,
    help="Errors of a model on labelled files: MODEL FILES..., or comp6 MODEL FILES... for COMP6's protocol.",
    no_args_is_help=True,
    add_completion=False,
)


@evaluate_app.command(FILES)
@told()
def evaluate_command(
    model: ModelArgument,
    files: FilesArgument,
    model_repo: RepositoryOption = Path("model_repo"),
    page: PageOption = Path("evaluation.html"),
    by: Annotated[str | None, typer.Option(help="A key of extended xyz to part the frames by.")] = None,
    energy_unit: UnitOption = "eV",
    forces_are: SignOption = "measured",
    energy_key: EnergyKeyOption = None,
    forces_key: ForcesKeyOption = None,
    threads: ThreadsOption = 1,
) -> None:
    """Errors of energies and forces by size, formula and element, with intervals; calibration; parity plots.

    `files` may be left out: understudy evaluate MODEL FILES...
    """
    from training.assessment.evaluate import evaluate
    from training.assessment.judged import judged
    from training.assessment.page import evaluation_page

    _use(threads)
    how = _reading(energy_unit, forces_are, energy_key, forces_key, by)
    found = evaluation_page(evaluate(judged(model, ModelRepository(model_repo)), files, how))
    _show(found, page)


@evaluate_app.command("comp6")
@told()
def comp6_command(
    model: ModelArgument,
    files: FilesArgument,
    model_repo: RepositoryOption = Path("model_repo"),
    page: PageOption = Path("comp6.html"),
    window: Annotated[float, typer.Option(min=0.0, help="kcal/mol above the lowest conformer of a molecule.")] = 100.0,
    pairs: Annotated[
        Literal["all", "lowest"], typer.Option(help="Relative energies: all pairs, or each with the lowest.")
    ] = "all",
    forces_are: SignOption = "measured",
    energy_key: EnergyKeyOption = None,
    forces_key: ForcesKeyOption = None,
    threads: ThreadsOption = 1,
) -> None:
    """COMP6's protocol: energies, relative energies and forces in kcal/mol, with intervals over molecules."""
    from training.assessment.comp6 import comp6
    from training.assessment.judged import judged
    from training.assessment.page import comp6_page

    _use(threads)
    asked = judged(model, ModelRepository(model_repo))
    how = _reading("eV", forces_are, energy_key, forces_key, None)
    found = comp6_page(asked.name, asked.what, comp6(asked, files, window, pairs, how), window, pairs)
    _show(found, page)


@told()
def compare_command(
    first: Annotated[str, typer.Argument(help="Name of a published model, NAME:VERSION, or the folder of a run.")],
    second: Annotated[str, typer.Argument(help="Likewise.")],
    files: FilesArgument,
    model_repo: RepositoryOption = Path("model_repo"),
    page: PageOption = Path("comparison.html"),
    energy_unit: UnitOption = "eV",
    forces_are: SignOption = "measured",
    energy_key: EnergyKeyOption = None,
    forces_key: ForcesKeyOption = None,
) -> None:
    """Two models on the same frames: errors with paired intervals, speed on one thread, size."""
    from training.assessment.compare import compare
    from training.assessment.judged import judged
    from training.assessment.page import comparison_page

    _use(1)
    repository = ModelRepository(model_repo)
    how = _reading(energy_unit, forces_are, energy_key, forces_key, None)
    found = comparison_page(compare(judged(first, repository), judged(second, repository), files, how))
    _show(found, page)


def _reading(energy_unit: Any, forces_are: Any, energy: str | None, forces: str | None, by: str | None) -> Any:
    from training.assessment.labelled import Reading
    from training.data.ani_hdf5 import AniKeys

    keys = AniKeys(energy=energy, forces=False if forces == "none" else forces)
    return Reading(energy_unit=energy_unit, forces_are=forces_are, keys=keys, by=by)


def _use(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _show(found: "Page", path: Path) -> None:
    """Tables on the terminal, everything on the page."""
    from training.assessment.page import render
    from training.report.page import write_page

    out = Console()
    out.print(found.lead, highlight=False)
    for section in found.sections:
        if section.table is None:
            continue
        table = RichTable(title=section.heading, title_justify="left", caption=section.text, caption_justify="left")
        for place, head in enumerate(section.table.head):
            table.add_column(head, justify="left" if place == 0 else "right", no_wrap=place == 0)
        for row in section.table.rows:
            table.add_row(*row)
        out.print(table)
    for note in found.notes:
        out.print(note, highlight=False)
    _console.print(f"page: {write_page(render(found), path)}", highlight=False, soft_wrap=True)
