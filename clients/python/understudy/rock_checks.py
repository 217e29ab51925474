"""What an answer about a rock is worth: a part of it simulated, and the same asked of its eight parts."""

from collections.abc import Callable
from importlib.metadata import entry_points
from itertools import product
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from understudy.client import Client
from understudy.errors import InvalidImage
from understudy.rocks import Permeability, RockOptions, labels_of, rock_body
from understudy.tables import plain

SIMULATORS: Final = "understudy.simulators"
"""Group of entry points that bring a simulation: here the one that is called "permeability"."""
Pores = NDArray[np.bool_]
Simulate = Callable[..., Any]


def pores_as_asked(rock: Path, options: RockOptions, answer: Permeability) -> Pores:
    """The image as the gateway saw it, True = pore."""
    return np.isin(labels_of(rock_body(rock, options)), answer.image["pore_values"])


def simulator() -> Simulate:
    """The simulation that an installed distribution brings.

    Raises:
        InvalidImage: none does, with what to install.
    """
    for entry in entry_points(group=SIMULATORS, name="permeability"):
        simulate: Simulate = entry.load()
        return simulate
    raise InvalidImage(
        "--verify needs a simulator, and none is installed here.",
        code="no_simulator",
        hint="Install understudy-platform beside the client.",
    )


def verified(client: Client, pores: Pores, voxel_um: float, length: int, options: RockOptions) -> dict[str, Any]:
    """A cube from the middle, simulated and asked: permeabilities in millidarcy by axis.

    Raises:
        InvalidImage: no simulation is installed.
    """
    simulate = simulator()
    cut = tuple(slice((n - min(n, length)) // 2, (n + min(n, length)) // 2) for n in pores.shape)
    cube = np.ascontiguousarray(pores[cut])
    asked = client.permeability(cube, voxel_um, **_asked_alike(options))
    simulated = {axis: _simulated(simulate, cube, axis, voxel_um) for axis in asked.k_mD}
    return {
        "shape": list(cube.shape),
        "k_mD": dict(asked.k_mD),
        "interval_95": asked.interval_95["k_mD"],
        "simulated_k_mD": {axis: k for axis, (k, _) in simulated.items()},
        "steady": {axis: steady for axis, (_, steady) in simulated.items()},
    }


def verification_table(checked: dict[str, Any]) -> Table:
    """Model beside simulation."""
    table = Table(title=f"Cube of {'x'.join(map(str, checked['shape']))} voxels from the middle, simulated")
    for head in ("axis", "model (mD)", "95 % interval (mD)", "lattice Boltzmann (mD)", "model / simulation"):
        table.add_column(head, justify="right")
    for axis, k in checked["k_mD"].items():
        simulated, interval = checked["simulated_k_mD"][axis], checked["interval_95"][axis]
        steady = "" if checked["steady"][axis] else " (not steady)"
        table.add_row(
            axis,
            plain(k, 4),
            "" if interval is None else f"{plain(interval[0], 3)} to {plain(interval[1], 3)}",
            f"{plain(simulated, 4)}{steady}",
            f"{k / simulated:.2f}" if simulated else "",
        )
    return table


def scattered(client: Client, pores: Pores, voxel_um: float, options: RockOptions) -> dict[str, Any]:
    """The eight halves by halves by halves, each asked alone: porosities, and permeabilities in millidarcy by axis.

    A part without solid has no permeability (null); one without pores has 0.
    """
    sides = [(slice(0, n // 2), slice(n // 2, n)) for n in pores.shape]
    parts = [np.ascontiguousarray(pores[cut]) for cut in product(*sides)]
    axes = "xyz" if options.get("axes", "all") == "all" else options["axes"].replace(",", "").replace(" ", "")
    with Console(stderr=True).status("asking for the eight parts"):
        found = [_part(client, part, voxel_um, axes, options) for part in parts]
    return {
        "shapes": [list(part.shape) for part in parts],
        "porosity": [float(part.mean()) for part in parts],
        "k_mD": {axis: [k[axis] for k in found] for axis in axes},
    }


def scatter_table(scatter: dict[str, Any], whole: Permeability) -> Table:
    """How far the parts are from the whole and from each other."""
    table = Table(title="The eight parts of the image, each alone")
    for head in ("axis", "whole (mD)", "lowest part (mD)", "median", "highest part (mD)", "parts that conduct"):
        table.add_column(head, justify="right")
    for axis, values in scatter["k_mD"].items():
        known = [k for k in values if k is not None]
        middle = [plain(f(known), 4) for f in (min, np.median, max)] if known else [""] * 3
        table.add_row(axis, plain(whole.k_mD[axis], 4), *middle, f"{sum(k > 0 for k in known)} of {len(values)}")
    return table


def _part(client: Client, part: Pores, voxel_um: float, axes: str, options: RockOptions) -> dict[str, float | None]:
    if part.all() or not part.any() or min(part.shape) < 2:
        return dict.fromkeys(axes, None if part.all() else 0.0)
    return {**client.permeability(part, voxel_um, **_asked_alike(options)).k_mD}


def _asked_alike(options: RockOptions) -> RockOptions:
    """What holds of a part as of the whole: which axes, which model."""
    alike: RockOptions = {}
    if "axes" in options:
        alike["axes"] = options["axes"]
    if "model" in options:
        alike["model"] = options["model"]
    return alike


def _simulated(simulate: Simulate, cube: Pores, axis: str, voxel_um: float) -> tuple[float, bool]:
    with Console(stderr=True).status(f"simulating {'x'.join(map(str, cube.shape))} voxels along {axis}"):
        flow = simulate(cube, "xyz".index(axis))
    return float(flow.in_units(voxel_um)["k_mD"]), bool(flow.converged)
