"""`understudy permeability`: ask for a rock image, show the answer, and check it by a simulation."""

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from understudy.client import DEFAULT_URL, Client
from understudy.errors import InvalidImage
from understudy.operator import AT_A_TERMINAL, AsJson, Url, console
from understudy.rocks import MODEL, Permeability, RockOptions, labels_of, rock_body
from understudy.wire import OnOutOfDomain

SIMULATORS: Final = "understudy.simulators"
"""Group of entry points that bring a simulation: here the one that is called "permeability"."""


_KINDS: Final = {
    ".npy": "application/x-npy",
    ".vti": "application/vnd.vtk.vti",
    ".zarr": "application/zip",
    ".zarr.zip": "application/zip",
}
_ENTRY: Final = re.compile(r"\.zarray|\.zattrs|\d+(\.\d+)*")
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
    model: Annotated[str, typer.Option(help="Model to ask.")] = MODEL,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
    field: Annotated[
        Path | None, typer.Option(help="Write the velocity along --axis: .npy, .vti (ParaView) or .zarr.")
    ] = None,
    verify: Annotated[
        int | None, typer.Option(min=8, help="Also simulate a cube of so many voxels from the middle, and compare.")
    ] = None,
    on_out_of_domain: Annotated[OnOutOfDomain, typer.Option(help="Where the model was not trained.")] = "flag",
    timeout_s: Annotated[float, typer.Option(help="Seconds that an answer may take.", min=0.1)] = 300.0,
) -> None:
    """Permeability of a segmented rock image along its axes, with interval, porosities, warnings and verdict."""
    options = _options(axis, pore_value, shape, dtype, order, model, on_out_of_domain)
    with Client(url, timeout_s=timeout_s, retries=AT_A_TERMINAL) as client:
        with _bar() as tell:
            answer = client.permeability(rock, voxel_um, on_progress=tell, **options)
        if field is not None:
            _write_field(client, rock, voxel_um, options, field)
        checked = None if verify is None else _verified(client, rock, voxel_um, verify, answer, options)
    if as_json:
        said = json.loads(answer.model_dump_json())
        typer.echo(json.dumps(said if checked is None else {**said, "verification": checked}))
        return
    console().print(_answer_table(answer))
    for line in _lines(answer):
        console().print(line, highlight=False)
    if checked is not None:
        console().print(_verification_table(checked))


def _options(
    axis: str,
    pore_value: str,
    shape: str,
    dtype: str,
    order: Literal["C", "F"],
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
        options["order"] = order
    return options


def _write_field(client: Client, rock: Path, voxel_um: float, options: RockOptions, path: Path) -> None:
    axis = options.get("axes", "all")
    if axis not in ("x", "y", "z"):
        raise typer.BadParameter("--field is that of one axis: add --axis x, y or z")
    media_type = next((kind for suffix, kind in _KINDS.items() if path.name.lower().endswith(suffix)), None)
    if media_type is None:
        raise typer.BadParameter(f"--field writes {', '.join(_KINDS)}: name the file so")
    content = client.field(rock, voxel_um, axis, media_type, **options)  # type: ignore[arg-type]
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


def _verified(
    client: Client, rock: Path, voxel_um: float, length: int, answer: Permeability, options: RockOptions
) -> dict[str, Any]:
    """A cube from the middle, simulated and asked: permeabilities in millidarcy by axis, and their ratio."""
    simulate = _simulator()
    body = rock_body(rock, options.get("shape"), options.get("dtype"), options.get("order"))
    pore = np.isin(labels_of(body), answer.image["pore_values"])
    cut = tuple(slice((n - min(n, length)) // 2, (n + min(n, length)) // 2) for n in pore.shape)
    cube = np.ascontiguousarray(pore[cut])
    asked = client.permeability(cube, voxel_um, axes=options.get("axes", "all"), model=options.get("model", MODEL))
    simulated = {axis: _simulated(simulate, cube, axis, voxel_um) for axis in asked.k_mD}
    return {
        "shape": list(cube.shape),
        "k_mD": dict(asked.k_mD),
        "interval_95": asked.interval_95["k_mD"],
        "simulated_k_mD": {axis: k for axis, (k, _) in simulated.items()},
        "steady": {axis: steady for axis, (_, steady) in simulated.items()},
    }


def _simulated(simulate: Callable[..., Any], cube: Any, axis: str, voxel_um: float) -> tuple[float, bool]:
    with Console(stderr=True).status(f"simulating {'x'.join(map(str, cube.shape))} voxels along {axis}"):
        flow = simulate(cube, "xyz".index(axis))
    return float(flow.permeability * (voxel_um * 1e-6) ** 2 / 9.869233e-16), bool(flow.converged)


def _simulator() -> Callable[..., Any]:
    """The simulation that an installed distribution brings.

    Raises:
        InvalidImage: none does, with what to install.
    """
    for entry in entry_points(group=SIMULATORS, name="permeability"):
        simulate: Callable[..., Any] = entry.load()
        return simulate
    raise InvalidImage(
        "--verify needs a simulator, and none is installed here.",
        code="no_simulator",
        hint="Install understudy-platform beside the client.",
    )


def _answer_table(answer: Permeability) -> Table:
    table = Table(title=f"{answer.model} version {answer.version}, voxel {answer.image.get('voxel_size_um'):g} um")
    for head in _HEADS:
        table.add_column(head, justify="right")
    for axis, k in answer.k_mD.items():
        interval, throat = answer.interval_95["k_mD"][axis], answer.throat_voxels[axis]
        table.add_row(
            axis,
            f"{k:.4g}",
            "" if interval is None else f"{interval[0]:.3g} to {interval[1]:.3g}",
            f"{answer.k_m2[axis]:.3e}",
            f"{answer.k_voxel2[axis]:.4g}",
            f"{answer.connected_porosity[axis]:.4f}",
            "" if throat is None else f"{throat:.1f}",
        )
    return table


def _lines(answer: Permeability) -> list[Text]:
    verdict = {"in": "in the model's domain", "edge": "at the edge of the model's domain", "out": "OUT of the domain"}
    lines = [Text(f"porosity {answer.porosity:.4f}; {verdict[answer.domain.verdict]}; {answer.seconds['total']:.1f} s")]
    lines += [Text(f"  {reason}", "dim") for reason in answer.domain.reasons]
    return lines + [Text(f"{warned.code}: {warned.text}", "yellow") for warned in answer.warnings]


def _verification_table(checked: dict[str, Any]) -> Table:
    table = Table(title=f"Cube of {'x'.join(map(str, checked['shape']))} voxels from the middle, simulated")
    for head in ("axis", "model (mD)", "95 % interval (mD)", "lattice Boltzmann (mD)", "model / simulation"):
        table.add_column(head, justify="right")
    for axis, k in checked["k_mD"].items():
        simulated, interval = checked["simulated_k_mD"][axis], checked["interval_95"][axis]
        steady = "" if checked["steady"][axis] else " (not steady)"
        table.add_row(
            axis,
            f"{k:.4g}",
            "" if interval is None else f"{interval[0]:.3g} to {interval[1]:.3g}",
            f"{simulated:.4g}{steady}",
            f"{k / simulated:.2f}" if simulated else "",
        )
    return table
