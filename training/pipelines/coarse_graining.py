"""A coarse-grained force field of a liquid by force matching, at one thermodynamic state or at several together.

Shinkle et al., J. Chem. Theory Comput. 20, 10524 (2024):

    prior     <- repulsion from the onset of g(r) and the size of the forces (training part)
    E         =  HIP-NN-TS energy + prior
    minimise     |F - F_hat|^2 / Var(F) over frames of all states; no energy is known
    check        dynamics of beads at each state: their distributions beside those of the mapped atoms

What is learnt is a free energy of the beads at these states, not a potential energy: the forces are means over the
atoms that are left out. Its zero is arbitrary and is put so that the training frames have zero mean energy a bead.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import track

from contract.card import DataSource
from contract.graphs import build_graph
from training.batches import LabelledGraphs
from training.checkpoint import Run, save_run
from training.coarse.distributions import (
    AngularDistribution,
    RadialDistribution,
    angular_distribution,
    radial_distribution,
)
from training.coarse.dynamics import BeadForces, DynamicsConfig, NetworkForces, simulate
from training.coarse.frames import BeadFrames, Part, State, read_frames, split_by_block
from training.coarse.pair_splines import PairForce, fit_pair_force
from training.coarse.repulsion import fit_repulsion
from training.data.provenance import Provenance
from training.evaluation import predict_forces, predict_member_forces
from training.files import write_arrays, write_json
from training.fit import Epoch, FitConfig, Validation
from training.networks.hipnn import HipNN, HipNNConfig
from training.networks.repulsion import RepulsionConfig
from training.objectives.force_matching import ForceMatching
from training.pipelines.members import cpu_seconds, train_apart
from training.record import config_sha256, revision, versions

Array = NDArray[np.float64]
EVALUATION_FRAMES: Final = 4
PREDICTIONS, DISTRIBUTIONS = "predictions.npz", "distributions.npz"


class BeadSpec(BaseModel):
    """What a bead is. The symbol stands for it in files and requests; take one whose mass is near."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    symbol: str
    label: str
    stands_for: str
    mass_u: float = Field(gt=0)


class FramesSpec(BaseModel):
    """Bead frames that `understudy sample` made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: Path
    provenance: Provenance
    states: list[State] | None = Field(None, description="train at these alone; null for all that there are")
    every: int = Field(1, ge=1, description="use every so many of the training frames")
    valid_blocks: int = Field(1, ge=1)
    test_blocks: int = Field(2, ge=1)


class PairSpec(BaseModel):
    """The pair force that the network is compared with: same data, cutoff and prior."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    spacing_angstrom: float = Field(0.35, gt=0)
    degree: int = Field(3, ge=1)


class CoarseGrainingConfig(BaseModel):
    """A coarse-grained force field. Serialised as YAML in training/configs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: Literal["coarse_graining"] = "coarse_graining"
    name: str
    purpose: str
    data: FramesSpec
    bead: BeadSpec
    network: HipNNConfig
    with_prior: bool = True
    pair: PairSpec = PairSpec()
    fit: FitConfig = FitConfig()
    dynamics: DynamicsConfig = DynamicsConfig()
    r_max_angstrom: float = Field(10.0, gt=0, description="up to which g(r) is compared; half of the box at most")
    bins: int = Field(200, ge=20)


@dataclass(frozen=True, slots=True, eq=False)
class Liquid:
    """Bead frames in parts, with their prior."""

    parts: dict[Part, BeadFrames]
    prior: RepulsionConfig | None

    @property
    def states(self) -> tuple[State, ...]:
        """In the order of the file."""
        return self.parts["train"].states


@dataclass(frozen=True, slots=True, eq=False)
class Arrangement:
    """How beads are arranged at one state."""

    radial: RadialDistribution
    angular: AngularDistribution

    def errors(self, truth: "Arrangement") -> dict[str, float]:
        """E_RDF, its r^2-weighted form, E_ADF, and how far the first peak is off (angstrom, and in height)."""
        (r, g), (r0, g0) = self.radial.first_peak(), truth.radial.first_peak()
        return {
            "E_RDF": self.radial.error(truth.radial),
            "E_RDF_r2": self.radial.weighted_error(truth.radial),
            "E_ADF": self.angular.error(truth.angular),
            "peak_shift_angstrom": r - r0,
            "peak_height": g - g0,
        }


def train_coarse_graining(config: CoarseGrainingConfig, folder: Path) -> Run:
    """Train a committee, simulate it at every state, and save all of it in `folder`."""
    liquid = read_liquid(config)
    network, history = fit_network(config, liquid, folder)
    run = Run(network, {config.bead.symbol: 0.0}, _record(config, liquid, history))
    save_run(folder, run)
    pair = fit_pair(config, liquid)
    _save_predictions(folder, network, pair, liquid)
    _save_distributions(folder, config, liquid, {"network": NetworkForces(network), "pair": pair.forces})
    return run


def read_liquid(config: CoarseGrainingConfig) -> Liquid:
    """Read the frames, part them and fit the prior."""
    return liquid_of(config, read_frames(config.data.path))


def liquid_of(config: CoarseGrainingConfig, frames: BeadFrames) -> Liquid:
    """Part frames by blocks of time, those of the chosen states alone, and fit the prior to the training part."""
    if config.data.states is not None:
        frames = frames.of_states(config.data.states)
    parts = split_by_block(frames, config.data.valid_blocks, config.data.test_blocks)
    parts["train"] = parts["train"].every(config.data.every)
    prior = fit_repulsion(parts["train"], config.network.cutoff_angstrom) if config.with_prior else None
    return Liquid(parts, prior)


def fit_network(config: CoarseGrainingConfig, liquid: Liquid, folder: Path) -> tuple[HipNN, list[Epoch]]:
    """Force matching of every member; the zero of each one's energy is put to the mean of the training frames."""
    network = config.network.model_copy(update={"prior": liquid.prior})
    train, valid = (labelled(liquid, part, network) for part in ("train", "valid"))
    title = f"training {config.name}"
    made, history = train_apart(network, ForceMatching(), train, _validation(valid), config.fit, folder, title)
    put_zero(made, train)
    return made, history


def labelled(liquid: Liquid, part: Part, network: HipNNConfig) -> LabelledGraphs:
    """Graphs of one part; each frame counts 1 / Var(F) of its state; energies are zero and not looked at."""
    frames = liquid.parts[part]
    weight = 1.0 / liquid.parts["train"].variances()[frames.state]
    return LabelledGraphs(
        [build_graph(s, network.cutoff_angstrom, index=i) for i, s in enumerate(frames.structures)],
        np.zeros(len(frames)),
        [f.astype(np.float32) for f in frames.forces],
        np.repeat(weight[:, None], network.members, axis=1).astype(np.float32),
    )


@torch.no_grad()
def put_zero(network: HipNN, train: LabelledGraphs) -> None:
    """Move each member's energies, of which forces know no zero, to mean zero a bead over the training frames."""
    each = [network.atomic_energy(batch) for batch, _ in train.batches(EVALUATION_FRAMES)]
    mean = torch.cat(each, dim=1).double().mean(dim=1, keepdim=True)
    first = network.blocks[0]
    first.readout_bias.sub_(mean.to(first.readout_bias.dtype))  # type: ignore[operator, arg-type]


def fit_pair(config: CoarseGrainingConfig, liquid: Liquid) -> PairForce:
    """The pair force on the same training frames, with the same weights, cutoff and prior."""
    train = liquid.parts["train"]
    return fit_pair_force(
        train.structures,
        train.forces,
        config.network.cutoff_angstrom,
        spacing=config.pair.spacing_angstrom,
        degree=config.pair.degree,
        weight=1.0 / train.variances()[train.state],
        prior=liquid.prior,
    )


def arranged(frames: BeadFrames, state: int, r_max: float, bins: int, arm: float | None = None) -> Arrangement:
    """How the mapped atoms are arranged at one state; the arm of angles is the first minimum of g unless given."""
    chosen = [frames.structures[i] for i in np.flatnonzero(frames.state == state)]
    radial = radial_distribution(chosen, r_max, bins)
    return Arrangement(radial, angular_distribution(chosen, radial.first_minimum() if arm is None else arm))


def simulated(
    forces: BeadForces, frames: BeadFrames, state: int, config: CoarseGrainingConfig, truth: Arrangement
) -> Arrangement | None:
    """How beads are arranged under a force field at one state, from the first frame of it; None if it broke."""
    start = frames.structures[int(np.flatnonzero(frames.state == state)[0])]
    how = config.dynamics
    ran = simulate(start, config.bead.mass_u, forces, config.network.cutoff_angstrom, frames.states[state].kelvin, how)
    if ran.failed_at_ps is not None or not ran.frames:
        return None
    radial = radial_distribution(ran.frames, config.r_max_angstrom, config.bins)
    return Arrangement(radial, angular_distribution(ran.frames, truth.angular.arm))


def noise_floor(frames: BeadFrames, state: int, truth: Arrangement, config: CoarseGrainingConfig) -> dict[str, float]:
    """Errors of one half of the mapped frames against the other: what no force field can be told to beat."""
    rows = np.flatnonzero(frames.state == state)
    halves = [
        arranged(frames.at(part), state, config.r_max_angstrom, config.bins, truth.angular.arm)
        for part in np.array_split(rows, 2)
    ]
    return halves[0].errors(halves[1])


def joined(liquid: Liquid) -> BeadFrames:
    """The frames of all parts: what the arrangement of the atoms is taken from."""
    parts = list(liquid.parts.values())
    return BeadFrames(
        [s for p in parts for s in p.structures],
        [f for p in parts for f in p.forces],
        liquid.states,
        np.concatenate([p.state for p in parts]),
        np.concatenate([p.block for p in parts]),
    )


def r_squared(predicted: Array, target: Array) -> float:
    """1 - MSE / Var of force components of any shape; the mean force is zero."""
    return float(1.0 - np.mean((predicted - target) ** 2) / np.mean(target**2))


def _validation(valid: LabelledGraphs) -> Validation:
    """The loss on the validation part: 1 - R^2, averaged over frames."""
    target = np.concatenate(valid.forces or [])
    weight = np.ones(len(valid)) if valid.weight is None else valid.weight[:, 0]
    of_bead = np.repeat(weight, [graph.n_atoms for graph in valid.graphs])

    def value(network: HipNN) -> float:
        _, forces = predict_forces(network, valid, frames=EVALUATION_FRAMES)
        return float(np.average(((forces - target) ** 2).mean(axis=1) * of_bead))

    return value


def _record(config: CoarseGrainingConfig, liquid: Liquid, history: list[Epoch]) -> dict[str, Any]:
    parts = liquid.parts
    count = sum(len(p) for p in parts.values())
    source: DataSource = config.data.provenance.source(config.data.path, count)
    return {
        "config": config.model_dump(mode="json"),
        "config_sha256": config_sha256(config),
        "data": [source.model_dump()],
        "split": {
            "method": "whole blocks of time of each state: the last to test, those before to validate",
            **{name: len(part) for name, part in parts.items()},
            "seed": 0,
        },
        "states": [state.model_dump() for state in liquid.states],
        "prior": None if liquid.prior is None else liquid.prior.model_dump(),
        "epochs": len(history),
        "cpu_seconds": cpu_seconds(history),
        "versions": versions(),
        "revision": revision(),
    }


def _save_predictions(folder: Path, network: HipNN, pair: PairForce, liquid: Liquid) -> None:
    """Write predictions.npz.

    For each held-out part p: p/energy [M, n] in eV, and in eV/angstrom [A, 3] p/forces of the mean, p/force_std over
    members, p/pair_forces of the baseline and p/target_forces; p/state [n] and p/beads [n].
    """
    arrays: dict[str, NDArray[Any]] = {}
    for part in ("valid", "test"):
        frames = liquid.parts[part]
        data = labelled(liquid, part, network.config)
        answer, forces = predict_forces(network, data, frames=EVALUATION_FRAMES)
        arrays |= {
            f"{part}/energy": answer.energy,
            f"{part}/forces": forces,
            f"{part}/pair_forces": np.concatenate([pair.forces(graph) for graph in data.graphs]).astype(np.float32),
            f"{part}/target_forces": np.concatenate(frames.forces).astype(np.float32),
            f"{part}/state": frames.state,
            f"{part}/beads": np.array([len(s) for s in frames.structures]),
        }
        if network.config.members > 1:
            spread = predict_member_forces(network, data, frames=EVALUATION_FRAMES).std(axis=0, ddof=1)
            arrays[f"{part}/force_std"] = spread
    write_arrays(folder / PREDICTIONS, arrays)


def _save_distributions(
    folder: Path, config: CoarseGrainingConfig, liquid: Liquid, fields: dict[str, BeadForces]
) -> None:
    """Write distributions.npz (r, and by state s s/atoms/g, s/network/g, s/pair/g, s/*/p) and errors.json."""
    frames = joined(liquid)
    arrays: dict[str, Array] = {}
    errors: list[dict[str, Any]] = []
    for s, state in enumerate(track(liquid.states, description="dynamics of beads")):
        truth = arranged(frames, s, config.r_max_angstrom, config.bins)
        arrays |= {"r": truth.radial.r, f"{s}/atoms/g": truth.radial.g, f"{s}/atoms/p": truth.angular.p}
        count = int((frames.state == s).sum())
        entry = {"state": state.model_dump(), "frames": count, "arm_angstrom": truth.angular.arm}
        entry["noise"] = noise_floor(frames, s, truth, config)
        for name, forces in fields.items():
            found = simulated(forces, frames, s, config, truth)
            entry[name] = None if found is None else found.errors(truth)
            if found is not None:
                arrays |= {f"{s}/{name}/g": found.radial.g, f"{s}/{name}/p": found.angular.p}
        errors.append(entry)
    write_arrays(folder / DISTRIBUTIONS, arrays)
    write_json(folder / "errors.json", errors)
