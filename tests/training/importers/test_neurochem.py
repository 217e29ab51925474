"""Published ANI ensembles: values that their authors' code gives, and files that are not what they should be."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from contract.elements import NUMBERS
from contract.graphs import build_graph, collate
from contract.structures import checked_structure
from contract.units import HARTREE_EV
from training.importers.errors import ImportRefused, UnreadableCheckpoint, UnsupportedExperiment
from training.importers.neurochem import read_neurochem
from training.networks.hipnn import Batch


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "archive"])
def test_an_ensemble_is_read_from_a_folder_or_an_archive(ensemble: Path, packed: bool) -> None:
    source = ensemble
    if packed:
        source = ensemble.with_suffix(".tar.gz")
        with tarfile.open(source, "w:gz") as archive:
            archive.add(ensemble, "tiny")
    published = read_neurochem(source)
    config = published.network.config
    assert (config.members, config.elements, config.hidden) == (2, [1, 6], [[5, 4], [5, 4]])
    assert published.references == {"H": -0.6 * HARTREE_EV, "C": -38.1 * HARTREE_EV}
    weights = np.fromfile(ensemble / "train1/networks/ANN-C.nnf-l2.wparam", "<f4").reshape(4, 5)
    assert np.array_equal(published.network.networks[1].weights[1][1].detach().numpy(), weights.T)  # type: ignore[index, union-attr]


@pytest.mark.parametrize(
    ("file", "content", "kind", "says"),
    [
        ("train1/networks/ANN-H.nnf-l1.wparam", b"\0" * 12, UnreadableCheckpoint, "12 bytes"),
        ("train0/networks/ANN-C.nnf", b"100=\nnot bz2", UnreadableCheckpoint, "ANN-C.nnf"),
        ("sae_linfit.dat", b"H,0=-0.6\n", UnreadableCheckpoint, "self energy for C"),
        ("tiny.params", ("[8.0e+00]\nShfZ", "[8.0e+00,9.0e+00]\nShfZ"), UnsupportedExperiment, "Zeta"),
        ("tiny.params", (",1.6e+00", ""), UnreadableCheckpoint, "the descriptor has 14"),
        ("tiny.params", b"Rcr = 4.0\n", UnreadableCheckpoint, "Atyp"),
        ("tiny.params", ("9.0e-01", "nine"), UnreadableCheckpoint, "nine"),
    ],
)
def test_a_damaged_file_is_named(
    ensemble: Path, file: str, content: bytes | tuple[str, str], kind: type, says: str
) -> None:
    path = ensemble / file
    path.write_bytes(content if isinstance(content, bytes) else path.read_text().replace(*content).encode())
    with pytest.raises(kind, match=says):
        read_neurochem(ensemble)


def test_other_activations_are_refused(ensemble: Path, write_network: Any) -> None:
    write_network(ensemble / "train1/networks", "C", np.random.default_rng(1), "956")
    with pytest.raises(UnsupportedExperiment, match=r"\['9', '5', '6'\]"):
        read_neurochem(ensemble)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.tar.gz").write_bytes(b"nothing")
    with pytest.raises(ImportRefused, match="neither a folder"):
        read_neurochem(tmp_path / "x.tar.gz")


@pytest.mark.parametrize("model", ["ani-1ccx_8x", "ani-1x_8x"])
@pytest.mark.parametrize(("dtype", "energy", "force"), [(torch.float64, 1e-9, 1e-7), (torch.float32, 2e-5, 1e-4)])
def test_published_energies_and_forces_are_reproduced(
    shared_data: Path, model: str, dtype: torch.dtype, energy: float, force: float
) -> None:
    """Hartree and hartree/angstrom, for water, methane and ethanol, of every network and of the mean."""
    published = read_neurochem(shared_data / f"ani_models/{model}.tar.gz")
    values = json.loads((shared_data / "ani_models/reference_energies_forces.json").read_text())["models"][model]
    network = published.network.to(dtype)
    for molecule in values.values():
        answer = network.evaluate(_exact_batch(molecule, dtype))
        offset = sum(published.references[symbol] for symbol in molecule["species"])
        energies = (answer.energy[:, 0].detach().numpy() + offset) / HARTREE_EV
        assert np.abs(energies - molecule["energy_networks"]).max() < energy
        assert np.abs(answer.forces.detach().numpy() / HARTREE_EV - molecule["forces"]).max() < force


def _exact_batch(molecule: dict, dtype: torch.dtype) -> Batch:
    """Neighbour lists hold float32 positions; here they are put back in full."""
    positions = np.array(molecule["positions"])
    structure = checked_structure([NUMBERS[symbol] for symbol in molecule["species"]], positions)
    tensors = {k: torch.from_numpy(v) for k, v in collate([build_graph(structure, 5.2)]).items()}
    tensors["positions"] = torch.from_numpy(positions)
    return Batch(**{k: v.to(dtype) if v.is_floating_point() else v for k, v in tensors.items()})
