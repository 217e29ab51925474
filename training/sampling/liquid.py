"""Frames of a liquid for a coarse-grained model: atoms simulated at several states, written as beads with forces.

    for each state (temperature, density):  melt, settle, sample (training/simulators/methanol.py)
    each frame -> beads: centres of mass, sums of forces (training/coarse/mapping.py)

A state that is finished is not simulated again, unless the configuration says otherwise of it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field
from rich.progress import Progress, TaskID

from contract.files import replaced
from contract.repository import sha256_of
from training.coarse.frames import BeadFrame, State, write_frames
from training.coarse.mapping import Mapping
from training.files import read_json, write_json
from training.record import config_sha256, revision, versions
from training.simulators import methanol


class LiquidConfig(BaseModel):
    """Which liquid, at which states, and for how long. Serialised as YAML in training/configs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sampling: Literal["liquid"] = "liquid"
    name: str
    liquid: Literal["methanol"] = "methanol"
    bead: str = Field("S", description="chemical symbol that stands for a bead in files and requests")
    molecules: int = Field(216, ge=8)
    states: list[State] = Field(min_length=1)
    melting_ps: float = Field(10.0, gt=0)
    settling_ps: float = Field(20.0, gt=0)
    sampling_ps: float = Field(120.0, gt=0)
    frame_every_ps: float = Field(0.3, gt=0)
    blocks: int = Field(10, ge=3, description="runs of consecutive frames a state that are never split apart")
    seed: int = 0

    @property
    def schedule(self) -> methanol.Schedule:
        """Times of one state."""
        return methanol.Schedule(self.melting_ps, self.settling_ps, self.sampling_ps, self.frame_every_ps)


def sample_liquid(config: LiquidConfig, folder: Path) -> Path:
    """Simulate every state that is not there yet; returns frames.extxyz of all of them.

    sampling.json beside it says how, with mean pressure and temperature of each state.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with Progress() as progress:
        for number, state in enumerate(config.states):
            path = folder / f"{state.slug}.extxyz"
            finished = path.exists() and _seen(path).get("of") == _of(config, number)
            task = progress.add_task(state.name, total=1.0, completed=int(finished))
            if not finished:
                _sample_state(config, number, path, progress, task)
            files.append(path)
    frames = folder / "frames.extxyz"
    with replaced(frames) as part:
        part.write_bytes(b"".join(path.read_bytes() for path in files))
    record = _record(config, files) | {"frames_sha256": sha256_of(frames)}
    write_json(folder / "sampling.json", record)
    return frames


def _sample_state(config: LiquidConfig, number: int, path: Path, progress: Progress, task: TaskID) -> None:
    state = config.states[number]
    pressures, kelvins = list[float](), list[float]()

    def beads() -> Iterator[BeadFrame]:
        mapping = Mapping.of_equal_molecules(config.molecules, methanol.molecule_masses(config.molecules))
        cell = methanol.box_length(config.molecules, state.density) * np.eye(3)
        simulated = methanol.simulate(
            config.molecules,
            state.kelvin,
            state.density,
            config.schedule,
            1000 * config.seed + 10 * number + 1,
            lambda done: progress.update(task, completed=done),
        )
        for count, frame in enumerate(simulated):
            pressures.append(frame.pressure_bar)
            kelvins.append(frame.kelvin)
            block = count * config.blocks // config.schedule.frames
            positions = mapping.positions(frame.positions, cell)
            yield BeadFrame(positions, mapping.forces(frame.forces), cell, state, block)

    with replaced(path) as part:
        write_frames(beads(), config.bead, part)
        seen = {"pressure_bar": float(np.mean(pressures)), "kelvin": float(np.mean(kelvins)), "frames": len(pressures)}
        path.unlink(missing_ok=True)
        write_json(path.with_suffix(".json"), seen | {"of": _of(config, number)})


def _of(config: LiquidConfig, number: int) -> dict[str, Any]:
    """What the frames of one state follow from."""
    others = config.model_dump(mode="json", exclude={"name", "states"})
    return others | {"number": number, "state": config.states[number].model_dump(mode="json")}


def _seen(path: Path) -> dict[str, Any]:
    beside = path.with_suffix(".json")
    return read_json(beside) if beside.exists() else {}


def _record(config: LiquidConfig, files: list[Path]) -> dict[str, Any]:
    seen = {path.stem: {key: value for key, value in _seen(path).items() if key != "of"} for path in files}
    return {
        "config": config.model_dump(mode="json"),
        "config_sha256": config_sha256(config),
        "level_of_theory": methanol.method(),
        "bead_mass_u": methanol.MOLECULE_MASS_U,
        "states": seen,
        "versions": versions(),
        "revision": revision(),
    }
