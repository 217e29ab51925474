"""A published ANI ensemble as a run, ready to be published: its weights, what it is judged by, and its domain.

The data that it was trained on are not here. Its errors are taken on labels that a person gives; what it was trained
for is told from typical frames, such as `understudy sample` makes, on which its members agree.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from contract.card import Domain
from contract.elements import SYMBOLS, hill_formula, symbols
from contract.environments import Environments
from contract.structures import Structure
from training.batches import LabelledGraphs, labelled_graphs
from training.checkpoint import Run
from training.data import DataSpec
from training.data.dataset import Dataset, ragged
from training.data.extxyz import read_structures
from training.domain import training_domain
from training.environments import fit_environments
from training.evaluation import predict_energies
from training.importers.held_out import held_out_parts, import_record, save_import
from training.importers.neurochem import read_neurochem
from training.networks.potential import Potential
from training.out_of_domain import surroundings
from training.pipelines.preparation import Prepared

_SEED: Final = 0


class AniImport(BaseModel):
    """What to import, and what no published file says."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline: Literal["ani_import"] = "ani_import"
    name: str
    purpose: str
    licence: str = Field("MIT", description="of the weights; TorchANI's repository publishes them under MIT")
    held_out: DataSpec | None = Field(None, description="labels the network has not seen; its errors are taken on them")
    zero: Literal["labels", "fitted"] = Field(
        "labels", description="fitted: one constant a formula is taken off, for labels with a zero of their own"
    )
    typical: Path | None = Field(
        None, description="extended xyz, frames of the kind it is for; default the held-out ones"
    )


def import_ani(files: Path, config: AniImport, folder: Path) -> Run:
    """Import a published ANI ensemble and save it as a run.

    Args:
        files: folder or .tar.gz in NeuroChem's format (training/importers/neurochem.py).
        config: name, and what it is judged by.
        folder: where the run is written.

    Raises:
        ImportRefused: files that are not an ensemble.
        DataError: labels or frames that cannot be read.
    """
    published = read_neurochem(files)
    network, references = published.network, published.references
    held_out = held_out_parts(config.held_out, references)
    zero_ev: dict[str, float] = {}
    if held_out is not None and config.zero == "fitted":
        zero_ev = _zeros(network, held_out)
        held_out = shifted(held_out, zero_ev)
    record = import_record(config, network, held_out) | ({"zero_ev": zero_ev} if zero_ev else {})
    run = Run(network, references, record)
    save_import(folder, config, run, held_out)
    return run


def parts_of(config: AniImport, run: Run) -> Prepared | None:
    """The held-out labels of an import, with the zero that it found."""
    held_out = held_out_parts(config.held_out, run.references)
    return None if held_out is None else shifted(held_out, run.record.get("zero_ev", {}))


def shifted(held_out: Prepared, zero_ev: Mapping[str, float]) -> Prepared:
    """Labels raised by a constant for each formula."""
    if not zero_ev:
        return held_out
    dataset = held_out.dataset
    raised = dataset.energy + np.array([zero_ev[formula] for formula in _formulas(dataset)])
    note = f"One constant for each of {len(zero_ev)} formulas was added: the labels have a zero of their own."
    return replace(held_out, dataset=replace(dataset, energy=raised).noting(note))


def imported_domain(
    config: AniImport, run: Run, held_out: Prepared, scale: float
) -> tuple[Domain, Environments | None]:
    """What the ensemble is for, from typical frames: four fifths make its surroundings, the rest test them.

    Args:
        config: of the import.
        run: of the import.
        held_out: its labels, whose frames are taken if no typical ones were given.
        scale: what turns the members' spread of the energy into a standard deviation.

    Returns:
        The domain, of any composition, and the surroundings; None if an element is missing among the frames.
    """
    network, cutoff = run.network, run.network.config.cutoff_angstrom
    frames = list(held_out.dataset) if config.typical is None else read_structures(config.typical)
    dataset = _unlabelled(frames)
    spread = predict_energies(network, _graphs(dataset, cutoff)).std
    order = np.random.default_rng(_SEED).permutation(len(frames))
    known, others = order[len(order) // 5 :], order[: len(order) // 5]
    environments = around = None
    if set(network.config.elements) <= set(dataset.numbers.tolist()) and len(others):
        kept, rest = [frames[i] for i in known], [frames[i] for i in others]
        environments = fit_environments(kept, rest, network.config.elements, cutoff)
        around = surroundings(environments, rest, cutoff)
    domain = training_domain(dataset, cutoff, None if spread is None else scale * spread, around)
    named = {"elements": symbols(network.config.elements), "formulas": None, "description": _described(run, dataset)}
    return domain.model_copy(update=named), environments


def _described(run: Run, typical: Dataset) -> str:
    elements = ", ".join(symbols(run.network.config.elements))
    return (
        f"Molecules of {elements} like those of the published training data, which are not here: judged by "
        f"{len(typical):,} frames of {len(typical.formulas())} formulas"
    )


def _zeros(network: Potential, held_out: Prepared) -> dict[str, float]:
    """For each formula the mean of answer minus label, eV, on the valid part; of all frames where it has none."""
    every = held_out.dataset
    answer = predict_energies(network, _labelled(held_out, network.config.cutoff_angstrom)).error
    formulas, valid = np.array(_formulas(every)), np.zeros(len(every), bool)
    valid[held_out.split.valid] = True
    chosen: dict[str, NDArray[np.bool_]] = {f: formulas == f for f in sorted(set(formulas.tolist()))}
    return {f: float(answer[mine & valid if (mine & valid).any() else mine].mean()) for f, mine in chosen.items()}


def _labelled(held_out: Prepared, cutoff: float) -> LabelledGraphs:
    return labelled_graphs(held_out.dataset, cutoff, held_out.references)


def _formulas(dataset: Dataset) -> list[str]:
    return [hill_formula(structure.numbers) for structure in dataset]


def _unlabelled(frames: Sequence[Structure]) -> Dataset:
    return ragged(
        [f.numbers for f in frames],
        [f.positions for f in frames],
        np.zeros(len(frames)),
        [],
        cells=[f.cell for f in frames] if any(f.cell is not None for f in frames) else None,
        pbc=np.array([f.pbc for f in frames]),
    )


def _graphs(dataset: Dataset, cutoff: float) -> LabelledGraphs:
    nothing = {SYMBOLS[z]: 0.0 for z in np.unique(dataset.numbers)}
    return labelled_graphs(dataset, cutoff, nothing)
