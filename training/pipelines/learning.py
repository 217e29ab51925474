"""Active learning from a configuration to a finished run: the loop, its frames, held-out frames, properties, record.

    frames.extxyz       every label of the loop
    held-out.extxyz     frames of trajectories driven by the reference, at random moments: half calibrates, half tests
    generations.json    thresholds, and what each generation found
    properties.json     lattice constant, moduli, defects, cold curve and melt of the committee and of its reference

The run can be published like any other (training/pipelines/admission.py). A run that was killed goes on where it was.
"""

import csv
import json
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Final

import numpy as np
from ase import Atoms
from ase.io import write
from rich.console import Console

from contract.files import replaced
from contract.repository import sha256_of
from contract.structures import Structure
from training.active.loop import Outcome, run_loop
from training.active.store import Sample, Store
from training.checkpoint import WEIGHTS, HipNNRun, save_run
from training.data.dataset import concatenate
from training.data.extxyz import read_extxyz
from training.data.splits import Split
from training.evaluation import save_predictions
from training.files import read_json, write_json
from training.pipelines.metal import Fitted, Metal, MetalConfig
from training.pipelines.preparation import Prepared
from training.record import run_record
from training.sampling.chance import ReferenceDriver
from training.simulators.committee import CommitteeReference
from training.simulators.labels import Labels, Reference
from training.validation.against import compare_fcc

FRAMES: Final = "frames.extxyz"
HELD_OUT: Final = "held-out.extxyz"
GENERATIONS: Final = "generations.json"
PROPERTIES: Final = "properties.json"
SPLIT_METHOD: Final = (
    "trained on what the loop asked for; validated and tested on frames, at random moments, of other trajectories, "
    "driven by the reference itself from disordered cells"
)


def learn_metal(config: MetalConfig, folder: Path, executor: Executor) -> HipNNRun:
    """Run the loop, or go on with one that was interrupted, and leave a run that can be published.

    Args:
        config: what is learnt, and how.
        folder: of the run.
        executor: runs the reference.
    """
    metal = Metal(config)
    outcome = run_loop(metal, config.loop, folder, executor, title=config.name)
    write_frames(outcome.store.labelled(), folder / FRAMES)
    write_json(folder / GENERATIONS, _generations(outcome, metal))
    if not (folder / HELD_OUT).exists():
        _write_held_out(metal, config, folder / HELD_OUT)
    run = _finished(config, metal, outcome.model, outcome.store, folder)
    write_properties(config, run, metal.labeller, folder)
    return run


def write_properties(config: MetalConfig, run: HipNNRun, labeller: Reference, folder: Path) -> None:
    """Compute properties of a run and of the reference, unless those of these very weights are there.

    What is there of other weights, of a loop that went on since, is thrown away, also if the configuration wants none.
    """
    path = folder / PROPERTIES
    of: dict[str, Any] = {"weights_sha256": sha256_of(folder / WEIGHTS)}
    if config.validation is not None:
        of |= {"validation": config.validation.model_dump(mode="json")}
    if path.exists() and read_json(path).get("of") == of:
        return
    path.unlink(missing_ok=True)
    if config.validation is None:
        return
    ours = CommitteeReference(run.network, run.references, run.record["config"]["name"])
    with Console(stderr=True).status(f"{ours.method}: properties beside those of the reference"):
        write_json(path, compare_fcc(config.element, config.validation, ours, labeller) | {"of": of})


def learned_parts(config: MetalConfig, folder: Path, references: dict[str, float]) -> Prepared:
    """The data of a finished loop, parted: its labels to train on, held-out frames to validate and to test."""
    made_by = f"Labelled by {json.loads((folder / GENERATIONS).read_text())['level_of_theory']}."
    labelled, held_out = (
        read_extxyz(
            folder / name, config.provenance.model_copy(update={"name": f"{config.provenance.name}, {what}"})
        ).noting(made_by)
        for name, what in ((FRAMES, "frames that active learning asked for"), (HELD_OUT, "held-out frames"))
    )
    n, held = len(labelled), len(held_out)
    valid, test = n + np.arange(0, held, 2), n + np.arange(1, held, 2)
    parts = Split(np.arange(n), valid, test, n + held, 1, config.loop.seed, SPLIT_METHOD)
    return Prepared(concatenate([labelled, held_out]), parts, references)


def write_frames(samples: Sequence[Sample], path: Path) -> None:
    """Labelled samples as extended xyz, with the generation and the reason of each."""
    frames = []
    for sample in samples:
        if sample.label is None:
            raise ValueError(f"sample {sample.number} has no label")
        atoms = Atoms(sample.input["numbers"], sample.input["positions"], cell=sample.input["cell"], pbc=True)
        atoms.info = {
            "REF_energy": float(sample.label["energy"][0]),
            "REF_stress": sample.label["stress"],
            "generation": sample.generation,
            "reason": sample.found["reason"],
        }
        atoms.arrays["REF_forces"] = sample.label["forces"]
        frames.append(atoms)
    _write(frames, path)


def write_labelled(structures: Sequence[Structure], labels: Labels, path: Path) -> None:
    """Structures and their labels as extended xyz."""
    frames = []
    ends = np.cumsum([len(s) for s in structures])[:-1]
    for i, (structure, forces) in enumerate(zip(structures, np.split(labels.forces, ends), strict=True)):
        atoms = Atoms(structure.numbers, structure.positions, cell=structure.cell, pbc=structure.pbc)
        atoms.info = {"REF_energy": float(labels.energy[i])}
        if labels.stress is not None:
            atoms.info["REF_stress"] = labels.stress[i]
        atoms.arrays["REF_forces"] = forces
        frames.append(atoms)
    _write(frames, path)


def held_out_frames(metal: Metal, count: int, seed: int) -> list[Structure]:
    """Frames, at random moments, of trajectories that the reference drives from disordered cells.

    Raises:
        NoSurvivor: all trajectories end with atoms too close.
    """
    return metal.frames_by_chance(ReferenceDriver(metal.labeller, metal.cutoff), count, seed)


def _generations(outcome: Outcome[Fitted], metal: Metal) -> dict[str, Any]:
    store = outcome.store
    return {
        "ended": outcome.ended,
        "level_of_theory": metal.labeller.method,
        "thresholds": store.fact("thresholds"),
        "generations": store.generations(),
    }


def _write_held_out(metal: Metal, config: MetalConfig, path: Path) -> None:
    with Console(stderr=True).status(f"{config.name}: held-out frames of the reference's own dynamics"):
        structures = held_out_frames(metal, config.held_out, config.loop.seed + 1)
        write_labelled(structures, metal.labeller.label(structures), path)


def _finished(config: MetalConfig, metal: Metal, model: Fitted, store: Store, folder: Path) -> HipNNRun:
    prepared = learned_parts(config, folder, model.references)
    record = run_record(config, prepared, model.history)
    record |= {"cpu_seconds": _cpu_seconds(store, folder)}
    run = HipNNRun(model.network, model.references, record)
    save_run(folder, run)
    save_predictions(folder, run.network, prepared)
    return run


def _cpu_seconds(store: Store, folder: Path) -> float:
    """Of all fits and all exploration; labelling is not counted."""
    exploring: float = sum(wave.get("cpu_seconds", 0.0) for report in store.generations() for wave in report["waves"])
    fitting = 0.0
    for path in folder.glob("generation-*/member-*/history.csv"):
        with path.open(newline="") as stream:
            fitting += float(list(csv.DictReader(stream))[-1]["cpu_seconds"])
    return exploring + fitting


def _write(frames: list[Atoms], path: Path) -> None:
    with replaced(path) as part:
        write(part, frames, format="extxyz")
