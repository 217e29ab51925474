"""Velocity and permeability of porous media by MS-Net (Santos et al., Transport in Porous Media 140, 241 (2021)).

labels            flows of a campaign (training/sampling/permeability.py), parted family by family
features, target  distance to the wall, estimate by conduction; velocity, by its ratio to the estimate
fit               members from their own seeds; cubes from some images a step, each in one of the 16 symmetries that
                  keep the flow's axis: the estimate has seen the whole image, so that a part can be learnt from
predict           every image of every part -> predictions.npz
"""

import csv
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from rich.progress import Progress
from torch import Tensor

from contract.flow import FlowInputs, flow_inputs
from contract.voxels import padded
from training.checkpoint import load_checkpoint, save_checkpoint, save_weights
from training.errors import require_finite
from training.files import read_json, write_arrays, write_json
from training.fit import require_device
from training.flow_evaluation import FLOOR
from training.networks.msnet import Answers, MSNet, MSNetConfig, loss, pyramid
from training.networks.permeability import PermeabilityCommittee, features, mean_over_pores, trends
from training.pipelines.errors import NotEnoughLabels
from training.record import config_sha256, revision, versions
from training.sampling.permeability import FLOW_AXIS, Label, read_label
from training.schedule import cosine

Part = Literal["train", "valid", "test"]
PARTS: Final[tuple[Part, ...]] = ("train", "valid", "test")
SYMMETRIES: Final = 16
_PER_POINT: Final = 50


class FlowFitConfig(BaseModel):
    """How to train one member."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    updates: int = Field(600, ge=1, description="steps of one batch")
    batch: int = Field(8, ge=1, description="cubes from images that are drawn with repetition")
    crop: int = Field(16, ge=4, description="voxels a side of a cube, or as many as all images have")
    learning_rate: float = Field(5e-3, gt=0, description="at its highest; down a cosine to a hundredth")
    averaging: float = Field(0.99, ge=0, lt=1, description="decay a step of the running average of weights")
    gradient_clip: float = Field(1.0, gt=0)
    variance_floor: float = Field(
        0.3, ge=0, description="least variance of a velocity in the loss, over the training mean; 0 is the paper's loss"
    )
    permeability_weight: float = Field(
        1.0, ge=0, description="of the squared relative error of k, beside the loss of the field; 0 is the paper's loss"
    )
    flux_weight: float = Field(
        0.0, ge=0, description="of the mean squared error of the flux through each slice, over the mean flow"
    )
    symmetries: int = Field(SYMMETRIES, ge=1, le=SYMMETRIES, description="to turn cubes through; 1 leaves them")
    seed: int = 0
    device: str = "cpu"


class PermeabilityTraining(BaseModel):
    """A training run, as YAML in training/configs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: Literal["permeability"] = "permeability"
    name: str
    purpose: str
    labels: Path = Field(description="folder of a campaign")
    network: MSNetConfig = MSNetConfig()
    members: int = Field(3, ge=2)
    fractions: tuple[float, float, float] = Field((0.7, 0.1, 0.2), description="of each family: train, valid, test")
    fit: FlowFitConfig = FlowFitConfig()

    @model_validator(mode="after")
    def _a_cube_has_every_scale(self) -> "PermeabilityTraining":
        if self.fit.crop < self.network.divisor:
            raise ValueError(
                f"fit.crop {self.fit.crop} has no voxel left on the coarsest of {self.network.scales} scales: give at "
                f"least {self.network.divisor}"
            )
        return self


@dataclass(frozen=True, slots=True, eq=False)
class FlowImage:
    """One labelled image as the networks see it, the flow along the last axis.

    Attributes:
        inputs: of the graph.
        fields: float32 [4, X, Y, Z]: distance to the wall in voxels, pore, and estimate and velocity over the mean of
            the estimate over the pores; lengths are multiples of the network's divisor.
        variance, mean: of the velocity in these units, over all voxels.
        label: what it was made from.
    """

    inputs: FlowInputs
    fields: Tensor
    variance: Tensor
    mean: Tensor
    label: Label

    @property
    def velocity(self) -> Tensor:
        """Of the label, in units of the estimate's mean over the pores."""
        return self.fields[3]

    @property
    def family(self) -> str:
        """Kind of medium."""
        return str(self.label.facts["family"])


@dataclass(frozen=True, slots=True)
class Scales:
    """What the training images say of all images.

    Attributes:
        mean_distance: voxels, over the pores.
        factor: of the permeability over its estimate by conduction, the mean of its logarithm.
        least_variance: of a velocity, in the loss.
    """

    mean_distance: float
    factor: float
    least_variance: float

    @classmethod
    def of(cls, images: Sequence[FlowImage], variance_floor: float) -> "Scales":
        """Means over the training part."""
        distances = torch.cat([image.fields[0][image.fields[1] > 0] for image in images])
        variances = [float(image.variance) for image in images]
        factors = [float(image.velocity.sum() / image.fields[2].sum()) for image in images]
        factor = float(np.exp(np.mean(np.log(factors))))
        return cls(float(distances.mean()), factor, variance_floor * float(np.mean(variances)))


@dataclass(frozen=True, slots=True)
class FlowUpdate:
    """One line of a member's learning curve: means since the one before."""

    update: int
    loss: float
    learning_rate: float
    cpu_seconds: float


def train_permeability(config: PermeabilityTraining, folder: Path) -> PermeabilityCommittee:
    """Train, or go on with, a committee, and write its predictions on every part into the run's folder.

    Raises:
        NotReady: the configuration's device is not there.
    """
    require_device(config.fit.device)
    parts = part_labels(config)
    images = {part: [flow_image(label, config.network.divisor) for label in parts[part]] for part in PARTS}
    scales = Scales.of(images["train"], config.fit.variance_floor)
    torch.manual_seed(config.fit.seed)
    committee = PermeabilityCommittee.of(config.network, config.members, scales.mean_distance, scales.factor)
    seconds = 0.0
    for m, member in enumerate(committee.networks):
        history = fit_member(member, images["train"], scales, config.fit, m, folder / f"member-{m}")
        seconds += history[-1].cpu_seconds
    committee.eval()
    fit_trend(committee, images["train"])
    save_weights(committee, folder / "weights.safetensors")
    write_predictions(committee, images, folder)
    write_json(folder / "run.json", _record(config, parts, seconds))
    return committee


def load_committee(folder: Path) -> tuple[PermeabilityTraining, PermeabilityCommittee]:
    """A finished run: its configuration and its committee."""
    from safetensors.torch import load_file

    config = PermeabilityTraining.model_validate(read_json(folder / "run.json")["config"])
    committee = PermeabilityCommittee.of(config.network, config.members, mean_distance=1.0, factor=1.0)
    committee.load_state_dict(load_file(folder / "weights.safetensors"))
    return config, committee.eval()


def part_labels(config: PermeabilityTraining) -> dict[Part, list[Label]]:
    """The steady flows of a campaign by part. Images have no common parent; the first of each family train.

    Raises:
        NotEnoughLabels: the folder has none, or a part stays empty.
    """
    parts: dict[Part, list[Label]] = {part: [] for part in PARTS}
    families: dict[str, list[Label]] = {}
    for path in sorted(config.labels.glob("*.npz")):
        label = read_label(path)
        if label.facts["converged"]:
            families.setdefault(label.facts["family"], []).append(label)
    for labels in families.values():
        ends = np.round(np.cumsum(config.fractions) * len(labels)).astype(int)
        for part, begin, end in zip(PARTS, (0, *ends[:-1]), ends, strict=True):
            parts[part] += labels[begin:end]
    if not all(parts.values()):
        counts = ", ".join(f"{len(parts[part])} {part}" for part in PARTS)
        raise NotEnoughLabels(
            f"{config.labels} gives {counts} images: run `understudy sample` with a configuration of that name first"
        )
    return parts


def flow_image(label: Label, divisor: int) -> FlowImage:
    """What the networks see of a labelled image."""
    return labelled_image(flow_inputs(label.image, FLOW_AXIS, divisor), label, divisor)


def labelled_image(inputs: FlowInputs, label: Label, divisor: int) -> FlowImage:
    """The same from inputs at hand."""
    solved = padded(label.velocity * inputs.pores.conducting, divisor)
    arrays = (inputs.distance, inputs.pore, inputs.estimate, solved)
    distance, pore, estimate, velocity = (torch.from_numpy(array) for array in arrays)
    scale = mean_over_pores(estimate[None], pore[None])[0]
    fields = torch.stack([distance, pore, estimate / scale, velocity / scale])
    return FlowImage(inputs, fields, fields[3].var(unbiased=False), fields[3].mean(), label)


def symmetric(field: Tensor, which: int) -> Tensor:
    """One of the 16 symmetries that keep the flow's axis: 8 of the square across it, and the mirror along it.

    Reversing the flow's axis and the force leaves the component along the force as it was.
    """
    if which & 8:
        field = field.flip(-1)
    if which & 4:
        field = field.transpose(-3, -2)
    return torch.rot90(field, which & 3, (-3, -2)).contiguous()


def fit_member(
    network: MSNet,
    images: Sequence[FlowImage],
    scales: Scales,
    how: FlowFitConfig,
    member: int,
    folder: Path,
) -> list[FlowUpdate]:
    """Train one member; it ends with the running average of its weights. Goes on from its checkpoint.

    Args:
        network: trained in place.
        images: of the training part.
        scales: of the training part.
        how: schedule and seed.
        member: its number, for the seed.
        folder: for its checkpoint and history.csv.

    Raises:
        Diverged: the loss is not finite; the checkpoint is that of the point before.
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = _MemberState(network.to(how.device), how, folder)
    begun = time.process_time()
    with Progress(transient=True) as progress:
        task = progress.add_task(f"member {member}", total=how.updates, completed=state.update)
        while state.update < how.updates:
            losses = []
            for _ in range(min(_PER_POINT, how.updates - state.update)):
                losses.append(state.step(images, scales, member))
                progress.advance(task)
            now, mean = time.process_time(), float(np.mean(losses))
            require_finite(mean, during=f"{folder.name}, update {state.update}")
            state.note(mean, now - begun)
            begun = now
    state.average.copy_to(network)
    network.cpu()
    return state.history


def cubes(images: Sequence[FlowImage], how: FlowFitConfig, divisor: int, rng: np.random.Generator) -> Tensor:
    """A cube from a random place of each image, turned at random: fields [B, 4, n, n, n]."""
    side = min(how.crop, *(length for image in images for length in image.fields.shape[1:])) // divisor * divisor
    return torch.stack(
        [symmetric(_cube(image.fields, side, divisor, rng), int(rng.integers(how.symmetries))) for image in images]
    )


def objective(
    network: MSNet, images: Sequence[FlowImage], fields: Tensor, scales: Scales, how: FlowFitConfig
) -> Tensor:
    """The paper's loss, relative to the velocity's variance in each image or the floor, and those of mean and flux."""
    distance, pore, estimate, velocity = fields.unbind(dim=1)
    gain = network(features(distance / scales.mean_distance, estimate), pore.unsqueeze(1)).finest.squeeze(1)
    answer = scales.factor * estimate * (1.0 + gain)
    variance = torch.stack([image.variance for image in images]).to(fields.device).clamp(min=scales.least_variance)
    mean = torch.stack([image.mean for image in images]).to(fields.device)
    levels = Answers(pyramid(answer.unsqueeze(1), network.config.scales))
    relative = (answer - velocity).mean(dim=(1, 2, 3)) / mean
    total: Tensor = loss(levels, velocity.unsqueeze(1), variance)
    total = total + how.permeability_weight * (relative * relative).mean()
    if how.flux_weight:
        slices = (answer - velocity).mean(dim=(1, 2)) / mean[:, None]
        total = total + how.flux_weight * (slices * slices).mean()
    return total


def _cube(fields: Tensor, side: int, divisor: int, rng: np.random.Generator) -> Tensor:
    x, y, z = (divisor * int(rng.integers((n - side) // divisor + 1)) for n in fields.shape[1:])
    return fields[:, x : x + side, y : y + side, z : z + side]


@torch.no_grad()
def fit_trend(committee: PermeabilityCommittee, images: Sequence[FlowImage]) -> None:
    """Least squares of what remains of log k on the training part, for each member, in place."""
    seen, left = [], []
    committee.trend.zero_()
    for image in images:
        tensors = [torch.from_numpy(v) for v in image.inputs.tensors().values()]
        _, flow = committee(*tensors)
        said = image.inputs.permeabilities(flow.numpy())
        left.append(np.log(image.label.permeability / np.maximum(FLOOR, said)))
        seen.append(trends(*tensors)[0].numpy())
    fitted, *_ = np.linalg.lstsq(np.array(seen, np.float64), np.array(left), rcond=None)
    committee.trend.copy_(torch.from_numpy(fitted.T))


def write_predictions(committee: PermeabilityCommittee, images: dict[Part, list[FlowImage]], folder: Path) -> None:
    """Permeability of every image by every member, and the error of the mean field: predictions.npz, by part."""
    arrays: dict[str, NDArray[Any]] = {}
    for part, each in images.items():
        rows = [predicted(committee, image) for image in each]
        for name in rows[0]:
            arrays[f"{part}/{name}"] = np.array([row[name] for row in rows])
    write_arrays(folder / "predictions.npz", arrays)


@torch.no_grad()
def predicted(committee: PermeabilityCommittee, image: FlowImage) -> dict[str, Any]:
    """What a committee says of one image, beside the label; permeabilities in voxel^2."""
    velocity, flow = committee(*map(torch.from_numpy, image.inputs.tensors().values()))
    field, truth = image.inputs.field(velocity.numpy()), image.label.velocity
    flux = field.sum(axis=(0, 1), dtype=np.float64)
    return {
        "permeability": image.label.permeability,
        "members": image.inputs.permeabilities(flow.numpy()),
        "field_error": float(np.abs(field - truth).sum() / np.abs(truth).sum()),
        "flux_std": float(flux.std() / abs(flux.mean())),
        "family": image.family,
        **described(image.inputs),
    }


def described(inputs: FlowInputs) -> dict[str, float]:
    """What simple formulas see of an image: porosity, surface per volume, moments of the distance, conduction."""
    geometry = inputs.geometry
    return {
        "porosity": geometry.porosity,
        "connected_porosity": geometry.connected_porosity,
        "surface": geometry.surface,
        "mean_distance": float(inputs.distance[inputs.pore > 0].mean()),
        "scale_squared": geometry.length_scale**2,
        "parabola": geometry.length_scale**2 * geometry.connected_porosity,
        "conduction": inputs.estimated_permeability,
    }


class _Average:
    """The running average of a network's weights."""

    def __init__(self, network: MSNet) -> None:
        self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}

    @torch.no_grad()
    def follow(self, network: MSNet, decay: float) -> None:
        for name, value in network.state_dict().items():
            self.weights[name].lerp_(value, 1.0 - decay)

    def copy_to(self, network: MSNet) -> None:
        network.load_state_dict(self.weights)


class _MemberState:
    """Everything that changes while a member is trained."""

    def __init__(self, network: MSNet, how: FlowFitConfig, folder: Path) -> None:
        self.network, self.how, self.folder = network, how, folder
        self.optimiser = torch.optim.Adam(network.parameters(), lr=how.learning_rate)
        self.average = _Average(network)
        self.history: list[FlowUpdate] = []
        self.update = 0
        stored = load_checkpoint(folder / "checkpoint.pt")
        if stored is not None:
            network.load_state_dict(stored["network"])
            self.optimiser.load_state_dict(stored["optimiser"])
            self.average.weights = {name: value.to(how.device) for name, value in stored["average"].items()}
            self.history = [FlowUpdate(**line) for line in stored["history"]]
            self.update = stored["update"]

    def step(self, images: Sequence[FlowImage], scales: Scales, member: int) -> float:
        """One batch of cubes; all chance comes from the seed, the member and the number of the step."""
        rng = np.random.default_rng((self.how.seed, member, self.update))
        for group in self.optimiser.param_groups:
            group["lr"] = cosine(self.update, self.how.updates, self.how.learning_rate)
        chosen = [images[i] for i in rng.integers(len(images), size=self.how.batch)]
        fields = cubes(chosen, self.how, self.network.config.divisor, rng).to(self.how.device)
        value = objective(self.network, chosen, fields, scales, self.how)
        self.optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.how.gradient_clip)
        self.optimiser.step()
        self.update += 1
        self.average.follow(self.network, min(self.how.averaging, self.update / (self.update + 10.0)))
        return float(value.detach())

    def note(self, mean_loss: float, seconds: float) -> None:
        """Write a point of the learning curve and a checkpoint."""
        before = self.history[-1].cpu_seconds if self.history else 0.0
        rate = self.optimiser.param_groups[0]["lr"]
        self.history.append(FlowUpdate(self.update, mean_loss, rate, before + seconds))
        save_checkpoint(
            self.folder / "checkpoint.pt",
            {
                "network": self.network.state_dict(),
                "optimiser": self.optimiser.state_dict(),
                "average": self.average.weights,
                "history": [asdict(line) for line in self.history],
                "update": self.update,
            },
        )
        with (self.folder / "history.csv").open("w", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(asdict(self.history[0])))
            writer.writeheader()
            writer.writerows(asdict(line) for line in self.history)


def _record(config: PermeabilityTraining, parts: dict[Part, list[Label]], seconds: float) -> dict[str, Any]:
    campaign = read_json(config.labels / "sampling.json")
    return {
        "config": config.model_dump(mode="json"),
        "config_sha256": config_sha256(config),
        "campaign": campaign,
        "split": {part: len(labels) for part, labels in parts.items()},
        "not_steady": campaign["not_steady"],
        "cpu_seconds": seconds,
        "updates": config.fit.updates,
        "versions": versions(),
        "revision": revision(),
    }
