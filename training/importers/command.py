"""`understudy import hippynn` and `understudy import ani`: the commands for training/cli.py to register."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml
from rich.console import Console
from rich.table import Table

from contract.elements import NUMBERS
from training.refusals import told

_console = Console(stderr=True)

# As in training/networks/hippynn_weights.py, which imports torch: too slow for every start of the command line.
EnergyUnitOption = Literal["eV", "hartree", "kcal/mol", "kJ/mol"]
LengthUnitOption = Literal["angstrom", "bohr"]


@told()
def import_hippynn_command(
    checkpoint: Annotated[
        Path, typer.Argument(exists=True, help="best_model.pt, or the folder of a hippynn experiment.")
    ],
    name: Annotated[str, typer.Option(help="Name of the run, and of the model when it is published.")],
    energy_unit: Annotated[EnergyUnitOption, typer.Option(help="Unit of the energies it was trained on.")],
    length_unit: Annotated[LengthUnitOption, typer.Option(help="Unit of the positions it was trained on.")],
    cutoff: Annotated[float | None, typer.Option(help="dist_hard_max, in the unit of length.")] = None,
    soft_min: Annotated[float | None, typer.Option(help="dist_soft_min, in the unit of length.")] = None,
    soft_max: Annotated[float | None, typer.Option(help="dist_soft_max, in the unit of length.")] = None,
    activation: Annotated[Literal["softplus"] | None, typer.Option(help="hippynn's default is softplus.")] = None,
    elements: Annotated[
        str, typer.Option(help="Such as H,C,O in the order of possible_species, if the weights do not say.")
    ] = "",
    energy_node: Annotated[
        str | None, typer.Option(help="Which readout is the energy, such as node18, if there are several.")
    ] = None,
    purpose: Annotated[str, typer.Option(help="What the model is for; stands on its card.")] = "",
    held_out: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="YAML like the `data` section of a training configuration."),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Open experiment_structure.pt, a pickle: it can run any code.")
    ] = False,
    runs: Annotated[Path, typer.Option(help="Folder of training runs.")] = Path("runs"),
) -> None:
    """Bring a model trained with hippynn 0.1.3 into the folder of runs, ready for `understudy publish`.

    Cutoff, soft distances and activation are not in best_model.pt: give them, or --trust the experiment's own file.

    Labels that the network has not seen (--held-out) give the errors on its card.
    """
    from training.importers.hippynn import HippynnImport, import_hippynn

    config = HippynnImport(
        name=name,
        purpose=purpose or f"{name}, trained with hippynn and imported",
        energy_unit=energy_unit,
        length_unit=length_unit,
        cutoff=cutoff,
        soft_min=soft_min,
        soft_max=soft_max,
        activation=activation,
        elements=_atomic_numbers(elements),
        energy_node=energy_node,
        held_out=_data(held_out),
    )
    run = import_hippynn(checkpoint, config, runs / name, trust=trust)
    _console.print(f"imported {name}: {runs / name}", highlight=False)
    if run.record["metrics"]:
        _console.print(_metrics_table(run.record["metrics"]))


@told()
def import_ani_command(
    files: Annotated[Path, typer.Argument(exists=True, help="Folder or .tar.gz of an ensemble in NeuroChem's format.")],
    name: Annotated[str, typer.Option(help="Of the run and the model; default that of the files.")] = "",
    purpose: Annotated[str, typer.Option(help="What the model is for; stands on its card.")] = "",
    licence: Annotated[str, typer.Option(help="Of the weights.")] = "MIT",
    held_out: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="YAML like the `data` section of a training configuration."),
    ] = None,
    zero: Annotated[
        Literal["labels", "fitted"],
        typer.Option(help="fitted: take one constant a formula off, for held-out labels with a zero of their own."),
    ] = "labels",
    typical: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Extended xyz, frames of the kind that the model is for."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Folder of training runs.")] = Path("runs"),
) -> None:
    """Bring a published ANI ensemble (ANI-1x, ANI-1ccx) into the folder of runs, ready for `understudy publish`.

    Labels that the networks have not seen (--held-out) give the errors on its card; the admission needs them. Typical
    frames tell which surroundings of atoms, distances and spreads of the committee are inside its domain.
    """
    from training.importers.ani import AniImport, import_ani

    name = name or _published_name(files)
    config = AniImport(
        name=name,
        purpose=purpose or f"{name}, the published ANI ensemble",
        licence=licence,
        held_out=_data(held_out),
        zero=zero,
        typical=typical,
    )
    run = import_ani(files, config, runs / name)
    members = run.network.config.members
    _console.print(f"imported {name}, {members} networks: {runs / name}", highlight=False)
    if run.record["metrics"]:
        _console.print(_metrics_table(run.record["metrics"]))


def _published_name(files: Path) -> str:
    """ani-1ccx of ani-1ccx_8x.tar.gz."""
    return files.name.removesuffix(".tar.gz").split("_")[0].lower()


def _atomic_numbers(text: str) -> list[int] | None:
    symbols = [symbol.strip() for symbol in text.split(",") if symbol.strip()]
    unknown = [symbol for symbol in symbols if symbol not in NUMBERS]
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(unknown)}: no such element. Write symbols such as H,C,O", param_hint="--elements"
        )
    return [NUMBERS[symbol] for symbol in symbols] or None


def _data(path: Path | None) -> Any:
    return None if path is None else yaml.safe_load(path.read_text())


def _metrics_table(metrics: list[dict[str, Any]]) -> Table:
    table = Table("on held-out labels", "value", "unit", "structures")
    for metric in metrics:
        table.add_row(metric["name"], f"{metric['value']:.4g}", metric["unit"], str(metric["count"]))
    return table
