"""A metal's potential by active learning from disordered cells (Smith et al., Nat. Commun. 12, 1257 (2021)).

generation 0     random disordered cells -> reference
fit              a committee on all labels; each member misses its own fold
explore          Langevin dynamics on the mean force from new disordered cells, temperature and density swinging;
                 a trajectory ends, and its frame is labelled, when the committee disagrees
no crystal is ever put in by hand
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from ase.data import atomic_masses
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.stats import spearmanr

from contract.elements import NUMBERS
from contract.graphs import build_graph
from contract.structures import Structure, checked_structure
from training.active.committee import NetworkCommittee
from training.active.loop import LoopConfig, Wave
from training.active.store import Arrays, Sample, Store
from training.batches import LabelledGraphs, virial_of
from training.data.provenance import Provenance
from training.evaluation import predict_forces
from training.fit import Epoch, FitConfig, Validation
from training.networks.hipnn import HipNN, HipNNConfig
from training.objectives.forces import EnergyForceObjective
from training.pipelines.members import train_apart
from training.pipelines.preparation import member_weights
from training.sampling.chance import frames_by_chance, frames_of_waves
from training.sampling.disordered import G_PER_CM3, disordered_cell
from training.sampling.replicas import Course, Driver, Dynamics, Ended, Frame, Limits, Start, explore
from training.simulators.labels import Reference
from training.simulators.references import EamSpec, ReferenceSpec, opened
from training.validation.against import FccValidation

Range = tuple[float, float]


class Exploration(BaseModel):
    """Ranges from which each trajectory's course is drawn: kelvin, fs, g/cm^3."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    atoms: int = Field(32, ge=2)
    density: Range = (2.2, 3.0)
    apart_angstrom: float = Field(1.9, gt=0, description="least distance of the disordered start")
    kelvin: Range = (100.0, 3000.0)
    kelvin_swing: Range = (0.0, 1000.0)
    density_swing: Range = (0.0, 0.2)
    period_fs: Range = (500.0, 3000.0)
    replicas: int = Field(16, ge=1)
    closest_angstrom: float = Field(1.6, gt=0)
    step_fs: float = Field(2.0, gt=0)
    check_every: int = Field(10, ge=1)
    length_fs: float = Field(5000.0, gt=0)


class Thresholds(BaseModel):
    """How much disagreement is too much: a factor times the 95 % quantile on the validation part of generation 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    factor: float = Field(1.5, gt=0)
    quantile: float = Field(0.95, gt=0, lt=1)


class Stop(BaseModel):
    """Enough: two generations running, mean survival reached and force errors of new labels no longer falling."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    survival_fs: float = Field(4000.0, gt=0)
    improvement: float = Field(0.05, ge=0)


class MetalConfig(BaseModel):
    """A metal learnt from disordered cells. Serialised as YAML in training/configs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: Literal["metal"] = "metal"
    name: str
    purpose: str
    element: str = "Al"
    reference: ReferenceSpec = EamSpec()
    exploration: Exploration = Exploration()
    thresholds: Thresholds = Thresholds()
    stop: Stop = Stop()
    loop: LoopConfig = LoopConfig()
    network: HipNNConfig
    forces: EnergyForceObjective = EnergyForceObjective()
    fit: FitConfig = FitConfig()
    held_out: int = Field(120, ge=20, description="frames of the reference's own dynamics, to calibrate and to test")
    validation: FccValidation | None = Field(None, description="properties of a crystal and its melt; null for none")
    provenance: Provenance = Field(description="of the labels, for the card")

    @model_validator(mode="after")
    def _the_network_knows_the_element(self) -> "MetalConfig":
        if NUMBERS.get(self.element) not in self.network.elements:
            raise ValueError(f"element is {self.element}, and network.elements are {self.network.elements}")
        return self


@dataclass(frozen=True, slots=True)
class Fitted:
    """A committee after one fit: its energies are relative to `references` (eV per element); epochs of all members."""

    network: HipNN
    references: dict[str, float]
    chosen_by: Sequence[Sample]
    history: list[Epoch]


class Metal:
    """The problem that the loop (training/active/loop.py) works on."""

    def __init__(self, config: MetalConfig) -> None:
        self._config = config
        self.labeller: Reference = opened(config.reference)

    def __reduce__(self) -> tuple[type["Metal"], tuple[MetalConfig]]:
        """Another process opens the reference for itself, once."""
        return Metal, (self._config,)

    @property
    def exploration(self) -> Exploration:
        """Ranges of the trajectories."""
        return self._config.exploration

    @property
    def cutoff(self) -> float:
        """Of the network, angstrom."""
        return self._config.network.cutoff_angstrom

    @property
    def dynamics(self) -> Dynamics:
        """How trajectories are integrated."""
        how = self._config.exploration
        return Dynamics(how.step_fs, how.check_every, how.length_fs)

    def bootstrap(self, count: int, rng: np.random.Generator) -> list[Arrays]:
        """Disordered cells."""
        return [_arrays(self._cell(rng)) for _ in range(count)]

    def fit(self, labelled: Sequence[Sample], generation: int, folder: Path) -> Fitted:
        """A committee on these labels, from new weights each time; every tenth label chooses the best epoch."""
        config = self._config
        atoms = sum(len(sample.input["numbers"]) for sample in labelled)
        references = {config.element: float(sum(_label(s)["energy"][0] for s in labelled)) / atoms}
        rest, chosen = [s for i, s in enumerate(labelled) if i % 10 != 9], list(labelled[9::10])
        members = config.network.members
        weight = member_weights(np.zeros(len(rest)), members, None, folds=members, seed=config.fit.seed)
        train = self._graphs(rest, references)
        valid = self._graphs(chosen, references)
        how = config.fit.model_copy(update={"seed": config.fit.seed + 1000 * generation})
        title = f"{config.name}: fit {generation}"
        train = replace(train, weight=weight)
        network, history = train_apart(
            config.network, config.forces, train, force_and_energy_error(valid, how.device), how, folder, title
        )
        return Fitted(network, references, chosen, history)

    def explore(self, model: Fitted, seed: int, store: Store) -> Wave:
        """Trajectories side by side, each until the committee disagrees."""
        began = time.process_time()
        starts = self.starts(self._config.exploration.replicas, np.random.default_rng(seed))
        committee = NetworkCommittee(model.network)
        ended = explore(starts, committee, self._limits(model, committee, store), self.dynamics, seed)
        found = [(_arrays(e.structure), _why(e)) for e in ended if e.reason in ("energy", "force")]
        reasons = [e.reason for e in ended]
        survival_fs = float(np.mean([e.time_fs for e in ended]))
        counts: dict[str, int] = {reason: reasons.count(reason) for reason in sorted(set(reasons))}
        return Wave(found, {"survival_fs": survival_fs, "cpu_seconds": time.process_time() - began, **counts})

    def reference(self, sample: Arrays) -> Arrays | None:
        """Energy, forces and stress of one cell."""
        labels = self.labeller.label([_structure(sample)])
        if not labels.converged[0] or labels.stress is None:
            return None
        return {"energy": labels.energy, "forces": labels.forces, "stress": labels.stress[0]}

    def judge(self, model: Fitted, new: Sequence[Sample]) -> dict[str, Any]:
        """Force errors of the new labels, and whether the spread had pointed at them."""
        graphs = self._graphs(new, model.references)
        answer, forces = predict_forces(model.network, graphs)
        error = forces - np.concatenate(graphs.forces or [])
        sizes = np.array([graph.n_atoms for graph in graphs.graphs])
        ends = np.cumsum(sizes)[:-1]
        per_frame = [float(np.sqrt((part**2).mean())) for part in np.split(error, ends)]
        spread = [sample.found["force_std"] for sample in new]
        return {
            "force_rmse": float(np.sqrt((error**2).mean())),
            "energy_rmse_an_atom": float(np.sqrt(((answer.error / sizes) ** 2).mean())),
            "spearman": float(spearmanr(spread, per_frame).statistic) if len(new) > 2 else float("nan"),
            "force_std_by_frame": spread,
            "force_rmse_by_frame": per_frame,
        }

    def finished(self, generations: Sequence[dict[str, Any]]) -> str:
        """Two generations running: trajectories survive, and new labels teach little."""
        if len(generations) < 3 or any("force_rmse" not in g for g in generations[-3:]):
            return ""
        stop = self._config.stop
        before, *last = generations[-3:]
        survive = all(survival(g) >= stop.survival_fs for g in last)
        errors = [g["force_rmse"] for g in (before, *last)]
        flat = all(b > (1.0 - stop.improvement) * a for a, b in pairwise(errors))
        return (
            f"trajectories survive {survival(last[-1]):.0f} fs and new labels teach little" if survive and flat else ""
        )

    def _graphs(self, samples: Sequence[Sample], references: dict[str, float]) -> LabelledGraphs:
        """Neighbour graphs of labelled samples, references subtracted."""
        cutoff = self._config.network.cutoff_angstrom
        graphs = [build_graph(_structure(sample.input), cutoff) for sample in samples]
        offset = references[self._config.element]
        energy = [_label(sample)["energy"][0] - offset * len(sample.input["numbers"]) for sample in samples]
        forces = [_label(sample)["forces"].astype(np.float32) for sample in samples]
        stress = np.stack([_label(sample)["stress"] for sample in samples])
        virial = virial_of(stress, np.stack([sample.input["cell"] for sample in samples]))
        return LabelledGraphs(graphs, np.array(energy), forces, virial=virial)

    def _cell(self, rng: np.random.Generator) -> Structure:
        how = self._config.exploration
        numbers = np.full(how.atoms, NUMBERS[self._config.element], dtype=np.int64)
        return disordered_cell(numbers, rng.uniform(*how.density), how.apart_angstrom, rng)

    def starts(self, count: int, rng: np.random.Generator) -> list[Start]:
        """Disordered cells with their courses."""
        return [self._start(rng) for _ in range(count)]

    def frames_by_chance(self, driver: Driver, count: int, seed: int) -> list[Structure]:
        """Frames, at random moments, of trajectories of this driver from disordered cells.

        Raises:
            NoSurvivor: all trajectories end with atoms too close.
        """
        how = self._config.exploration

        def wave(number: int, missing: int) -> list[Structure]:
            starts = self.starts(min(how.replicas, missing), np.random.default_rng([seed, number]))
            mean_fs, closest = 0.25 * how.length_fs, how.closest_angstrom
            return frames_by_chance(driver, starts, self.dynamics, mean_fs, closest, seed + 1000 * number)

        return frames_of_waves(count, wave)

    def _start(self, rng: np.random.Generator) -> Start:
        """A disordered cell, and courses of temperature and density drawn from their ranges."""
        how = self._config.exploration
        cell = self._cell(rng)
        now = _density(cell)
        temperature = Course(
            rng.uniform(*how.kelvin),
            rng.uniform(*how.kelvin),
            rng.uniform(*how.kelvin_swing),
            rng.uniform(*how.period_fs),
        )
        density = Course(now, rng.uniform(*how.density), rng.uniform(*how.density_swing), rng.uniform(*how.period_fs))
        return Start(cell, temperature, density)

    def _limits(self, model: Fitted, committee: NetworkCommittee, store: Store) -> Limits:
        """Thresholds on the spread: taken once, from the first committee, and kept for all generations."""
        known = store.fact("thresholds")
        if known is None:
            cutoff = self._config.network.cutoff_angstrom
            structures = [_structure(sample.input) for sample in model.chosen_by]
            energy, component = committee.spread([Frame(s, build_graph(s, cutoff)) for s in structures])
            atoms = np.array([len(structure) for structure in structures])
            means = [part.mean() for part in np.split(component, np.cumsum(atoms)[:-1])]
            how = self._config.thresholds
            known = {
                "energy_std": float(how.factor * np.quantile(energy / np.sqrt(atoms), how.quantile)),
                "force_std": float(how.factor * np.quantile(means, how.quantile)),
            }
            store.set_fact("thresholds", known)
        return Limits(known["energy_std"], known["force_std"], self._config.exploration.closest_angstrom)


def force_and_energy_error(valid: LabelledGraphs, device: str) -> Validation:
    """RMSE of the force components in eV/angstrom plus MAE of the energy in eV an atom, of cells of one size."""

    def value(network: HipNN) -> float:
        answer, forces = predict_forces(network, valid, device)
        error = forces - np.concatenate(valid.forces or [])
        return float(np.sqrt((error**2).mean()) + np.abs(answer.error).mean() / len(valid.graphs[0].species))

    return value


def survival(generation: Mapping[str, Any]) -> float:
    """Mean time until a trajectory of this generation ended, fs."""
    return float(np.mean([wave["survival_fs"] for wave in generation["waves"]]))


def _label(sample: Sample) -> Arrays:
    if sample.label is None:
        raise ValueError(f"sample {sample.number} has no label")
    return sample.label


def _density(structure: Structure) -> float:
    if structure.cell is None:
        raise ValueError("a density needs a cell")
    return float(atomic_masses[structure.numbers].sum() * G_PER_CM3 / abs(np.linalg.det(structure.cell)))


def _arrays(structure: Structure) -> dict[str, NDArray[Any]]:
    if structure.cell is None:
        raise ValueError("a metal's structure needs a cell")
    return {"numbers": structure.numbers, "positions": structure.positions, "cell": structure.cell}


def _structure(arrays: Arrays) -> Structure:
    return checked_structure(arrays["numbers"], arrays["positions"], arrays["cell"], True)


def _why(end: Ended) -> dict[str, Any]:
    return {"reason": end.reason, "time_fs": end.time_fs, "energy_std": end.energy_std, "force_std": end.force_std}
