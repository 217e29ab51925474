"""Efficient force training: what a step costs in each mode, how exact its gradient is, and what forces are worth.

Smith, Lubbers, Thompson, Barros, arXiv:2006.05475: forces for a few times the cost of training on energies alone, by
directional differences. Here beside double backpropagation, and backpropagation through the network's own adjoint.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from benchmarks.ethanol import NETWORK, ethanol
from benchmarks.kept import folder_of, kept
from benchmarks.record import Finding
from benchmarks.structures import aluminium, molecules
from benchmarks.testing_ground import (
    Arm,
    Parts,
    energy_and_force_error,
    energy_error,
    errors,
    mean_and_interval,
    trained,
)
from contract.graphs import build_graph
from contract.structures import Structure
from training.batches import LabelledGraphs, to_batch
from training.networks.hipnn import Batch, HipNN, HipNNConfig
from training.objectives.forces import EnergyForceObjective, ForceMode
from training.objectives.losses import Labels, ObjectiveFunction, energy_objective

Mode = Literal["energies_alone"] | ForceMode
System = Literal["molecules", "aluminium"]

FORCE_MODES: Final[tuple[ForceMode, ...]] = get_args(ForceMode)
MODES: Final[tuple[Mode, ...]] = ("energies_alone", *FORCE_MODES)
SYSTEMS: Final[tuple[System, ...]] = get_args(System)
ORDERS: Final = (0, 1, 2)
CUTOFF: Final[dict[System, float]] = {"molecules": 6.5, "aluminium": 7.0}
DISPLACEMENTS_ANGSTROM: Final = (1e-2, 1e-3, 1e-4, 1e-5)

COST_NOTES = """
One thread, float32, forward and backward of one batch, without the optimiser. Molecules: 64 of 20 atoms, cutoff 6.5
angstrom; aluminium: 500 rattled fcc atoms, cutoff 7 angstrom. Network: 32 features, 20 sensitivities, 2 blocks of 2
atom layers. CPU time is the smallest of interleaved rounds. Peak memory is the growth of the resident set in a process
of its own. Gradient errors are |g - g0| / |g0| of the force loss over all parameters, g0 by double backpropagation in
float64, for 8 molecules or 108 aluminium atoms and forces that are off by 1 eV/angstrom.
"""
ACCURACY_NOTES = """
Scaled down. Ethanol of QM-22 (B3LYP), parts without near duplicates, errors on frames no training has seen. Arms of one
seed share frames, initial weights and order of batches. `energies alone, equal CPU time` runs as many more epochs as
the CPU time of `adjoint` allows. Its training, stopping and choice of weights never see a force. Of one molecule,
forces improve both energies and forces; across molecules Christensen and von Lilienfeld (doi:10.1088/2632-2153/abba6f)
found that they do not improve energies.
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A network with a labelled batch."""

    network: HipNN
    batch: Batch
    labels: Labels

    def step(self, mode: Mode, **settings: Any) -> None:
        """Gradients of one training step, left in the parameters."""
        self.network.zero_grad(set_to_none=True)
        objective: ObjectiveFunction = energy_objective
        if mode != "energies_alone":
            objective = EnergyForceObjective(mode=mode, **settings)
        objective(self.network, self.batch, self.labels).surrogate.backward()  # type: ignore[no-untyped-call]

    def gradient(self, mode: ForceMode, **settings: Any) -> Tensor:
        """Gradient of the force loss alone, all parameters in one vector, float64."""
        self.step(mode, energy_weight=0.0, **settings)
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.network.parameters()]
        return torch.cat([g.flatten() for g in grads]).double()


def cost(rounds: int = 8) -> Finding:
    """CPU time, peak memory and exactness of a step, for every mode, angular order and system."""
    torch.set_num_threads(1)
    values = {
        f"{system}, l = {order}": {
            "CPU ms": (times := cpu_times(case_of(system, order), rounds)),
            "CPU time / energies alone": {m: t / times["energies_alone"] for m, t in times.items()},
            "peak memory MiB": peak_memories(system, order),
            "gradient error": gradient_errors(system, order),
        }
        for system in SYSTEMS
        for order in ORDERS
    }
    return Finding(values, COST_NOTES, seeds=[0])


def case_of(system: System, order: int, *, small: bool = False, dtype: torch.dtype = torch.float32) -> Case:
    """The batch of a system with made-up labels, and a fresh network; `small` for what needs float64."""
    torch.manual_seed(0)
    config = HipNNConfig(
        elements=[1, 6, 7, 8] if system == "molecules" else [13],
        order=order,
        cutoff_angstrom=CUTOFF[system],
        soft_max_angstrom=CUTOFF[system] - 1.0,
        atom_layers=2,
    )
    network = HipNN(config).to(dtype)
    batch = to_batch([build_graph(s, CUTOFF[system]) for s in _structures(system, small=small)])
    batch = Batch(*(x.to(dtype) if x.is_floating_point() else x for x in batch))
    generator = torch.Generator().manual_seed(0)
    energy = torch.randn(len(batch.cells), generator=generator, dtype=torch.float64)
    off = torch.randn(batch.positions.shape, generator=generator, dtype=torch.float64)
    return Case(network, batch, Labels(energy, off.to(dtype)))


def _structures(system: System, *, small: bool) -> list[Structure]:
    if system == "molecules":
        return molecules(8 if small else 64)
    return [aluminium(3 if small else 5)]


def cpu_times(case: Case, rounds: int) -> dict[str, float]:
    """Smallest CPU time of a step in each mode, ms, the modes taken in turn; the first round warms up."""
    best = dict.fromkeys(MODES, float("inf"))
    for k in range(rounds + 1):
        for mode in MODES:
            start = time.process_time()
            case.step(mode)
            if k:
                best[mode] = min(best[mode], 1e3 * (time.process_time() - start))
    return {str(mode): milliseconds for mode, milliseconds in best.items()}


def peak_memories(system: System, order: int) -> dict[str, float | None]:
    """Growth of the resident set during one step, MiB, each in a process of its own; None where Linux does not say."""
    command = [sys.executable, "-m", "benchmarks.force_training", system, str(order)]
    return {
        mode: json.loads(subprocess.run([*command, mode], capture_output=True, text=True, check=True).stdout)
        for mode in MODES
    }


def peak_memory(system: System, order: int, mode: Mode) -> float | None:
    """Growth of this process's resident set during one step, MiB."""
    torch.set_num_threads(1)
    case_of(system, order, small=True).step(mode)
    case = case_of(system, order)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    except OSError:
        return None
    before = _resident_mib("VmRSS")
    case.step(mode)
    return _resident_mib("VmHWM") - before


def _resident_mib(field: str) -> float:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(field + ":"))
    return int(line.split()[1]) / 1024


def gradient_errors(system: System, order: int) -> dict[str, float]:
    """Relative error of the gradient of the force loss against double backpropagation in float64."""
    double, single = (case_of(system, order, small=True, dtype=d) for d in (torch.float64, torch.float32))
    exact = double.gradient("double_backprop")

    def error(case: Case, mode: ForceMode, **settings: Any) -> float:
        return float((case.gradient(mode, **settings) - exact).norm() / exact.norm())

    errors = {f"{mode}, float32": error(single, mode) for mode in ("double_backprop", "adjoint")}
    errors["adjoint, float64"] = error(double, "adjoint")
    for name, case in (("float32", single), ("float64", double)):
        for step in DISPLACEMENTS_ANGSTROM:
            key = f"directional_difference, {step:g} angstrom, {name}"
            errors[key] = error(case, "directional_difference", displacement_angstrom=step)
    return errors


ALONE_LABELS, ALONE_CPU = "energies alone, equal labels and epochs", "energies alone, equal CPU time"


def accuracy(seeds: Sequence[int] = (0, 1, 2), frames: int = 200, epochs: int = 300, held_out: int = 1000) -> Finding:
    """Test errors of every way to train, at equal labels and at equal CPU time, over paired seeds."""
    torch.set_num_threads(1)
    ground = ethanol()
    runs: dict[str, list[Arm]] = {}
    folder = folder_of("force_training", frames, epochs, held_out, NETWORK.model_dump(mode="json"), ground.sha256)
    for seed in seeds:
        for name, arm in arms_of(ground.parts(frames, held_out, seed), epochs, seed, folder).items():
            runs.setdefault(name, []).append(arm)
    values = {
        "training frames": frames,
        "test frames": held_out,
        "epochs": epochs,
        "mean and 95 % interval over seeds": {name: mean_and_interval(arms) for name, arms in runs.items()},
        "each seed": runs,
    }
    return Finding(values, ACCURACY_NOTES, list(seeds), {"ethanol": ground.sha256})


def arms_of(parts: Parts, epochs: int, seed: int, folder: Path) -> dict[str, Arm]:
    """Every arm of one seed; those that are in `folder` are not trained again."""

    def arm(name: str, mode: Mode, epochs: int) -> Arm:
        return kept(folder / f"{name.replace(' ', '-')}-{seed}.json", lambda: train_arm(mode, parts, epochs, seed))

    arms = {ALONE_LABELS: arm(ALONE_LABELS, "energies_alone", epochs)}
    arms |= {mode: arm(mode, mode, epochs) for mode in FORCE_MODES}
    more = arms["adjoint"]["CPU s"] / arms[ALONE_LABELS]["CPU s"]
    return arms | {ALONE_CPU: arm(ALONE_CPU, "energies_alone", round(more * epochs))}


def train_arm(mode: Mode, parts: Parts, epochs: int, seed: int) -> Arm:
    """Train one network and measure it on the test frames."""
    alone = mode == "energies_alone"
    objective: ObjectiveFunction = energy_objective if mode == "energies_alone" else EnergyForceObjective(mode=mode)
    error = energy_error if alone else energy_and_force_error
    network, history = trained(NETWORK, objective, parts, error, epochs, seed, f"{mode}, seed {seed}")
    return errors(network, parts.test) | {
        "epochs": len(history),
        "CPU s": history[-1].cpu_seconds,
        "directional gradient error": _directional_error(network, parts.test),
    }


def _directional_error(network: HipNN, graphs: LabelledGraphs) -> float:
    """Relative error of a float32 directional difference on a trained network, 1e-3 angstrom."""
    case = Case(network, *graphs.take(np.arange(16)))
    exact = case.gradient("double_backprop")
    return float((case.gradient("directional_difference") - exact).norm() / exact.norm())


if __name__ == "__main__":
    system, order, mode = sys.argv[1:]
    print(json.dumps(peak_memory(system, int(order), mode)))  # type: ignore[arg-type]
