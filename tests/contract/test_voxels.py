"""Distances to the wall against another library, percolation against labelling and against windings known by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from contract.voxels import (
    FAR,
    length_scale_squared,
    padded,
    pores_of,
    specific_surface,
    throat_voxels,
    wall_distance,
)


def _blobs(shape: tuple[int, int, int], porosity: float, seed: int) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return noise > np.quantile(noise, 1 - porosity)


@pytest.mark.parametrize("porosity", [0.2, 0.6, 0.95])
def test_the_distance_to_the_wall_is_exact_without_walls_in_a_sleeve_and_in_a_periodic_image(porosity: float) -> None:
    image = _blobs((20, 16, 12), porosity, 1)
    sleeve = ndimage.distance_transform_edt(np.pad(image, [(1, 1), (0, 0), (1, 1)]))[1:-1, :, 1:-1]
    wrapped = ndimage.distance_transform_edt(np.pad(image, [(20, 20), (16, 16), (12, 12)], mode="wrap"))
    assert wall_distance(image) == pytest.approx(ndimage.distance_transform_edt(image), rel=1e-6)
    assert wall_distance(image, axis=1) == pytest.approx(sleeve, rel=1e-6)
    assert wall_distance(image, periodic=True) == pytest.approx(wrapped[20:-20, 16:-16, 12:-12], rel=1e-6)


def test_without_any_solid_the_wall_is_far() -> None:
    assert (wall_distance(np.ones((4, 5, 6), bool)) == np.float32(np.sqrt(FAR))).all()


@given(st.integers(0, 1000), st.sampled_from([0.25, 0.33, 0.45]), st.integers(0, 2))
def test_pores_conduct_where_a_cluster_touches_both_ends(seed: int, porosity: float, axis: int) -> None:
    image = np.random.default_rng(seed).random((7, 8, 9)) < porosity
    labels, _ = ndimage.label(image)
    ends = [set(np.take(labels, end, axis).ravel()) - {0} for end in (0, -1)]
    assert (pores_of(image, axis).conducting == np.isin(labels, list(ends[0] & ends[1]))).all()


def test_in_a_periodic_image_a_channel_must_close_on_itself() -> None:
    straight, ending = np.zeros((4, 4, 6), bool), np.zeros((4, 4, 6), bool)
    straight[1, 1] = True
    ending[1, 1, :3] = ending[2, 2, 2:] = True
    assert pores_of(straight, 2, periodic=True).percolates
    assert not pores_of(straight, 0, periodic=True).percolates
    assert not pores_of(ending, 2, periodic=True).percolates


def test_in_a_periodic_image_a_helix_conducts_along_its_axis_and_a_loop_along_none() -> None:
    helix, loop = np.zeros((4, 4, 4), bool), np.zeros((5, 4, 4), bool)
    helix[0, 0, [0, 1]] = helix[0, 1, [1, 2]] = helix[1, 1, [2, 3, 0]] = helix[1, 0, 0] = True
    loop[1, 1, 1:3] = loop[3, 1, 1:3] = loop[1:4, 1, 1] = loop[1:4, 1, 2] = True
    assert [pores_of(helix, axis, periodic=True).percolates for axis in range(3)] == [False, False, True]
    assert not any(pores_of(loop, axis, periodic=True).percolates for axis in range(3))


def test_isolated_pores_count_as_porosity_but_do_not_conduct() -> None:
    image = np.zeros((6, 6, 6), bool)
    image[1, 1], image[4, 4, 4] = True, True
    pores = pores_of(image, 2)
    assert (pores.porosity, pores.connected_porosity) == (7 / 216, 6 / 216)


def test_the_throat_is_the_narrowest_place_of_the_widest_way() -> None:
    image = np.zeros((12, 12, 12), bool)
    image[3:10, 3:10] = True
    image[:, :, 5] = False
    image[5:8, 5:8, 5] = True
    image[1, 1] = True
    pores = pores_of(image, 2)
    assert throat_voxels(wall_distance(image, 2), pores.conducting, 2) == pytest.approx(3.0)


def test_the_length_scale_of_a_slit_is_the_mean_square_distance_to_its_half_way_walls() -> None:
    image = np.zeros((6, 3, 3), bool)
    image[1:5] = True
    distance = wall_distance(image)
    assert length_scale_squared(distance, image) == pytest.approx((0.5**2 + 1.5**2) / 2)


def test_surface_counts_faces_and_padding_adds_solid_at_the_high_ends() -> None:
    image = np.zeros((4, 4, 4), bool)
    image[1, 1, 1] = True
    wider = padded(np.ones((5, 8, 7), bool), 4)
    assert specific_surface(image) == 6 / 64
    assert wider.shape == (8, 8, 8)
    assert wider[:5, :, :7].all()
    assert not wider[5:].any()
    assert not wider[:, :, 7:].any()
