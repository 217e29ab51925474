"""A network's answers on a data set, and the numbers that describe its errors."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from contract.card import Metric
from training import processes
from training.batches import LabelledGraphs
from training.data.strata import strata_of
from training.files import write_arrays
from training.networks.exportable import member
from training.networks.hipnn import HipNN
from training.networks.potential import Potential

if TYPE_CHECKING:
    from training.pipelines.preparation import Prepared

EVALUATION_BATCH = 128
_FEW = 16
Strata = Mapping[str, NDArray[np.bool_]]


@dataclass(frozen=True, slots=True)
class Predictions:
    """Answers for the frames of a data set.

    Attributes:
        energy: float64 [M, n], eV, every member, without atomic references.
        target: float64 [n], eV, likewise.
    """

    energy: NDArray[np.float64]
    target: NDArray[np.float64]

    @property
    def error(self) -> NDArray[np.float64]:
        """Error of the mean energy, eV [n]."""
        return np.asarray(self.energy.mean(axis=0) - self.target, dtype=np.float64)

    @property
    def std(self) -> NDArray[np.float64] | None:
        """Sample standard deviation over members (ddof = 1), eV [n]; None for one member."""
        return np.asarray(self.energy.std(axis=0, ddof=1)) if len(self.energy) > 1 else None


@torch.no_grad()
def predict_energies(network: Potential, data: LabelledGraphs, device: str = "cpu") -> Predictions:
    """Energies of all members for all frames."""
    energy = [network.energy(batch).cpu().numpy() for batch, _ in data.batches(_batch_size(network), device=device)]
    return Predictions(np.concatenate(energy, axis=1), data.energy)


@torch.no_grad()
def predict_forces(
    network: Potential, data: LabelledGraphs, device: str = "cpu", frames: int | None = None
) -> tuple[Predictions, NDArray[np.float32]]:
    """Energies of all members, and forces of their mean in eV/angstrom [A, 3]; `frames` at once."""
    answers = [network.evaluate(b) for b, _ in data.batches(frames or _batch_size(network), device=device)]
    energy = np.concatenate([a.energy.cpu().numpy() for a in answers], axis=1)
    return Predictions(energy, data.energy), np.concatenate([a.forces.cpu().numpy() for a in answers])


@torch.no_grad()
def predict_member_forces(
    network: Potential, data: LabelledGraphs, device: str = "cpu", frames: int | None = None
) -> NDArray[np.float32]:
    """Forces of every member in eV/angstrom [M, A, 3], frames concatenated."""
    if isinstance(network, HipNN):
        alone = [member(network, m) for m in range(network.config.members)]
        return np.stack([predict_forces(one, data, device, frames)[1] for one in alone])
    batches = data.batches(frames or _batch_size(network), device=device)
    return np.concatenate([network.evaluate_members(batch)[2].cpu().numpy() for batch, _ in batches], axis=1)


def _batch_size(network: Potential) -> int:
    """Frames a call; the angles of an ANI network take much memory."""
    return EVALUATION_BATCH if isinstance(network, HipNN) else _FEW


def save_predictions(
    folder: Path, network: Potential, prepared: "Prepared", stand_in: Mapping[str, NDArray[np.float32]] | None = None
) -> None:
    """Evaluate the validation and test parts once and store the answers beside the weights.

    predictions.npz holds for each part p: p/energy [M, n] and p/target [n] in eV without references, p/reference [n],
    the labels in eV as the data have them. Where there are forces to compare with, p/forces and p/force_std [A, 3] in
    eV/angstrom of a committee, beside p/target_forces, of the data, or p/stand_in_forces. p/sizes [n] counts atoms,
    p/strata/NAME [n] says which frames are of a stratum (training/data/strata.py).

    Args:
        folder: of the run.
        network: trained.
        prepared: the data, parted.
        stand_in: by part, forces to compare with where the data have none.
    """
    if not processes.is_first():
        return
    arrays: dict[str, NDArray[Any]] = {}
    for part in ("valid", "test"):
        labelled = prepared.part(part)
        graphs = prepared.graphs(part, network.config.cutoff_angstrom)
        answer, forces = predict_forces(network, graphs)
        arrays |= {
            f"{part}/energy": answer.energy,
            f"{part}/target": answer.target,
            f"{part}/reference": labelled.energy,
            f"{part}/sizes": labelled.sizes,
            **{f"{part}/strata/{name}": inside for name, inside in strata_of(labelled).items()},
        }
        if labelled.forces is not None:
            arrays |= {f"{part}/forces": forces, f"{part}/target_forces": labelled.forces}
        elif stand_in is not None:
            arrays |= {f"{part}/forces": forces, f"{part}/stand_in_forces": stand_in[part]}
        if network.config.members > 1 and f"{part}/forces" in arrays:
            arrays[f"{part}/force_std"] = predict_member_forces(network, graphs).std(axis=0, ddof=1)
    write_arrays(folder / "predictions.npz", arrays)


def load_predictions(folder: Path, part: str) -> Predictions:
    """Stored energies of one part."""
    with np.load(folder / "predictions.npz") as arrays:
        return Predictions(arrays[f"{part}/energy"], arrays[f"{part}/target"])


def load_strata(folder: Path, part: str) -> dict[str, NDArray[np.bool_]]:
    """Stored masks [n] of one part by the stratum's name."""
    prefix = f"{part}/strata/"
    with np.load(folder / "predictions.npz") as arrays:
        return {name.removeprefix(prefix): arrays[name] for name in arrays.files if name.startswith(prefix)}


def load_force_spread(folder: Path, part: str) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Stored error and std over members of each force component, eV/angstrom; None where there are none."""
    with np.load(folder / "predictions.npz") as arrays:
        if f"{part}/force_std" not in arrays:
            return None
        compared = arrays[f"{part}/{'target' if f'{part}/target_forces' in arrays else 'stand_in'}_forces"]
        return arrays[f"{part}/forces"] - np.asarray(compared, np.float64), arrays[f"{part}/force_std"].astype(float)


def energy_metrics(error: NDArray[np.float64], name: str = "energy") -> list[Metric]:
    """MAE and RMSE of energies in meV."""
    n = len(error)
    return [
        Metric(name=f"{name} MAE", value=1e3 * float(np.abs(error).mean()), unit="meV", count=n),
        Metric(name=f"{name} RMSE", value=1e3 * float(np.sqrt((error**2).mean())), unit="meV", count=n),
    ]


def force_metrics(error: NDArray[np.floating], structures: int, name: str = "forces") -> list[Metric]:
    """MAE and RMSE of force components in meV/angstrom."""
    values = {"MAE": float(np.abs(error).mean()), "RMSE": float(np.sqrt((error**2).mean()))}
    return [
        Metric(name=f"{name} {kind}", value=1e3 * value, unit="meV/angstrom", count=structures)
        for kind, value in values.items()
    ]


def metrics_by_stratum(error: NDArray[np.float64], strata: Strata) -> list[Metric]:
    """Energy metrics over all frames, and apart for each stratum; error in eV [n]."""
    found = energy_metrics(error)
    for name, inside in strata.items():
        found += energy_metrics(error[inside], f"energy ({name})")
    return found


def force_metrics_by_stratum(error: NDArray[np.floating], sizes: NDArray[np.int64], strata: Strata) -> list[Metric]:
    """Force metrics over all frames, and apart for each stratum.

    Args:
        error: eV/angstrom [A, 3].
        sizes: atoms of each frame [n].
        strata: masks [n].
    """
    found = force_metrics(error, len(sizes))
    for name, inside in strata.items():
        found += force_metrics(error[np.repeat(inside, sizes)], int(inside.sum()), f"forces ({name})")
    return found
