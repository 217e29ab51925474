"""From a configuration to graphs: read, check, split, subtract atomic references; for every potential's pipeline."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from training.batches import LabelledGraphs, fit_references, labelled_graphs
from training.data import DataSpec, load
from training.data.checks import require_apart
from training.data.dataset import Dataset
from training.data.splits import Split, split, split_by_group


class SplitConfig(BaseModel):
    """How data are parted; near-duplicate frames never fall into two parts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    by: Literal["blocks", "groups"] = Field("blocks", description="runs of a trajectory, or the file's own groups")
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """Data of a potential, parted, with atomic references fitted on the training part (eV per element)."""

    dataset: Dataset
    split: Split
    references: dict[str, float]

    def part(self, name: Literal["train", "valid", "test"]) -> Dataset:
        """One part of the data."""
        return self.dataset.select(getattr(self.split, name))

    def graphs(
        self, name: Literal["train", "valid", "test"], cutoff: float, weight: NDArray[np.float32] | None = None
    ) -> LabelledGraphs:
        """Graphs of one part, references subtracted."""
        return labelled_graphs(self.part(name), cutoff, self.references, weight)


def prepare(data: DataSpec, how: SplitConfig) -> Prepared:
    """Read and part the data and fit atomic references on the training part.

    Raises:
        DataError: a subclass that names the file and the frames, before anything is trained.
    """
    dataset = load(data)
    parts = (split if how.by == "blocks" else split_by_group)(dataset, how.fractions, how.seed)
    require_apart(dataset, parts)
    return Prepared(dataset, parts, fit_references(dataset.select(parts.train)))


def member_weights(
    energy: NDArray[np.float64], members: int, scale_ev: float | None, folds: int, seed: int
) -> NDArray[np.float32]:
    """How much each frame counts for each member, float32 [n, M].

    Args:
        energy: eV [n].
        members: M.
        scale_ev: a frame E above the lowest counts 1 / (1 + E / scale); None for equal weights.
        folds: member m never sees fold m of so many; 0 shows everything to everyone.
        seed: of the folds.
    """
    above = energy - energy.min()
    weight = np.ones(len(energy)) if scale_ev is None else 1.0 / (1.0 + above / scale_ev)
    every = np.repeat(weight[:, None], members, axis=1)
    if folds:
        fold = np.random.default_rng(seed).permutation(len(energy)) % folds
        every[fold[:, None] == np.arange(members) % folds] = 0.0
    return every.astype(np.float32)
