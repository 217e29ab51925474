"""`understudy permeability`: ask for a rock image, show the answer, and check it by a simulation."""

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final, Literal

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from understudy.client import DEFAULT_URL, Client
from understudy.errors import InvalidImage
from understudy.operator import AT_A_TERMINAL, AsJson, Url, console
from understudy.rock_checks import pores_as_asked, scatter_table, scattered, simulator, verification_table, verified
from understudy.rocks import MODEL, Permeability, RockOptions
from understudy.tables import plain
from understudy.wire import OnOutOfDomain

_KINDS: Final = {
    ".npy": "application/x-npy",
    ".vti": "application/vnd.vtk.vti",
    ".zarr": "application/zip",
    ".zarr.zip": "application/zip",
    ".png": "image/png",
}
_ENTRY: Final = re.compile(r"\.zarray|\.zattrs|\d+(\.\d+)*")
SHOWN: Final = 0.00005
"""An isolated porosity below it would be shown as 0.0000."""
_HEADS: Final = (
    "axis",
    "k (mD)",
    "95 % interval (mD)",
    "k (m^2)",
    "k (voxel^2)",
    "connected porosity",
    "throat (voxels)",
)


def permeability(
    rock: Annotated[
        Path, typer.Argument(exists=True, help="Image: .npy, .npz, .nc, .zarr, .tif, .raw, or a folder of .tif slices.")
    ],
    voxel_um: Annotated[float, typer.Option(help="Side of a voxel in micrometres.")],
    axis: Annotated[str, typer.Option(help="all, or some of x, y, z.")] = "all",
    pore_value: Annotated[str, typer.Option(help="Label of the pores, or several with commas.")] = "",
    shape: Annotated[str, typer.Option(help="Of a .raw file, such as 110,110,110.")] = "",
    dtype: Annotated[str, typer.Option(help="Of a .raw file: uint8, uint16, bool, bits, ...")] = "",
    order: Annotated[Literal["C", "F"], typer.Option(help="Of a .raw file: C (last axis fastest) or F.")] = "C",
    byte_order: Annotated[Literal["little", "big"], typer.Option(help="Of a .raw file.")] = "little",
    model: Annotated[str, typer.Option(help="Model to ask.")] = MODEL,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
    field: Annotated[
        Path | None,
        typer.Option(help="Write the velocity along --axis: .npy, .vti (ParaView), .zarr, or a slice as .png."),
    ] = None,
    verify: Annotated[
        int | None, typer.Option(min=8, help="Also simulate a cube of so many voxels from the middle, and compare.")
    ] = None,
    scatter: Annotated[
        bool, typer.Option("--scatter", help="Also ask for the eight parts alone: is the volume large enough?")
    ] = False,
    on_out_of_domain: Annotated[OnOutOfDomain, typer.Option(help="Where the model was not trained.")] = "flag",
    timeout_s: Annotated[float, typer.Option(help="Seconds that an answer may take.", min=0.1)] = 300.0,
) -> None:
    """Permeability of a segmented rock image along its axes, with interval, porosities, warnings and verdict."""
    options = _options(axis, pore_value, shape, dtype, order, byte_order, model, on_out_of_domain)
    media_type = None if field is None else _kind_of(field, axis)
    if verify is not None:
        simulator()  # if there is none, that is said at once
    with Client(url, timeout_s=timeout_s, retries=AT_A_TERMINAL) as client:
        with _bar() as tell:
            answer = client.permeability(rock, voxel_um, on_progress=tell, **options)
        if field is not None and media_type is not None:
            _write_field(client.field(rock, voxel_um, axis, media_type, **options), axis, field)  # type: ignore[arg-type]
        pores = None if verify is None and not scatter else pores_as_asked(rock, options, answer)
        parts = scattered(client, pores, voxel_um, options) if pores is not None and scatter else None
        checked = verified(client, pores, voxel_um, verify, options) if pores is not None and verify else None
    if as_json:
        more = {"parts": parts, "verification": checked}
        typer.echo(json.dumps(json.loads(answer.model_dump_json()) | {k: v for k, v in more.items() if v is not None}))
        return
    console().print(_answer_table(answer))
    for line in _lines(answer):
        console().print(line, highlight=False)
    if parts is not None:
        console().print(scatter_table(parts, answer))
    if checked is not None:
        console().print(verification_table(checked))


def _options(
    axis: str,
    pore_value: str,
    shape: str,
    dtype: str,
    order: Literal["C", "F"],
    byte_order: Literal["little", "big"],
    model: str,
    on_out_of_domain: OnOutOfDomain,
) -> RockOptions:
    options = RockOptions(axes=axis, model=model, on_out_of_domain=on_out_of_domain)
    try:
        if pore_value:
            options["pore_value"] = [int(part) for part in pore_value.split(",")]
        if shape:
            options["shape"] = [int(part) for part in shape.split(",")]
    except ValueError:
        raise typer.BadParameter("--pore-value and --shape take whole numbers with commas between them") from None
    if dtype:
        options["dtype"] = dtype
    if shape or dtype:
        options["order"], options["byte_order"] = order, byte_order
    return options


def _kind_of(path: Path, axis: str) -> str:
    """The media type of the file for the velocity; what is wrong with it is said before anything is computed."""
    if axis not in ("x", "y", "z"):
        raise typer.BadParameter("--field is that of one axis: add --axis x, y or z")
    media_type = next((kind for suffix, kind in _KINDS.items() if path.name.lower().endswith(suffix)), None)
    if media_type is None:
        raise typer.BadParameter(f"--field writes {', '.join(_KINDS)}: name the file so")
    if not path.parent.is_dir():
        raise typer.BadParameter(f"--field: there is no folder {path.parent}")
    return media_type


def _write_field(content: bytes, axis: str, path: Path) -> None:
    if path.suffix.lower() == ".zarr":
        _unpack(content, path)
    else:
        path.write_bytes(content)
    Console(stderr=True).print(Text(f"Wrote the velocity along {axis} (voxel^2) to {path}", "dim"))


def _unpack(content: bytes, folder: Path) -> None:
    """A Zarr array from a zip archive into a folder; entries are named as those of an array, and no others."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        folder.mkdir(parents=True, exist_ok=True)
        for name in archive.namelist():
            if not _ENTRY.fullmatch(name):
                raise InvalidImage(f"The gateway's archive holds '{name[:60]}'.", code="invalid_answer")
            (folder / name).write_bytes(archive.read(name))


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error that appears with the first step: only large images have any."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        tasks: list[TaskID] = []

        def tell(done: int, total: int) -> None:
            if total and not tasks:
                tasks.append(progress.add_task("in tiles", total=total))
            if tasks:
                progress.update(tasks[0], completed=done, total=total)

        yield tell


def _answer_table(answer: Permeability) -> Table:
    table = Table(title=f"{answer.model} version {answer.version}, voxel {answer.image.get('voxel_size_um'):g} um")
    for head in _HEADS:
        table.add_column(head, justify="right")
    for axis, k in answer.k_mD.items():
        interval, throat = answer.interval_95["k_mD"][axis], answer.throat_voxels[axis]
        table.add_row(
            axis,
            plain(k, 4),
            "" if interval is None else f"{plain(interval[0], 3)} to {plain(interval[1], 3)}",
            f"{answer.k_m2[axis]:.3e}",
            f"{answer.k_voxel2[axis]:.4g}",
            f"{answer.connected_porosity[axis]:.4f}",
            "" if throat is None else f"{throat:.1f}",
        )
    return table


def _lines(answer: Permeability) -> list[Text]:
    verdict = {"in": "in the model's domain", "edge": "at the edge of the model's domain", "out": "OUT of the domain"}
    isolated = f", isolated {answer.isolated_porosity:.4f}" if (answer.isolated_porosity or 0.0) >= SHOWN else ""
    domain, seconds = verdict[answer.domain.verdict], answer.seconds["total"]
    lines = [Text(f"porosity {answer.porosity:.4f}{isolated}; {domain}; {seconds:.1f} s")]
    lines += [Text(f"  {reason}", "dim") for reason in answer.domain.reasons]
    if answer.residuals:
        uneven = ", ".join(f"{axis} {100 * each['flux_std']:.1f} %" for axis, each in answer.residuals.items())
        solid = max(each["velocity_in_solid"] for each in answer.residuals.values())
        lines.append(Text(f"  flux over the slices scatters by {uneven}; velocity in the solid {solid:g}", "dim"))
    return lines + [Text(f"{warned.code}: {warned.text}", "yellow") for warned in answer.warnings]
