"""`understudy harvest`: what the gateway kept for training, listed and exported."""

import os
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from contract.files import replaced
from service.harvest import comment_values, files_of, frames_in

app = typer.Typer(
    help="What the gateway kept for training: structures it may have answered badly.", no_args_is_help=True
)
Folder = Annotated[
    Path,
    typer.Option(
        envvar="UNDERSTUDY_HARVEST",
        exists=True,
        file_okay=False,
        help="The gateway's harvest folder.",
        show_default=False,
    ),
]


@app.command("list")
def show(folder: Folder) -> None:
    """Count the harvested structures by model, digest and reason."""
    counts: Counter[tuple[str, str, str]] = Counter()
    files = files_of(folder)
    for path in files:
        for frame in frames_in(path):
            said = comment_values(frame)
            counts[f"{said['model']} {said['model_version']}", said["model_digest"][:12], said["reasons"]] += 1
    table = Table("model", "digest", "reasons", "structures", box=None)
    for (model, digest, reasons), count in sorted(counts.items()):
        table.add_row(model, digest, reasons, str(count))
    size = sum(path.stat().st_size for path in files)
    console = Console(width=None if os.isatty(1) else 200)
    console.print(table)
    console.print(f"{counts.total()} structures in {len(files)} files, {size:,} bytes, in {folder}", highlight=False)


@app.command()
def export(
    out: Annotated[Path, typer.Argument(help="Extended XYZ file to write.", dir_okay=False)],
    folder: Folder,
    model: Annotated[str, typer.Option(help="Only what this model answered.")] = "",
    reason: Annotated[str, typer.Option(help="Only what has this reason, such as out_of_domain.")] = "",
) -> None:
    """Write harvested structures into one file, for a reference calculation."""
    count = 0
    with replaced(out) as part, part.open("w") as stream:
        for path in files_of(folder):
            for frame in frames_in(path):
                said = comment_values(frame)
                if (model and said["model"] != model) or (reason and reason not in said["reasons"].split(",")):
                    continue
                stream.write("\n".join(frame) + "\n")
                count += 1
    typer.echo(f"Wrote {count} structures to {out}")
