"""Packed images: every part, every cluster and every distance as of the unpacked image."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter, label

from contract.packed import PackedImage, blocks_of, conducting_along, isolated_porosity, wall_distance_in
from contract.voxels import pores_of, specific_surface, wall_distance

SHAPES = st.tuples(*[st.integers(2, 21)] * 3)


def image_of(seed: int, shape: tuple[int, int, int], porosity: float) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < porosity


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), shape=SHAPES, porosity=st.floats(0.1, 0.9))
def test_packing_loses_nothing_in_either_order(seed: int, shape: tuple[int, int, int], porosity: float) -> None:
    image = image_of(seed, shape, porosity)
    packed = PackedImage.of(image)
    flat = PackedImage.of_flat_bits(np.packbits(image), shape)
    backwards = PackedImage.of_flat_bits(np.packbits(image.ravel(order="F")), shape[::-1]).reversed_axes()  # type: ignore[arg-type]
    for each in (packed, flat, backwards):
        np.testing.assert_array_equal(each.unpacked(), image)
        assert each.porosity == pytest.approx(image.mean())
        assert each.surface == pytest.approx(specific_surface(image))
    assert b"".join(packed.flat_bits()) == np.packbits(image).tobytes()
    for block in blocks_of(shape, 6):
        np.testing.assert_array_equal(packed.block(block), image[block])


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), shape=SHAPES, porosity=st.floats(0.2, 0.7))
def test_the_same_pores_conduct_along_every_axis(seed: int, shape: tuple[int, int, int], porosity: float) -> None:
    image = image_of(seed, shape, porosity)
    found = conducting_along(PackedImage.of(image), (0, 1, 2))
    for axis in range(3):
        np.testing.assert_array_equal(found[axis].unpacked(), pores_of(image, axis).conducting)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), shape=SHAPES, porosity=st.floats(0.2, 0.7))
def test_isolated_pores_are_those_that_reach_no_side(seed: int, shape: tuple[int, int, int], porosity: float) -> None:
    image = image_of(seed, shape, porosity)
    clusters, _ = label(image)
    sides = [np.unique(np.take(clusters, at, axis)) for axis in range(3) for at in (0, -1)]
    isolated = image & ~np.isin(clusters, np.concatenate(sides))
    assert isolated_porosity(PackedImage.of(image)) == pytest.approx(isolated.mean())


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 999), porosity=st.sampled_from([0.7, 0.99, 0.9999, 1.0]), axis=st.integers(0, 2))
def test_distances_in_a_part_are_those_in_the_whole_however_wide_the_pores(
    seed: int, porosity: float, axis: int
) -> None:
    image = image_of(seed, (45, 52, 40), porosity)
    packed, whole = PackedImage.of(image), wall_distance(image, axis)
    for block in blocks_of(image.shape, 24):
        np.testing.assert_array_equal(wall_distance_in(packed, axis, block, image[block]), whole[block])


def test_memory_grows_with_the_bits_of_an_image_and_not_with_its_voxels() -> None:
    def peak_mb(side: int) -> float:
        image = PackedImage.of(np.tile(blobs(), (side // 32,) * 3))
        tracemalloc.start()
        conducting = conducting_along(image, (2,))[2]
        conducting.surface  # noqa: B018 (what it takes is what is asked)
        for block in blocks_of(image.shape, 32):
            wall_distance_in(image, 2, block, conducting.block(block))
        peak = tracemalloc.get_traced_memory()[1] / 1e6
        tracemalloc.stop()
        return peak

    assert peak_mb(160) - peak_mb(96) < 1.5  # a byte a voxel would be 3.2 MB more, a float 13 MB


def blobs() -> np.ndarray:
    noise = gaussian_filter(np.random.default_rng(0).normal(size=(32, 32, 32)), 1.5, mode="wrap")
    return np.asarray(noise > np.quantile(noise, 0.6))
