"""The lattice-Boltzmann solver against exact flows, and how fast it is."""

import time
from typing import Final

import numpy as np
from rich.console import Console
from scipy.ndimage import gaussian_filter

from benchmarks.record import Finding
from benchmarks.stokes import staggered_permeability
from contract.voxels import Image
from training.sampling.porous_media import packs
from training.simulators.creeping_flow import SOLVER, Flow, Solver, solve_flow

ZICK_HOMSY: Final = {0.064: 7.608e-2, 0.343: 7.933e-3}
"""k / L^2 of a simple cubic array of spheres by solid fraction (J. Fluid Mech. 115, 13 (1982), table 2)."""
NOTES = """
Relative errors of the permeability. Slit: of the discrete parabola h^2/12 + 1/24, at three relaxation times. Tube: of
r^2/8 with the area of its voxels. Duct: of 0.0351443 b^2. Spheres: two radii whose voxels bracket the nominal solid
fraction, log k interpolated in log fraction. Staggered grid: a random periodic image of 8^3 voxels, and the same with
each voxel as 8 and as 27, beside a direct solution of Stokes flow (benchmarks/stokes.py). Node updates: pore nodes
times steps over CPU seconds, one thread; the relaxation time is chosen by the solver, and beside it stands the usual 1.
A busy machine makes them slower.
"""
_console = Console(stderr=True)
_STRICT: Final = Solver(tolerance=1e-6, max_steps=100_000)


def run() -> Finding:
    """All of it: about ten minutes."""
    values = {
        "solver": SOLVER,
        "slit": {f"{h}_nodes_tau_{tau:g}": _slit(h, tau) for h in (3, 10) for tau in (0.6, 1.0, 1.5)},
        "duct": {f"{side}_nodes": _duct(side) for side in (3, 10, 20)},
        "tube": {f"radius_{radius}": _tube(radius) for radius in (5, 10, 20)},
        "spheres": {
            f"fraction_{fraction:g}_length_{length}": _said(sphere_array(length, fraction) / exact - 1.0, length)
            for fraction, exact in ZICK_HOMSY.items()
            for length in (16, 24, 32, 48)
        },
        "staggered grid": [_beside_staggered(times) for times in (1, 2, 3)],
        "speed": [_speed(48, relaxation) for relaxation in (None, 1.0)],
    }
    return Finding(values, NOTES, seeds=[0])


def sphere_array(length: int, fraction: float) -> float:
    """K / L^2 of one sphere in a periodic cell at a solid fraction, from the voxelised spheres below and above it."""
    x = np.arange(length) - (length - 1) / 2
    squared = x[:, None, None] ** 2 + x[:, None] ** 2 + x**2
    shells, counts = np.unique(squared, return_counts=True)
    fractions = np.cumsum(counts) / length**3
    above = int(np.searchsorted(fractions, fraction))
    points = [(fractions[i], _cell(squared > shells[i])) for i in (above - 1, above)]
    logs = np.log(np.array(points))
    return float(np.exp(np.interp(np.log(fraction), logs[:, 0], logs[:, 1])) / length**2)


def _cell(image: Image) -> float:
    return _steady(solve_flow(image, 2, "periodic", Solver(tolerance=1e-6, relaxation=1.0))).permeability


def _slit(nodes: int, relaxation: float) -> float:
    image = np.ones((nodes + 1, 1, 4), bool)
    image[-1] = False
    flow = _steady(solve_flow(image, 2, "periodic", Solver(relaxation=relaxation, tolerance=1e-10)))
    return flow.permeability * (nodes + 1) / nodes / (nodes**2 / 12 + 1 / 24) - 1.0


def _duct(side: int) -> float:
    flow = _steady(solve_flow(np.ones((side, side, 2), bool), 2, "mirror", _STRICT))
    return flow.permeability / side**2 / 0.0351443 - 1.0


def _tube(radius: int) -> float:
    x = np.arange(2 * radius + 2) - radius - 0.5
    image = np.repeat((x[:, None] ** 2 + x**2 < radius**2)[:, :, None], 2, axis=2)
    area = image[:, :, 0].sum()
    flow = _steady(solve_flow(image, 2, "mirror", _STRICT))
    return float(flow.permeability * image[:, :, 0].size / area / (area / np.pi / 8) - 1.0)


def _beside_staggered(times: int) -> dict[str, float]:
    noise = gaussian_filter(np.random.default_rng(1).normal(size=(8, 8, 8)), 2.0, mode="wrap")
    image = np.ascontiguousarray((noise > np.median(noise)).repeat(times, 0).repeat(times, 1).repeat(times, 2))
    ours, theirs = _steady(solve_flow(image, 2, "periodic", _STRICT)).permeability, staggered_permeability(image)
    return {"length": len(image), "k": ours / times**2, "staggered k": theirs / times**2, "ratio": ours / theirs}


def _speed(length: int, relaxation: float | None) -> dict[str, float | int | bool]:
    image = packs(length, 0.35, np.random.default_rng(0))
    solve_flow(image, 2, solver=Solver(max_steps=2))
    begun = time.process_time()
    flow = solve_flow(image, 2, solver=Solver(relaxation=relaxation, max_steps=6000))
    seconds = time.process_time() - begun
    return {
        "length": length,
        "relaxation": flow.relaxation,
        "pore_nodes": int(image.sum()),
        "steps": flow.steps,
        "steady": flow.converged,
        "permeability_voxel2": flow.permeability,
        "cpu_seconds": seconds,
        "million_node_updates_a_second": image.sum() * flow.steps / seconds / 1e6,
    }


def _steady(flow: Flow) -> Flow:
    if not flow.converged:
        raise RuntimeError(f"not steady after {flow.steps} steps: change {flow.change:g}, flux {flow.flux_std:g}")
    return flow


def _said(error: float, length: int) -> float:
    _console.print(f"spheres at L = {length}: {100 * error:+.2f} %")
    return error
