"""Images and masks brought to another size, in 2-D and 3-D. The aspect is not kept.

Shapes: C channels, M planes of a mask, *S the two axes of an image or the three of a volume.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def resize_image(image: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """Float32 [C, *size]: linear along each axis, with the filter widened when shrinking.

    The range of each channel is not left.

    Args:
        image: float32 [C, *S], finite.
        size: the new *S, at least 1 each.
    """
    assert image.ndim == len(size) + 1
    assert min(size) >= 1
    resized = np.empty((len(image), *size), np.float32)
    for channel, plane in enumerate(image):
        # The filter's rounding may leave the range by an ulp.
        resized[channel] = np.clip(_resize_plane(plane, size), plane.min(), plane.max())
    return resized


def _resize_plane(plane: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    """[*size], the last axis first."""
    if plane.ndim == 2:
        return _resize_axes(plane, size)
    slices = np.stack([_resize_axes(part, size[1:]) for part in plane])
    # Pillow knows two axes: the other two become one, which it leaves alone.
    flat = slices.reshape(len(slices), -1)
    return _resize_axes(flat, (size[0], flat.shape[1])).reshape(size)


def _resize_axes(plane_HW: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    height, width = size
    picture = Image.fromarray(np.ascontiguousarray(plane_HW))
    return np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))


def resize_mask(
    mask: NDArray[np.uint8], size: tuple[int, ...], num_classes: int
) -> NDArray[np.uint8]:
    """Uint8 [M, *size]: of each new pixel, the class that covers most of its area.

    The lowest class wins a tie, so of a binary plane a pixel is foreground where more than half of
    it was.

    Args:
        mask: uint8 [M, *S], values below `num_classes`.
        size: the new *S, at least 1 each.
        num_classes: values that a plane may have, the background included.
    """
    assert mask.ndim == len(size) + 1
    assert min(size) >= 1
    resized = np.zeros((len(mask), *size), np.uint8)
    for plane, out in zip(mask, resized, strict=True):
        assert plane.max() < num_classes
        values = [value for value in range(num_classes) if (plane == value).any()]
        if len(values) == 1:
            out[...] = values[0]
        elif len(values) == 2:
            # What one class does not cover is the other's.
            covered = _area_sums(plane == values[1], size)
            out[...] = np.where(2 * covered > math.prod(plane.shape), values[1], values[0])
        else:
            _fill_largest(out, plane, values)
    return resized


def _fill_largest(out: NDArray[np.uint8], plane: NDArray[np.uint8], values: list[int]) -> None:
    most = np.zeros(out.shape, np.int64)
    for value in values:
        covered = _area_sums(plane == value, out.shape)
        more = covered > most
        out[more] = value
        most[more] = covered[more]


def _area_sums(inside: NDArray[np.bool_], size: tuple[int, ...]) -> NDArray[np.int64]:
    """[*size]: the area of `inside` in each new pixel, in units in which a new pixel is prod(*S).

    In whole numbers: a pixel that is covered by exactly half is the same on every machine.
    """
    if inside.ndim == 3:
        # Slice by slice, as the sums take eight times the memory of the mask.
        slices = np.stack([_area_sums(part, size[1:]) for part in inside])
        flat = slices.reshape(len(slices), -1)
        return _sums_along_first(flat, size[0]).reshape(size)
    height, width = size
    return _sums_along_first(_sums_along_first(inside.astype(np.int64), height).T, width).T


def _sums_along_first(values_LK: NDArray[np.int64], num_out: int) -> NDArray[np.int64]:
    """[num_out, K]: the values summed over each of `num_out` equal parts of the first axis.

    In units of 1 / `num_out` pixel. (No matrix product: BLAS threads below the loader's threads
    hinder each other.)
    """
    whole, part = np.divmod(np.arange(num_out + 1) * len(values_LK), num_out)
    before = np.pad(values_LK.cumsum(axis=0), ((1, 0), (0, 0)))[whole]
    following = np.pad(values_LK, ((0, 1), (0, 0)))[whole]
    return np.diff(before * num_out + following * part[:, None], axis=0)
