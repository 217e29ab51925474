"""Run benchmarks and keep their records: `python -m benchmarks.run speed`, `claims`, or the names of some.

To add one: a function without arguments that returns a Finding (benchmarks/record.py) or a dict, and a line below.
"""

import argparse
import importlib
import subprocess
import sys
import time
from typing import NamedTuple

from rich.console import Console

from benchmarks.record import Finding, write_record


class Benchmark(NamedTuple):
    """`speed`: minutes, timings side by side in one process. `claims`: the slow scientific comparisons."""

    kind: str
    function: str
    about: str


BENCHMARKS = {
    "network_speed": Benchmark("speed", "benchmarks.network_speed:run", "the exported network beside hippynn's"),
    "serving": Benchmark("speed", "benchmarks.serving:run", "the gateway beside other servers of the same graph"),
    "lattice_boltzmann": Benchmark("speed", "benchmarks.lattice_boltzmann:run", "creeping flow: exact checks, speed"),
    "training_speed": Benchmark("speed", "benchmarks.training_speed:run", "steps of training beside hippynn's"),
    "large_images": Benchmark("speed", "benchmarks.large_images:run", "rock images in tiles: memory, time, seams"),
    "permeability": Benchmark("claims", "benchmarks.permeability:run", "rock images: errors, sizes, Berea"),
    "permeability_speed": Benchmark(
        "speed", "benchmarks.permeability_speed:run", "rock images beside the simulation and PyTorch"
    ),
    "permeability_training": Benchmark(
        "claims", "benchmarks.permeability_training:run", "MS-Nets of permeability trained in many ways"
    ),
    "force_training_cost": Benchmark(
        "speed", "benchmarks.force_training:cost", "steps of every way to train on forces"
    ),
    "force_training": Benchmark(
        "claims", "benchmarks.force_training:accuracy", "energies alone beside energies + forces"
    ),
    "distillation": Benchmark(
        "claims", "benchmarks.distillation:on_ethanol", "students of mean forces beside energies alone: ethanol"
    ),
    "distillation_gfn2": Benchmark(
        "claims", "benchmarks.distillation:on_small_molecules", "the same on molecules that nobody has seen"
    ),
    "organic": Benchmark(
        "claims", "benchmarks.organic:run", "the shipped `organic` on public molecules, and its teachers"
    ),
    "coarse_graining": Benchmark(
        "claims", "benchmarks.coarse_graining:run", "force fields of beads at states that they were not trained at"
    ),
    "atomic_energies": Benchmark(
        "claims", "benchmarks.atomic_energies:run", "a light student with and without its teachers' atomic energies"
    ),
    "taught_molecules": Benchmark("claims", "benchmarks.taught_molecules:run", "the same of a molecule"),
    "active_learning": Benchmark(
        "claims", "benchmarks.active_learning:run", "active learning beside other ways to choose as many cells"
    ),
    "dft_labels": Benchmark("claims", "benchmarks.dft_labels:run", "labels of GPAW beside those of an EAM potential"),
    "hippynn_baseline": Benchmark("claims", "benchmarks.hippynn_baseline:run", "finished runs beside hippynn's"),
}

_console = Console()


def main() -> int:
    """Run what the command line names; each benchmark of several gets a process of its own."""
    names = _names(_arguments())
    if len(names) == 1:
        run(names[0])
        return 0
    failed = [name for name in names if subprocess.run([sys.executable, "-m", "benchmarks.run", name]).returncode]
    if failed:
        _console.print(f"[red]failed:[/red] {', '.join(failed)}")
    return len(failed)


def run(name: str) -> None:
    """Run one benchmark here and write its record."""
    module, _, function = BENCHMARKS[name].function.partition(":")
    _console.rule(f"{name}: {BENCHMARKS[name].about}")
    start = time.perf_counter()
    finding = getattr(importlib.import_module(module), function)()
    path = write_record(name, finding, time.perf_counter() - start)
    _console.print_json(data=finding.values if isinstance(finding, Finding) else finding, default=str)
    _console.print(f"record: {path}")


def _arguments() -> list[str]:
    about = "\n".join(f"  {name:24} {b.kind:7} {b.about}" for name, b in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", epilog=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", choices=["speed", "claims", *BENCHMARKS], metavar="speed|claims|NAME")
    wanted: list[str] = parser.parse_args().what
    return wanted


def _names(wanted: list[str]) -> list[str]:
    return [name for name, benchmark in BENCHMARKS.items() if name in wanted or benchmark.kind in wanted]


if __name__ == "__main__":
    sys.exit(main())
