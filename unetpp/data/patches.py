"""Where patches lie in cases that are larger or smaller than they, and how they are cut out.

Shapes: C channels, M planes of a mask, n = 2 or 3 axes *S, B samples, P points.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unetpp.data.streams import uniforms

# Enough that patches differ from epoch to epoch, few enough that the tables of 10,000 cases fit.
_MOST_POINTS = 1000
# A mask is looked at in parts of this size: a large one is mapped, not loaded.
_PART = 1 << 22
# The point that a patch is drawn around lies in its middle half.
_JITTER = 0.25


def foreground_points(mask: NDArray[np.uint8], *, most: int = _MOST_POINTS) -> NDArray[np.int64]:
    """Some foreground pixels of every class, spread over it: int64 [P, 1 + n].

    Column 0 is the class (1 or more), the others are the position. The same mask gives the same
    points.

    Args:
        mask: [M, *S]: class indices where M = 1, else plane k holds class k + 1; may be mapped.
        most: points a class.
    """
    planes = mask.reshape(len(mask), -1)
    tables = [np.empty((0, mask.ndim), np.int64)]
    for plane, flat in enumerate(planes):
        counts = np.array([np.bincount(part, minlength=256) for _, part in _parts(flat)])
        for value in (np.flatnonzero(counts[:, 1:].any(axis=0)) + 1).tolist():
            places = _spread(flat, value, counts[:, value], most)
            position = np.unravel_index(places, mask.shape[1:])
            kind = np.full(len(places), value if len(mask) == 1 else plane + 1)
            tables.append(np.stack([kind, *position], axis=1).astype(np.int64))
    return np.concatenate(tables)


def _parts(flat: NDArray[np.uint8]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    for start in range(0, len(flat), _PART):
        yield start, flat[start : start + _PART]


def _spread(
    flat: NDArray[np.uint8], value: int, counts: NDArray[np.int64], most: int
) -> NDArray[np.int64]:
    """At most `most` places of `value`, given how many each part has."""
    total = int(counts.sum())
    if total <= most:
        ranks = np.arange(total)
    else:
        # One in every stretch of equal length, at random within it: equal steps could fall into
        # step with the rows of the image, and so all lie in one column.
        within = np.random.Philox(key=value).random_raw(most) * 2.0**-64
        ranks = np.minimum((np.arange(most) + within) * (total / most), total - 1).astype(np.int64)
    ends = np.cumsum(counts)
    found = []
    for (start, part), end, count in zip(_parts(flat), ends, counts, strict=True):
        wanted = ranks[(ranks >= end - count) & (ranks < end)] - (end - count)
        if wanted.size:
            found.append(start + np.flatnonzero(part == value)[wanted])
    return np.concatenate(found)


def draw_starts(
    shapes: Sequence[tuple[int, ...]],
    patch: tuple[int, ...],
    foreground: Sequence[NDArray[np.int64]],
    share: float,
    *,
    seed: int,
    epoch: int,
    samples: NDArray[np.int64],
) -> NDArray[np.int64]:
    """First corners [B, n] of one patch a sample, drawn for this epoch.

    A patch lies inside the case. Along an axis on which the case is smaller the case lies in the
    middle of the patch, so that the corner is negative.

    Args:
        shapes: *S of the case of each sample.
        patch: n sides.
        foreground: of each sample the table of `foreground_points`.
        share: of patches that hold a foreground pixel, of a class that is drawn evenly from those
            that the case has; the other patches, and all of a case without foreground, lie
            anywhere.
        seed: of the run.
        epoch: 0 or more.
        samples: int64 [B], what each sample is drawn by.
    """
    assert len(shapes) == len(foreground) == len(samples)
    draws = uniforms(seed, epoch, samples, 3 + len(patch), purpose="patch")
    starts = [
        _start(np.array(shape), np.array(patch), points, share, draw)
        for shape, points, draw in zip(shapes, foreground, draws, strict=True)
    ]
    return np.array(starts, np.int64).reshape(len(shapes), len(patch))


def _start(
    shape: NDArray[np.int64],
    patch: NDArray[np.int64],
    points: NDArray[np.int64],
    share: float,
    draw: NDArray[np.float64],
) -> NDArray[np.int64]:
    around, which_class, which_point, *place = draw
    room = np.maximum(shape - patch, 0)
    if around < share and len(points):
        classes = np.unique(points[:, 0])
        of_class = points[points[:, 0] == classes[int(which_class * len(classes))], 1:]
        point = of_class[int(which_point * len(of_class))]
        before = patch * (_JITTER + (1 - 2 * _JITTER) * np.array(place))
        start = np.clip(point - before.astype(np.int64), 0, room)
    else:
        start = (np.array(place) * (room + 1)).astype(np.int64)
    return np.where(shape < patch, -((patch - shape) // 2), start)


def cut(
    array: NDArray[Any], start: Sequence[int] | NDArray[np.int64], patch: tuple[int, ...]
) -> NDArray[Any]:
    """A copy [C, *patch] of a part of an image or a mask [C, *S]; only that part is read.

    What lies outside is mirrored, see `mirrored`.

    Args:
        array: may be mapped.
        start: first corner; may be negative or reach over the end.
        patch: n sides.
    """
    axes = list(zip(map(int, start), patch, array.shape[1:], strict=True))
    if all(first >= 0 and first + side <= size for first, side, size in axes):
        return np.array(array[:, *(slice(first, first + side) for first, side, _ in axes)])
    index = [mirrored(*axis) for axis in axes]
    low = [int(along.min()) for along in index]
    part = array[:, *(slice(first, int(a.max()) + 1) for first, a in zip(low, index, strict=True))]
    within = (along - first for along, first in zip(index, low, strict=True))
    return part[np.ix_(np.arange(len(part)), *within)]


def mirrored(start: int, length: int, size: int) -> NDArray[np.int64]:
    """Indices [length] of the pixels from `start` on along an axis of `size` pixels.

    Outside they go back and forth, without doubling the pixel at the border; an axis of one pixel
    repeats it.
    """
    period = max(2 * (size - 1), 1)
    index = np.arange(start, start + length) % period
    return np.minimum(index, period - index) if size > 1 else np.zeros(length, np.int64)
