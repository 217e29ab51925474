"""Every exported file answers what the network answers in float64, whatever the sizes and whoever is in the batch."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray

from contract.graphs import build_graph, collate
from contract.signatures import POTENTIAL, POTENTIAL_MEMBERS, Signature
from contract.structures import Structure, checked_structure
from training.export.potential import example_inputs, export_potential, write_onnx, write_reference
from training.networks.exportable import MeanForces, member
from training.networks.hipnn import HipNN

Arrays = dict[str, NDArray[Any]]
Engine = Callable[[Arrays], Arrays]

BOUNDS = {
    "energy": 2e-6,
    "atomic_energy": 2e-6,
    "forces": 5e-5,
    "virial": 2e-5,
    "member_forces": 5e-5,
    "member_virial": 2e-5,
}
FLOOR_EV = 1e-6  # an isolated atom's energy may be near zero, where a relative error means nothing
CUTOFF = 4.0


@dataclass(frozen=True)
class Exported:
    """A network in float64, and the folder of its files."""

    network: HipNN
    folder: Path

    def engine(self, file: str = "model.onnx", threads: int = 1) -> Engine:
        return _torchscript(self.folder / file) if file.endswith(".pt") else _onnx(self.folder / file, threads)


NETWORKS: dict[str, dict[str, int]] = {
    "l=0": {"order": 0, "interaction_layers": 1, "atom_layers": 1},
    "l=1": {"order": 1, "interaction_layers": 2, "atom_layers": 1},
    "l=2, committee": {"order": 2, "interaction_layers": 2, "atom_layers": 1, "members": 2},
}


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request: pytest.FixtureRequest, network_of: Any, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("version")
    export_potential(network_of(dtype=torch.float32, features=8, **NETWORKS[request.param]), folder)
    network = network_of(dtype=torch.float32, features=8, **NETWORKS[request.param]).double()
    return Exported(network, folder)


@pytest.fixture(scope="module")
def batches(molecules: list[Structure], crystals: list[Structure]) -> dict[str, list[Structure]]:
    """Shapes that no example had: alone, without neighbours, tiny cells, large and mixed."""
    alone = [checked_structure([z], [[0.0, 0.0, 0.0]]) for z in (6, 1)]
    return {
        "one atom": alone[:1],
        "two isolated atoms": alone,
        "one molecule": molecules[:1],
        "a pair": [checked_structure([1, 8], [[0.0, 0, 0], [0.97, 0, 0]])],
        "cells smaller than the cutoff": crystals,
        "molecules with an isolated atom among them": [*molecules, *alone],
        "all together": [*molecules, *crystals, *alone, _fcc(3)],
    }


@pytest.mark.parametrize("file", ["model.onnx", "model.pt"])
def test_every_shape_of_batch_agrees_with_the_network_in_float64(
    exported: Exported, file: str, batches: dict[str, list[Structure]]
) -> None:
    engine = exported.engine(file)
    for structures in batches.values():
        inputs = _inputs(structures)
        _assert_parity(engine(inputs), _eager(exported.network, inputs))


@pytest.mark.parametrize("file", ["model.onnx", "model.pt"])
def test_a_larger_bucket_of_slots_moves_answers_by_rounding_alone(
    exported: Exported, file: str, molecules: list[Structure]
) -> None:
    engine = exported.engine(file)
    tight, wide = engine(_inputs(molecules)), engine(_inputs(molecules, slots=48))
    assert np.abs(wide["forces"] - tight["forces"]).max() < 1e-5
    np.testing.assert_allclose(wide["energy"], tight["energy"], rtol=1e-6)


@pytest.mark.parametrize("threads", [1, 2])
def test_25000_atoms_in_one_structure_are_summed_right_with_any_number_of_threads(
    exported: Exported, threads: int
) -> None:
    """ONNX Runtime's CPU ScatterND(add) races above 2e5 elements; a virial came out 25 % off."""
    inputs = _inputs([_fcc(19)])
    assert len(inputs["species"]) > 25_000
    answers = exported.engine(threads=threads)(inputs)
    expected = _eager(exported.network, inputs, dtype=torch.float32)
    _assert_parity(answers, expected)


@pytest.mark.parametrize("file", ["model.onnx", "model.pt"])
def test_nan_in_one_structure_leaves_its_batch_mates_bitwise_unchanged(
    exported: Exported, file: str, molecules: list[Structure], crystals: list[Structure]
) -> None:
    engine, inputs = exported.engine(file), _inputs([*molecules, *crystals])
    sick = inputs["structure"] == 1
    poisoned = inputs | {"positions": np.where(sick[:, None], np.float32(np.nan), inputs["positions"])}
    clean, dirty = engine(inputs), engine(poisoned)
    others = np.arange(5) != 1
    assert np.isnan(dirty["energy"][:, 1]).all()
    np.testing.assert_array_equal(dirty["energy"][:, others], clean["energy"][:, others])
    np.testing.assert_array_equal(dirty["forces"][~sick], clean["forces"][~sick])
    np.testing.assert_array_equal(dirty["virial"][others], clean["virial"][others])


def test_an_answer_is_bitwise_the_same_alone_in_a_batch_and_in_another_order(
    exported: Exported, molecules: list[Structure]
) -> None:
    engine = exported.engine()
    together, turned = engine(_inputs(molecules)), engine(_inputs(molecules[::-1]))
    ends = np.cumsum([0, *(len(m) for m in molecules)])
    starts_turned = np.cumsum([0, *(len(m) for m in molecules[::-1])])[:-1][::-1]
    for b, molecule in enumerate(molecules):
        alone = engine(_inputs([molecule], slots=8))
        atoms = slice(ends[b], ends[b + 1])
        np.testing.assert_array_equal(alone["energy"][:, 0], together["energy"][:, b])
        np.testing.assert_array_equal(alone["forces"], together["forces"][atoms])
        np.testing.assert_array_equal(turned["energy"][:, -1 - b], together["energy"][:, b])
        turned_atoms = slice(starts_turned[b], starts_turned[b] + len(molecule))
        np.testing.assert_array_equal(turned["forces"][turned_atoms], together["forces"][atoms])


def test_a_graph_has_the_signature_of_its_family_and_no_operator_that_races(exported: Exported) -> None:
    files: dict[str, Signature] = {"model.onnx": POTENTIAL}
    if exported.network.config.members > 1:
        files["model_members.onnx"] = POTENTIAL_MEMBERS
    assert {path.name for path in exported.folder.iterdir()} == {*files, "model.pt", "weights.safetensors"}
    for file, signature in files.items():
        model = onnx.load(exported.folder / file)
        operators = {node.op_type for node in model.graph.node}
        assert "ScatterND" not in operators
        assert not operators & {"If", "Loop", "RandomNormal"}
        for values, specs in ((model.graph.input, signature.inputs), (model.graph.output, signature.outputs)):
            assert [_described(value) for value in values] == [
                (spec.name, spec.dtype, tuple(isinstance(d, str) and d != "M" for d in spec.dims)) for spec in specs
            ]
        assert not model.metadata_props


def test_the_second_graph_of_a_committee_has_the_forces_of_every_member(
    exported: Exported, batches: dict[str, list[Structure]]
) -> None:
    if exported.network.config.members == 1:
        assert not (exported.folder / "model_members.onnx").exists()
        return
    engine = exported.engine("model_members.onnx")
    for structures in batches.values():
        inputs = _inputs(structures)
        answers = engine(inputs)
        _assert_parity(answers, _eager(exported.network, inputs))
        each = [_eager(member(exported.network, m), inputs) for m in range(2)]
        for name in ("forces", "virial"):
            expected = {f"member_{name}": np.stack([one[name] for one in each])}
            _assert_parity({f"member_{name}": answers[f"member_{name}"]}, expected)


def test_in_float64_the_graph_equals_the_network_to_rounding(
    network_of: Any, molecules: list[Structure], crystals: list[Structure], tmp_path: Path
) -> None:
    network = network_of(order=2, interaction_layers=1, cutoff_angstrom=3.9, soft_max_angstrom=3.3)
    write_onnx(MeanForces(network), example_inputs(network), POTENTIAL, tmp_path / "double.onnx")
    inputs = _inputs([*molecules, *crystals], cutoff=3.9)
    inputs = {k: v.astype(np.float64) if v.dtype == np.float32 else v for k, v in inputs.items()}
    answers, expected = _onnx(tmp_path / "double.onnx", 1)(inputs), _eager(network, inputs)
    for name, value in expected.items():
        assert np.abs(answers[name] - value).max() <= 1e-12 * np.abs(value).max(), name


def test_reference_answers_are_stored_with_their_inputs(
    exported: Exported, molecules: list[Structure], tmp_path: Path
) -> None:
    engine, inputs = exported.engine(), _inputs(molecules)
    write_reference(engine, inputs, tmp_path / "reference.npz")
    with np.load(tmp_path / "reference.npz") as stored:
        again = engine({k.removeprefix("in/"): stored[k] for k in stored.files if k.startswith("in/")})
        for name, value in again.items():
            np.testing.assert_array_equal(value, stored[f"out/{name}"])


def _inputs(structures: list[Structure], slots: int | None = None, cutoff: float = CUTOFF) -> Arrays:
    return collate([build_graph(s, cutoff) for s in structures], slots)


def _fcc(cells: int) -> Structure:
    """Rattled aluminium, 4 cells^3 atoms."""
    grid = np.stack(np.meshgrid(*[np.arange(cells)] * 3, indexing="ij"), axis=-1).reshape(-1, 1, 3)
    basis = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    positions = 4.05 * (grid + basis).reshape(-1, 3)
    positions += np.random.default_rng(9).normal(scale=0.05, size=positions.shape)
    return checked_structure(np.full(len(positions), 13), positions, 4.05 * cells * np.eye(3), True)


def _onnx(path: Path, threads: int) -> Engine:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        wanted = {i.name: inputs[i.name] for i in session.get_inputs()}
        return dict(zip(names, session.run(names, wanted), strict=True))

    return run


def _torchscript(path: Path) -> Engine:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.load(str(path))  # type: ignore[no-untyped-call]

    def run(inputs: Arrays) -> Arrays:
        with torch.no_grad():
            outputs = module(*(torch.from_numpy(inputs[spec.name]) for spec in POTENTIAL.inputs))
        return {spec.name: value.numpy() for spec, value in zip(POTENTIAL.outputs, outputs, strict=True)}

    return run


@torch.no_grad()
def _eager(network: HipNN, inputs: Arrays, dtype: torch.dtype = torch.float64) -> Arrays:
    tensors = [torch.from_numpy(inputs[spec.name]) for spec in POTENTIAL.inputs]
    module = MeanForces(network.to(dtype))
    outputs = module(*(t.to(dtype) if t.is_floating_point() else t for t in tensors))
    network.to(torch.float64)
    return {spec.name: value.numpy() for spec, value in zip(POTENTIAL.outputs, outputs, strict=True)}


def _assert_parity(answers: Arrays, expected: Arrays) -> None:
    for name, reference in expected.items():
        scale = max(np.abs(reference).max(), FLOOR_EV * reference.size)
        assert answers[name].shape == reference.shape, name
        assert np.abs(answers[name] - reference).max() <= BOUNDS[name] * scale + FLOOR_EV, name


def _described(value: onnx.ValueInfoProto) -> tuple[str, str, tuple[bool, ...]]:
    """Name, dtype and which sizes are free."""
    tensor = value.type.tensor_type
    dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name
    return value.name, dtype, tuple(bool(dim.dim_param) for dim in tensor.shape.dim)
