"""Neighbour batches: against a brute-force oracle, in cells of any shape, alone and together."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from contract.errors import CoincidentAtoms, ImpossibleDistances, TooLarge
from contract.graphs import Graph, bucket, build_graph, collate
from contract.signatures import BUCKETS
from contract.structures import Structure, checked_structure

CUTOFF = 3.0
CELLS = {
    "cubic": np.diag([4.0, 4.0, 4.0]),
    "smaller than the cutoff": np.array([[2.0, 0.0, 0.0], [0.5, 2.2, 0.0], [0.3, 0.4, 2.5]]),
    "left-handed": np.array([[4.0, 0.0, 0.0], [0.0, 4.5, 0.0], [0.0, 0.0, -5.0]]),
    "skewed": np.array([[5.0, 0.0, 0.0], [4.5, 3.0, 0.0], [-3.0, 1.0, 4.0]]),
}


def oracle(structure: Structure, cutoff: float) -> list[tuple[int, int, tuple[float, ...]]]:
    """All directed pairs as (i, j, rounded displacement), by trying every image."""
    cell = np.zeros((3, 3)) if structure.cell is None else structure.cell
    reach = np.where(structure.pbc, 9, 0)
    pairs = []
    for image in np.ndindex(*(2 * reach + 1)):
        shift = (np.array(image) - reach) @ cell
        for i in range(len(structure)):
            for j in range(len(structure)):
                d = structure.positions[j] - structure.positions[i] + shift
                if np.linalg.norm(d) < cutoff and not (i == j and (np.array(image) == reach).all()):
                    pairs.append((i, j, tuple(np.round(d, 3) + 0.0)))
    return sorted(pairs)


def listed(graph: Graph) -> list[tuple[int, int, tuple[float, ...]]]:
    """The real slots of a graph in the oracle's form."""
    i = np.repeat(np.arange(graph.n_atoms), graph.degree)
    j = graph.neighbours.ravel()
    d = graph.positions[j].astype(float) - graph.positions[i] + graph.shifts.reshape(-1, 3)
    real = np.linalg.norm(d, axis=1) < graph.cutoff
    rounded = np.round(d, 3) + 0.0
    return sorted((int(a), int(b), tuple(v)) for a, b, v in zip(i[real], j[real], rounded[real], strict=True))


def molecule(n: int, seed: int, spread: float = 4.0) -> Structure:
    generator = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(5)] * 3), axis=-1).reshape(-1, 3)
    places = grid[generator.permutation(len(grid))[:n]] * spread / 4 + generator.uniform(-0.2, 0.2, (n, 3))
    return checked_structure(generator.choice([1, 6, 8], n), places)


def crystal(cell: NDArray[np.float64], n: int, pbc: object, seed: int = 0) -> Structure:
    generator = np.random.default_rng(seed)
    return checked_structure([13] * n, generator.random((n, 3)) @ cell + 20.0, cell, pbc)


@pytest.mark.parametrize("pbc", [True, [True, True, False], [False, True, False]], ids=str)
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS.keys())
def test_every_periodic_image_within_the_cutoff_is_found_once(cell: NDArray[np.float64], pbc: object) -> None:
    structure = crystal(cell, 3, pbc)
    graph = build_graph(structure, CUTOFF)
    assert len(listed(graph)) == graph.n_pairs
    expected = [(i, j) for i, j, _ in oracle(structure, CUTOFF)]
    assert sorted((i, j) for i, j, _ in listed(graph)) == sorted(expected)


def test_a_molecule_has_the_pairs_of_the_oracle() -> None:
    structure = molecule(20, seed=1)
    assert listed(build_graph(structure, CUTOFF)) == oracle(structure, CUTOFF)


def test_a_large_molecule_takes_the_cell_list_and_finds_the_same_pairs() -> None:
    generator = np.random.default_rng(0)
    structure = checked_structure([6] * 260, generator.random((260, 3)) * 20)
    graph = build_graph(structure, CUTOFF)
    distance = np.linalg.norm(structure.positions[:, None] - structure.positions[None], axis=2)
    assert graph.n_pairs == int(((distance < CUTOFF) & (distance > 0)).sum())


def test_wrapping_an_atom_by_a_lattice_vector_changes_no_displacement() -> None:
    cell = CELLS["skewed"]
    inside = crystal(cell, 4, pbc=True)
    moved = inside.positions.copy()
    moved[2] += 7 * cell[0] - 3 * cell[1]
    outside = checked_structure(inside.numbers, moved, cell, pbc=True)
    assert [p[:2] for p in listed(build_graph(outside, CUTOFF))] == [p[:2] for p in listed(build_graph(inside, CUTOFF))]


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(1, 12), min_size=1, max_size=6), wider=st.integers(0, 5), seed=st.integers(0, 99))
def test_collating_moves_indices_and_pads_without_touching_what_was_there(
    sizes: list[int], wider: int, seed: int
) -> None:
    graphs = [build_graph(molecule(n, seed + n), CUTOFF) for n in sizes]
    width = max(g.degree for g in graphs) + wider
    batch = collate(graphs, width)
    reverse = batch["reverse"].ravel()
    assert (reverse[reverse] == np.arange(reverse.size)).all()
    start = 0
    for b, graph in enumerate(graphs):
        rows = slice(start, start + graph.n_atoms)
        assert (batch["structure"][rows] == b).all()
        assert (batch["neighbours"][rows, : graph.degree] == graph.neighbours + start).all()
        assert (batch["shifts"][rows, : graph.degree] == graph.shifts).all()
        padding = batch["neighbours"][rows, graph.degree :]
        assert (padding == np.arange(start, start + graph.n_atoms)[:, None]).all()
        assert (batch["shifts"][rows, graph.degree :] == [2 * CUTOFF, 0, 0]).all()
        start += graph.n_atoms
    atoms, others = np.indices(batch["neighbours"].shape)[0], batch["neighbours"]
    assert (batch["structure"][atoms] == batch["structure"][others]).all()


def test_the_reverse_slot_holds_the_opposite_displacement() -> None:
    batch = collate([build_graph(crystal(CELLS["smaller than the cutoff"], 3, pbc=True), CUTOFF)])
    r, n = batch["positions"], batch["neighbours"]
    d = (r[n] - r[:, None] + batch["shifts"]).reshape(-1, 3)
    real = np.linalg.norm(d, axis=1) < CUTOFF
    assert np.allclose(d[batch["reverse"].ravel()][real], -d[real], atol=1e-5)


def test_an_isolated_atom_has_one_padded_slot() -> None:
    graph = build_graph(checked_structure([1], [[0.0, 0.0, 0.0]]), CUTOFF)
    assert (graph.degree, graph.n_pairs, graph.cost) == (1, 0, 1)
    assert np.isinf(graph.nearest_distance).all()
    assert graph.nearest.tolist() == [-1]


def test_positions_far_from_the_origin_keep_their_digits() -> None:
    near = molecule(9, seed=3)
    far = checked_structure(near.numbers, near.positions + 9e5)
    assert np.allclose(build_graph(far, CUTOFF).positions, build_graph(near, CUTOFF).positions, atol=1e-6)


@pytest.mark.parametrize("gap", [0.0, 1e-12, 1e-3])
def test_coincident_atoms_are_refused_and_named(gap: float) -> None:
    positions = [[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [2.0 + gap, 0.0, 0.0]]
    with pytest.raises(CoincidentAtoms) as refusal:
        build_graph(checked_structure([6, 6, 6], positions), CUTOFF, index=4)
    assert refusal.value.facts["atoms"] == [1, 2]
    assert refusal.value.facts["index"] == 4


def test_coincident_atoms_are_refused_across_the_boundary_of_a_cell() -> None:
    cell = np.diag([8.0, 8.0, 8.0])
    with pytest.raises(CoincidentAtoms):
        build_graph(checked_structure([13, 13], [[0.0, 0.0, 0.0], [8.0, 8.0, 8.0]], cell, pbc=True), CUTOFF)


FAR = [1e2, 1e4, 9e5, -9e5]


def clusters(seed: int, n: int, far: list[float], axes: list[int]) -> NDArray[np.float64]:
    """A cluster of n atoms, and a copy of it far away along some axes for each distance."""
    generator = np.random.default_rng(seed)
    near = np.stack(np.unravel_index(np.arange(n), (4, 4, 4)), -1) * 1.5 + generator.uniform(-0.2, 0.2, (n, 3))
    away = np.isin(np.arange(3), axes)
    return np.concatenate([near, *(near + distance * away for distance in far)])


@pytest.mark.parametrize(
    ("pbc", "axes"),
    [
        (False, [0]),
        (False, [0, 1, 2]),
        ([True, False, False], [1]),
        ([True, False, False], [1, 2]),
        ([True, True, False], [2]),
        (True, [2]),
        (True, [0, 1, 2]),
    ],
    ids=str,
)
def test_clusters_far_apart_have_the_pairs_and_the_digits_that_each_has_alone(pbc: Any, axes: list[int]) -> None:
    cell = np.diag(np.where(np.isin(np.arange(3), axes) & np.array(pbc), 1e6, 12.0))
    for n in (9, 60):
        alone = build_graph(checked_structure([6] * n, clusters(0, n, [], axes), cell, pbc), CUTOFF)
        far = build_graph(checked_structure([6] * 5 * n, clusters(0, n, FAR, axes), cell, pbc), CUTOFF)
        assert far.n_pairs == 5 * alone.n_pairs
        pairs = [pair for pair in listed(far) if pair[0] < n]
        assert [pair[:2] for pair in pairs] == [pair[:2] for pair in listed(alone)]
        np.testing.assert_allclose([p[2] for p in pairs], [p[2] for p in listed(alone)], atol=2e-3)


@pytest.mark.parametrize("cell", [np.diag([6.0, 6.0, 9e5]), np.diag([6.0, 9e5, 9e5]), np.diag([2.0, 2200.0, 2200.0])])
def test_long_and_flat_cells_are_searched_like_any_other(cell: NDArray[np.float64]) -> None:
    structure = checked_structure([6, 6], [[0.0, 0.0, 0.0], [1.2, 0.0, 0.0]], cell, True)
    expected = [(i, j) for i, j, _ in oracle(structure, CUTOFF)]
    assert sorted((i, j) for i, j, _ in listed(build_graph(structure, CUTOFF))) == sorted(expected)


def test_atoms_strewn_over_more_boxes_than_can_be_searched_are_refused() -> None:
    strewn = np.arange(120_000)[:, None] * np.array([8.0, 0.0, 0.0])
    with pytest.raises(TooLarge) as refusal:
        build_graph(checked_structure([6] * 120_000, strewn), CUTOFF)
    assert refusal.value.facts["unit"] == "cutoff-sized boxes"


def test_positions_in_nanometres_are_refused_with_a_hint() -> None:
    with pytest.raises(ImpossibleDistances, match="multiply nanometres by 10") as refusal:
        build_graph(checked_structure([8, 1, 1], [[0, 0, 0], [0.096, 0, 0], [-0.024, 0.093, 0]]), CUTOFF, index=3)
    assert (refusal.value.facts["pair"], refusal.value.facts["index"]) == ([0, 1], 3)


def test_extreme_density_is_refused_before_pairs_are_listed() -> None:
    crowd = np.random.default_rng(0).random((50_000, 3))
    with pytest.raises(TooLarge) as refusal:
        build_graph(checked_structure([6] * 50_000, crowd), CUTOFF, max_pairs=1_000_000)
    assert refusal.value.facts["limit"] == 1_000_000


def test_a_needle_cell_with_countless_images_is_refused() -> None:
    cell = np.diag([0.2, 0.2, 0.2])
    with pytest.raises(TooLarge):
        build_graph(checked_structure([13] * 3, np.random.default_rng(0).random((3, 3)), cell, True), 30.0, 100_000)


@given(degree=st.integers(1, 2000))
def test_a_bucket_holds_its_degree_and_wastes_little(degree: int) -> None:
    size = bucket(degree)
    assert size >= degree
    assert size in BUCKETS or size % 128 == 0
