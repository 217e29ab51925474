"""Labels of permeability: random porous media and the creeping flow through each, one file an image.

    for family, number:  image of a random porosity -> flow along z, a core in a sleeve -> <family>-<number>.npz

An image is made from its family and number alone, so that a campaign goes on where it was, on any number of workers;
one that does not conduct is made again with the next seed, and one whose flow did not become steady is kept as such.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import Progress

from contract.repository import sha256_of
from contract.voxels import AXES, Image, pores_of
from training.files import write_arrays, write_json
from training.record import config_sha256, revision, versions
from training.sampling.errors import NothingKept
from training.sampling.porous_media import MEDIA, Family
from training.simulators.creeping_flow import SOLVER, SOLVER_VERSION, Flow, Solver, solve_flow

FLOW_AXIS: Final = 2
_TRIES: Final = 20


class PermeabilityConfig(BaseModel):
    """What media to make, and how to solve the flow. Serialised as YAML in training/configs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampling: Literal["permeability"] = "permeability"
    name: str
    lengths: tuple[Annotated[int, Field(ge=8)], ...] = Field(
        (48,), min_length=1, description="voxels a side: the images of a family take them in turn"
    )
    images: dict[Family, int] = Field(description="how many of each family")
    porosity: tuple[float, float] = (0.1, 0.5)
    solver: Solver = Solver()
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """One labelled image.

    Attributes:
        image: bool [nx, ny, nz], True = pore.
        velocity: float32, likewise, component along z times viscosity over driving force, voxel^2.
        facts: family, number, seed, porosities, permeability_voxel2, solver, ends, steps, converged, flux_std.
    """

    image: Image
    velocity: NDArray[np.float32]
    facts: dict[str, Any]

    @property
    def permeability(self) -> float:
        """voxel^2."""
        return float(self.facts["permeability_voxel2"])


def sample_permeability(config: PermeabilityConfig, folder: Path, workers: Executor | None = None) -> Path:
    """Make and label the images that are not there yet, or follow from other settings.

    Args:
        config: what to make.
        folder: where one .npz an image and sampling.json are written, by the workers too.
        workers: of training/active/pools.py; None: here, one after another.

    Returns:
        The path of sampling.json.

    Raises:
        NothingKept: no flow became steady, or a family never conducts at these porosities.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = [place for place in _places(config) if not _is_made(config, folder, *place)]
    with Progress(transient=True) as progress:
        task = progress.add_task("solving flows", total=len(missing))
        for _ in _each(config, folder, missing, workers):
            progress.advance(task)
    facts = [read_label(_path(folder, *place)).facts for place in _places(config)]
    if not any(fact["converged"] for fact in facts):
        raise NothingKept(f"none of the {len(facts)} flows in {folder} became steady: raise solver.max_steps")
    path = folder / "sampling.json"
    write_json(path, _record(config, folder, facts))
    return path


def read_label(path: Path) -> Label:
    """One file of a campaign."""
    with np.load(path, allow_pickle=False) as arrays:
        shape = tuple(arrays["shape"])
        image = np.unpackbits(arrays["image"], count=int(np.prod(shape))).reshape(shape).astype(bool)
        velocity = np.zeros(shape, np.float32)
        velocity[image] = arrays["velocity"]
        return Label(image, velocity, json.loads(str(arrays["facts"])))


def write_label(path: Path, label: Label) -> None:
    """Write a file as a whole: a reader never sees half of one."""
    arrays: dict[str, NDArray[Any]] = {
        "image": np.packbits(label.image),
        "shape": np.array(label.image.shape),
        "velocity": label.velocity[label.image],
        "facts": np.array(json.dumps(label.facts)),
    }
    write_arrays(path, arrays)


def label_of(image: Image, solver: Solver, **facts: Any) -> Label:
    """Solve the flow along the last axis."""
    flow = solve_flow(image, FLOW_AXIS, "mirror", solver)
    return Label(image, flow.velocity.astype(np.float32), {**facts, **_facts(image, flow)})


def _facts(image: Image, flow: Flow) -> dict[str, Any]:
    pores = pores_of(image, FLOW_AXIS)
    return {
        "porosity": pores.porosity,
        "connected_porosity": pores.connected_porosity,
        "permeability_voxel2": flow.permeability,
        "solver": SOLVER,
        "solver_version": SOLVER_VERSION,
        "ends": flow.ends,
        "axis": AXES[FLOW_AXIS],
        "relaxation": flow.relaxation,
        "steps": flow.steps,
        "change": flow.change,
        "flux_std": flow.flux_std,
        "converged": flow.converged,
    }


def _places(config: PermeabilityConfig) -> Iterator[tuple[Family, int]]:
    """Family by family in turn, so that a campaign cut short has some of each."""
    for number in range(max(config.images.values(), default=0)):
        yield from ((family, number) for family, wanted in config.images.items() if number < wanted)


def _path(folder: Path, family: Family, number: int) -> Path:
    return folder / f"{family}-{number:03d}.npz"


def _each(
    config: PermeabilityConfig, folder: Path, places: Iterable[tuple[Family, int]], workers: Executor | None
) -> Iterator[Path]:
    if workers is None:
        yield from (_make(config, folder, *place) for place in places)
        return
    for done in as_completed([workers.submit(_make, config, folder.resolve(), *place) for place in places]):
        yield done.result()


def _is_made(config: PermeabilityConfig, folder: Path, family: Family, number: int) -> bool:
    path = _path(folder, family, number)
    if not path.exists():
        return False
    with np.load(path, allow_pickle=False) as arrays:
        facts: dict[str, Any] = json.loads(str(arrays["facts"]))
    return _of(config, number) == facts.get("of")


def _of(config: PermeabilityConfig, number: int) -> dict[str, Any]:
    """What an image and its label follow from, beside family and number; how many others there are is not among it."""
    settings = config.model_dump(mode="json", include={"porosity", "solver", "seed"})
    return {**settings, "length": config.lengths[number % len(config.lengths)], "solver_version": SOLVER_VERSION}


def _make(config: PermeabilityConfig, folder: Path, family: Family, number: int) -> Path:
    image, seed = _conducting(config, family, number)
    path, of = _path(folder, family, number), _of(config, number)
    write_label(path, label_of(image, config.solver, family=family, number=number, seed=list(seed), of=of))
    return path


def _conducting(config: PermeabilityConfig, family: Family, number: int) -> tuple[Image, tuple[int, ...]]:
    for attempt in range(_TRIES):
        seed = (config.seed, list(MEDIA).index(family), number, attempt)
        rng = np.random.default_rng(seed)
        image = MEDIA[family](config.lengths[number % len(config.lengths)], rng.uniform(*config.porosity), rng)
        if pores_of(image, FLOW_AXIS).percolates:
            return image, seed
    raise NothingKept(f"{family}: none of {_TRIES} images conducts at a porosity of {config.porosity}: raise it")


def _record(config: PermeabilityConfig, folder: Path, facts: list[dict[str, Any]]) -> dict[str, Any]:
    files = sorted(folder.glob("*.npz"))
    together = hashlib.sha256("".join(f"{path.name} {sha256_of(path)}\n" for path in files).encode()).hexdigest()
    return {
        "config": config.model_dump(mode="json"),
        "config_sha256": config_sha256(config),
        "level_of_theory": SOLVER,
        "images": len(facts),
        "not_steady": sum(not fact["converged"] for fact in facts),
        "images_sha256": together,
        "versions": versions(),
        "revision": revision(),
    }
