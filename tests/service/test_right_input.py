"""Unusual but right input gets right answers, the same over every wire; and a batch answers as each alone."""

import io
import json
from collections.abc import Sequence

import httpx
import numpy as np
import pytest
from ase import Atoms
from ase.io import write
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import REFERENCE_EV, pair_energy
from understudy import Client
from wires import (
    WIRES,
    Call,
    Item,
    call,
    framed,
    kserve_binary,
    kserve_json,
    malonaldehyde,
    rest_binary,
    rest_json,
    results,
    structure_of,
    tensors_of,
)

M = malonaldehyde()
RNG = np.random.default_rng(7)
SKEWED = np.array([[4.0, 0, 0], [3.9, 2.0, 0], [3.5, 1.5, 3.0]])
CRYSTAL = {"numbers": [6, 1, 8], "positions": [[0.1, 0.2, 0.3], [1.9, 1.4, 0.2], [0.4, 2.0, 1.9]]}
RIGHT: dict[str, Item] = {
    "a molecule": M,
    "one atom": {"numbers": [6], "positions": [[0.0, 0.0, 0.0]]},
    "an isolated atom": {"numbers": [6, 1, 8], "positions": [[0, 0, 0], [1.1, 0, 0], [50.0, 0, 0]]},
    "one atom in a cell smaller than the cutoff": {
        "numbers": [6],
        "positions": [[0.3, 0.1, 0.0]],
        "cell": np.eye(3) * 1.3,
        "pbc": True,
    },
    "a left-handed cell": {**CRYSTAL, "cell": np.diag([3.5, 3.5, 3.5])[[1, 0, 2]], "pbc": True},
    "a skewed cell": {**CRYSTAL, "cell": SKEWED, "pbc": True},
    "periodic in one direction": {**CRYSTAL, "cell": np.diag([3.2, 9.0, 9.0]), "pbc": [True, False, False]},
    "a slab": {**CRYSTAL, "cell": np.diag([3.2, 3.4, 0.0]), "pbc": [True, True, False]},
    "a cell that is not periodic": {**CRYSTAL, "cell": np.eye(3) * 2, "pbc": False},
    "atoms far outside the cell": {
        "numbers": CRYSTAL["numbers"],
        "positions": np.array(CRYSTAL["positions"]) + np.diag([350.0, -700.0, 35.0]),
        "cell": np.eye(3) * 3.5,
        "pbc": True,
    },
    "250 atoms": {
        "numbers": RNG.choice([1, 6, 8], 250),
        "positions": np.stack(np.unravel_index(np.arange(250), (7, 6, 6)), -1) * 1.4 + RNG.normal(0, 0.1, (250, 3)),
    },
    "400 atoms in a periodic box": {
        "numbers": RNG.choice([1, 6, 8], 343),
        "positions": np.stack(np.unravel_index(np.arange(343), (7, 7, 7)), -1) * 1.6,
        "cell": np.eye(3) * 11.2,
        "pbc": True,
    },
}


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("name", RIGHT)
def test_right_input_gets_the_right_energy(gateway: httpx.Client, wire: str, name: str) -> None:
    item = RIGHT[name]
    (answer,) = results(call(wire, [item])(gateway, "anything"))
    expected = pair_energy(structure_of(item))
    assert answer["energy"] == pytest.approx(expected, abs=2e-5 * len(item["numbers"]))


def test_forces_and_stress_are_derivatives_of_the_energy(gateway: httpx.Client) -> None:
    item = {**CRYSTAL, "cell": SKEWED, "pbc": True}
    (answer,) = results(rest_binary([item])(gateway, "anything"))
    step, r = 1e-4, np.array(CRYSTAL["positions"])

    def energy(positions: np.ndarray, cell: np.ndarray) -> float:
        return pair_energy(structure_of({**item, "positions": positions, "cell": cell}))

    for atom, axis in np.ndindex(3, 3):
        shift = np.zeros((3, 3))
        shift[atom, axis] = step
        slope = (energy(r + shift, SKEWED) - energy(r - shift, SKEWED)) / (2 * step)
        assert answer["all_forces"][atom, axis] == pytest.approx(-slope, abs=2e-4)
    volume = abs(np.linalg.det(SKEWED))
    for component, (a, b) in enumerate([(0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)]):
        strain = np.zeros((3, 3))
        strain[a, b] += step / 2
        strain[b, a] += step / 2
        up, down = np.eye(3) + strain, np.eye(3) - strain
        slope = (energy(r @ up, SKEWED @ up) - energy(r @ down, SKEWED @ down)) / (2 * step)
        assert answer["stress"][component] == pytest.approx(slope / volume, abs=2e-4)


def test_an_isolated_atom_has_its_reference_energy_and_no_force(gateway: httpx.Client) -> None:
    (answer,) = rest_json([RIGHT["one atom"]], outputs=["atomic_energies"])(gateway, "anything").json()["results"]
    assert answer["energy"] == REFERENCE_EV["C"]
    assert answer["forces"] == [[0.0, 0.0, 0.0]]
    assert answer["atomic_energies"] == [REFERENCE_EV["C"]]
    assert answer["energy_std"] == 0.0


def test_atomic_energies_add_up_to_the_energy(gateway: httpx.Client) -> None:
    (answer,) = rest_json([M], outputs=["atomic_energies"])(gateway).json()["results"]
    assert sum(answer["atomic_energies"]) == pytest.approx(answer["energy"], abs=1e-5)


def test_the_spread_is_the_sample_standard_deviation_of_the_members(gateway: httpx.Client) -> None:
    response = rest_json([M], outputs=["forces_std"])(gateway)
    (answer,) = response.json()["results"]
    energies = [pair_energy(structure_of(M), amplitude) for amplitude in (1.0, 1.1, 0.9, 1.05)]
    assert answer["energy_std"] == pytest.approx(np.std(energies, ddof=1), rel=1e-5)
    ratio = np.std([1.0, 1.1, 0.9, 1.05], ddof=1) / np.mean([1.0, 1.1, 0.9, 1.05])
    np.testing.assert_allclose(answer["forces_std"], np.abs(answer["forces"]) * ratio, atol=1e-5)
    assert response.json()["uncertainty"] == {
        "members": 4,
        "ddof": 1,
        "calibrated": False,
        "half_width_95": {},
    }


def test_stress_has_a_spread_where_there_is_a_volume_and_none_where_there_is_not(gateway: httpx.Client) -> None:
    crystal = M | {"cell": (12.0 * np.eye(3)).tolist(), "pbc": True}
    periodic, molecule = rest_json([crystal, M], outputs=["stress_std"])(gateway).json()["results"]
    ratio = np.std([1.0, 1.1, 0.9, 1.05], ddof=1) / np.mean([1.0, 1.1, 0.9, 1.05])
    np.testing.assert_allclose(periodic["stress_std"], np.abs(periodic["stress"]) * ratio, rtol=1e-4, atol=1e-9)
    assert "stress_std" not in molecule
    assert "forces_std" not in periodic


def test_float32_positions_and_every_layout_of_an_array_mean_the_same(gateway: httpx.Client) -> None:
    (expected,) = results(rest_binary([M])(gateway))
    tensors = tensors_of([M])
    positions = tensors["positions"]
    strided = np.zeros((18, 6))
    strided[::2, ::2] = positions
    for other in (
        np.asfortranarray(positions),
        strided[::2, ::2],
        positions.astype(">f8"),
        positions.astype(np.float32),
    ):
        (answer,) = results(framed("/v1/predict/{model}", {**tensors, "positions": other})(gateway))
        assert answer["energy"] == pytest.approx(expected["energy"], abs=1e-5)
    narrow = {**tensors, "numbers": tensors["numbers"].astype(np.uint8), "natoms": tensors["natoms"].astype(np.int32)}
    assert results(framed("/v1/predict/{model}", narrow)(gateway))[0]["energy"] == expected["energy"]


def test_without_natoms_all_atoms_are_one_structure(gateway: httpx.Client) -> None:
    tensors = {name: array for name, array in tensors_of([RIGHT["a skewed cell"]]).items() if name != "natoms"}
    squeezed = {**tensors, "cell": tensors["cell"][0], "pbc": tensors["pbc"][0]}
    expected = pair_energy(structure_of(RIGHT["a skewed cell"]))
    for given_tensors in (tensors, squeezed):
        (answer,) = results(framed("/v1/predict/{model}", given_tensors)(gateway, "anything"))
        assert answer["energy"] == pytest.approx(expected, abs=1e-4)


def test_the_same_structure_twice_in_a_request_gets_the_same_answer_twice(gateway: httpx.Client) -> None:
    first, _, second = results(rest_json([M, RIGHT["250 atoms"], M])(gateway, "anything"))
    assert first["energy"] == second["energy"]
    np.testing.assert_array_equal(first["forces"], second["forces"])


def test_every_wire_gives_the_same_numbers(gateway: httpx.Client) -> None:
    items = [M, RIGHT["a skewed cell"], RIGHT["one atom"]]
    answers = [results(call(wire, items)(gateway, "anything")) for wire in WIRES]
    for other in answers[1:]:
        for a, b in zip(answers[0], other, strict=True):
            assert (a["energy"], a["in_domain"]) == (b["energy"], b["in_domain"])


def _xyz(items: Sequence[Item], **labels: float) -> bytes:
    text = io.StringIO()
    for item in items:
        atoms = Atoms(item["numbers"], item["positions"], cell=item.get("cell"), pbc=item.get("pbc", False))
        atoms.info.update(labels)
        atoms.arrays["forces"] = np.full((len(atoms), 3), 99.0)
        write(text, atoms, format="extxyz")
    return text.getvalue().encode()


def test_extended_xyz_of_many_frames_is_answered_and_its_labels_are_not_believed(gateway: httpx.Client) -> None:
    items = [M, RIGHT["a skewed cell"], RIGHT["periodic in one direction"]]
    asked = Call(
        "/v1/predict/{model}?outputs=atomic_energies", _xyz(items, energy=-1.0), {"Content-Type": "chemical/x-xyz"}
    )
    answers = results(asked(gateway, "anything"))
    for item, answer in zip(items, answers, strict=True):
        assert answer["energy"] == pytest.approx(pair_energy(structure_of(item)), abs=1e-4)
        assert len(answer["atomic_energies"]) == len(item["numbers"])
    assert "stress" in answers[1]
    assert "stress" not in answers[2]


def test_plain_xyz_with_windows_line_ends_is_read(gateway: httpx.Client) -> None:
    body = b"2\r\na comment\r\nC 0 0 0\r\nH 0 0 1.1\r\n\r\n\r\n"
    (answer,) = results(Call("/v1/predict/{model}", body, {"Content-Type": "chemical/x-xyz"})(gateway, "anything"))
    expected = pair_energy(structure_of({"numbers": [6, 1], "positions": [[0, 0, 0], [0, 0, 1.1]]}))
    assert answer["energy"] == pytest.approx(expected, abs=1e-5)


def test_the_answer_comes_as_tensors_or_json_as_the_caller_accepts(gateway: httpx.Client) -> None:
    cases = [
        (rest_json, "application/octet-stream", True),
        (rest_json, "*/*", False),
        (rest_binary, "application/json", False),
        (rest_binary, "*/*", True),
    ]
    for request, accept, binary in cases:
        response = request([M])(gateway, Accept=accept)
        assert response.headers["content-type"] == ("application/octet-stream" if binary else "application/json")
        assert results(response)[0]["energy"] == pytest.approx(pair_energy(structure_of(M)), abs=1e-4)


def test_kserve_gives_the_outputs_that_were_asked_for_in_that_order_each_in_its_form(gateway: httpx.Client) -> None:
    asked = [
        {"name": "forces", "parameters": {"binary_data": True}},
        {"name": "energy", "parameters": {"binary_data": False}},
        {"name": "forces_std"},
    ]
    response = kserve_binary([M], outputs=asked, id="mine", parameters={"binary_data_output": True})(gateway)
    head = response.content[: int(response.headers["Inference-Header-Content-Length"])]
    said = json.loads(head)
    assert [o["name"] for o in said["outputs"]] == ["forces", "energy", "forces_std"]
    assert ["data" in o for o in said["outputs"]] == [False, True, False]
    assert (said["id"], said["model_name"], said["model_version"]) == ("mine", "tiny", "1")
    assert len(said["parameters"]["us_digest"]) == 64


@pytest.mark.parametrize("id_given", [{}, {"id": ""}, {"id": "ü" * 100}])
def test_an_id_comes_back_only_when_it_was_given(gateway: httpx.Client, id_given: dict[str, str]) -> None:
    answer = kserve_json([M], **id_given)(gateway).json()
    assert {name: value for name, value in answer.items() if name == "id"} == id_given


structures = st.builds(
    lambda numbers, noise, periodic: {
        "numbers": numbers,
        "positions": np.stack(np.unravel_index(np.arange(len(numbers)), (4, 4, 4)), -1) * 1.4
        + np.array(noise[: 3 * len(numbers)]).reshape(-1, 3) / 100,
        **({"cell": np.eye(3) * (5.6 if len(numbers) > 1 else 2.0), "pbc": True} if periodic else {}),
    },
    st.lists(st.sampled_from([1, 6, 8]), min_size=1, max_size=40),
    st.lists(st.integers(-30, 30), min_size=120, max_size=120),
    st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(structures, min_size=2, max_size=8), st.integers(0, 7))
def test_any_mix_of_structures_answered_together_equals_each_answered_alone(
    sdk: Client, items: list[Item], repeated: int
) -> None:
    items = [*items, items[repeated % len(items)]]
    together = sdk.predict("anything", items, outputs=["atomic_energies"])
    alone = [sdk.predict("anything", item, outputs=["atomic_energies"]) for item in items]
    for item, mixed, single in zip(items, together, alone, strict=True):
        assert mixed.energy == pytest.approx(single.energy, abs=1e-5)
        assert mixed.energy == pytest.approx(pair_energy(structure_of(item)), abs=1e-3)
        np.testing.assert_allclose(mixed.forces, single.forces, atol=1e-5)
        np.testing.assert_allclose(mixed.atomic_energies, single.atomic_energies, atol=1e-5)
        assert mixed.domain == single.domain
