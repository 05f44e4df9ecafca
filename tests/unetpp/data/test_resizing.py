import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from unetpp.data.resizing import resize_image, resize_mask

_SHAPES = st.one_of(
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 5)),
)


def _draw_size(data: st.DataObject, axes: int) -> tuple[int, ...]:
    return tuple(data.draw(st.integers(1, 14 if axes == 2 else 6)) for _ in range(axes))


def _area_of(inside: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    # Replicating to a common multiple makes the area average a plain block mean.
    for axis, length in enumerate(size):
        old = inside.shape[axis]
        fine = np.moveaxis(inside.repeat(length, axis=axis), axis, 0)
        blocks = fine.reshape(length, old, *fine.shape[1:]).sum(axis=1)
        inside = np.moveaxis(blocks, 0, axis)
    return inside


@given(shape=_SHAPES, seed=st.integers(0, 999), data=st.data())
@settings(deadline=None)
def test_resized_binary_plane_is_the_majority_by_area(
    shape: tuple[int, ...], seed: int, data: st.DataObject
) -> None:
    size = _draw_size(data, len(shape))
    mask = np.random.default_rng(seed).integers(0, 2, (2, *shape), dtype=np.uint8)
    resized = resize_mask(mask, size, num_classes=2)
    for plane, small in zip(mask, resized, strict=True):
        area = _area_of(plane.astype(int), size)
        np.testing.assert_array_equal(small, 2 * area > math.prod(shape))


@given(shape=_SHAPES, seed=st.integers(0, 999), data=st.data())
@settings(deadline=None)
def test_resized_class_map_is_the_class_of_most_area_and_the_lower_of_two(
    shape: tuple[int, ...], seed: int, data: st.DataObject
) -> None:
    size = _draw_size(data, len(shape))
    mask = np.random.default_rng(seed).integers(0, 4, (1, *shape), dtype=np.uint8)
    areas = np.stack([_area_of((mask[0] == k).astype(int), size) for k in range(4)])
    resized = resize_mask(mask, size, num_classes=4)[0]
    np.testing.assert_array_equal(resized, areas.argmax(axis=0))


@given(factor=st.integers(1, 4), size=st.integers(1, 4), axes=st.sampled_from([2, 3]))
@settings(deadline=None)
def test_enlarged_mask_is_replicated(factor: int, size: int, axes: int) -> None:
    mask = np.random.default_rng(size).integers(0, 5, (1, *(size,) * axes), dtype=np.uint8)
    expected = mask
    for axis in range(1, axes + 1):
        expected = expected.repeat(factor, axis)
    resized = resize_mask(mask, (size * factor,) * axes, num_classes=5)
    np.testing.assert_array_equal(resized, expected)


def test_two_classes_without_background_are_told_apart() -> None:
    mask = np.array([[[1, 1, 3, 3, 3, 1]]], np.uint8)
    np.testing.assert_array_equal(resize_mask(mask, (1, 2), num_classes=4), [[[1, 3]]])
    np.testing.assert_array_equal(resize_mask(mask, (1, 1), num_classes=4), [[[1]]])


def test_a_value_beyond_the_classes_is_our_own_mistake() -> None:
    with pytest.raises(AssertionError):
        resize_mask(np.full((1, 2, 2), 4, np.uint8), (1, 1), num_classes=4)


@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    scale=st.sampled_from([1.0, 3000.0, 1e-6]),
    seed=st.integers(0, 999),
)
@settings(deadline=None)
def test_resized_image_is_that_of_pillow_bit_for_bit(
    shape: tuple[int, int], size: tuple[int, int], scale: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    image = ((rng.random((2, *shape)) - 0.5) * scale).astype(np.float32)
    resized = resize_image(image, size)
    for channel, small in zip(image, resized, strict=True):
        whole = Image.fromarray(channel).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(small, np.asarray(whole))
        assert channel.min() <= small.min()
        assert small.max() <= channel.max()


@given(shape=st.tuples(*[st.integers(1, 7)] * 3), size=st.tuples(*[st.integers(1, 9)] * 3))
@settings(deadline=None)
def test_volume_that_is_constant_along_an_axis_is_resized_as_an_image(
    shape: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    image = np.random.default_rng(0).random((1, *shape), np.float32)
    for axis in range(3):
        flat = image.take([0], axis=axis + 1)
        others = tuple(length for k, length in enumerate(size) if k != axis)
        expected = np.expand_dims(resize_image(flat.squeeze(axis + 1), others), axis + 1)
        long = flat.repeat(shape[axis], axis + 1)
        np.testing.assert_allclose(
            resize_image(long, size), np.broadcast_to(expected, (1, *size)), rtol=1e-6, atol=1e-7
        )


def test_shrunk_image_keeps_its_mean_and_does_not_alias() -> None:
    checks = np.indices((64, 64)).sum(axis=0) % 2
    image = np.stack([checks, np.ones((64, 64)), np.zeros((64, 64))]).astype(np.float32)
    small = resize_image(image, (16, 16))
    assert small.shape == (3, 16, 16)
    np.testing.assert_allclose(small[0], 0.5, atol=0.02)
    np.testing.assert_array_equal(small[1], 1)
    np.testing.assert_array_equal(small[2], 0)
    volume = (np.indices((32, 32, 32)).sum(axis=0) % 2).astype(np.float32)[None]
    np.testing.assert_allclose(resize_image(volume, (8, 8, 8)), 0.5, atol=0.02)


@pytest.mark.parametrize("shape", [(60, 90), (60, 90, 40)])
def test_image_and_mask_stay_aligned_when_resized(shape: tuple[int, ...]) -> None:
    mask = np.zeros((1, *shape), np.uint8)
    mask[0, 12:40, 27:66] = 1
    size = (20,) * len(shape)
    image = resize_image(mask.astype(np.float32), size)[0]
    small = resize_mask(mask, size, num_classes=2)[0]
    for index in np.indices(size):
        centre = (index * image).sum() / image.sum()
        assert abs(centre - (index * small).sum() / small.sum()) < 0.2
