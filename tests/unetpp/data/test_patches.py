from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from unetpp.data.patches import cut, draw_starts, foreground_points, mirrored

_NO_POINTS = np.empty((0, 3), np.int64)


def _starts(
    shape: tuple[int, ...],
    patch: tuple[int, ...],
    points: NDArray[np.int64],
    share: float,
    num: int = 400,
) -> NDArray[np.int64]:
    return draw_starts(
        [shape] * num, patch, [points] * num, share, seed=1, epoch=0, samples=np.arange(num)
    )


# --- foreground


@given(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=3, max_side=6), elements=st.integers(0, 3))
)
def test_a_small_mask_gives_all_its_foreground(plane: NDArray[np.uint8]):
    points = foreground_points(plane[None])
    assert len(points) == np.count_nonzero(plane)
    assert len({tuple(point) for point in points}) == len(points)
    assert all(plane[tuple(where)] == label for label, *where in points)


def test_planes_are_classes_that_may_share_a_pixel():
    mask = np.zeros((3, 4, 4), np.uint8)
    mask[0, 1, 1] = mask[2, 1, 1] = mask[2, 3, 0] = 1
    assert foreground_points(mask).tolist() == [[1, 1, 1], [3, 1, 1], [3, 3, 0]]


def test_of_a_large_class_the_points_are_few_spread_and_the_same_again():
    mask = np.zeros((1, 200, 250), np.uint8)
    mask[0, 50:150, 100:200] = 1  # rows whose length divides the number of pixels
    mask[0, 3, 3] = 2
    points = foreground_points(mask, most=100)
    assert (points[:, 0] == 2).sum() == 1
    assert (points[:, 0] == 1).sum() == 100
    assert all(mask[0, y, x] == label for label, y, x in points)
    for axis, low in ((1, 50), (2, 100)):
        quarters = np.bincount((points[points[:, 0] == 1, axis] - low) // 25, minlength=4)
        assert quarters.min() >= 12
    assert np.array_equal(points, foreground_points(mask, most=100))


def test_a_mask_is_looked_at_in_parts(monkeypatch: pytest.MonkeyPatch):
    plane = np.random.default_rng(0).integers(0, 3, (1, 9, 11, 7), dtype=np.uint8)
    whole = foreground_points(plane, most=20)
    monkeypatch.setattr("unetpp.data.patches._PART", 13)
    assert np.array_equal(foreground_points(plane, most=20), whole)


# --- where


@given(
    st.data(),
    st.integers(2, 3),
    st.floats(0, 1),
    st.integers(0, 2**63),
)
def test_a_patch_lies_in_the_case_or_the_case_in_the_patch(
    data: st.DataObject, n: int, share: float, seed: int
):
    sides = st.lists(st.integers(1, 12), min_size=n, max_size=n).map(tuple)
    shape, patch = data.draw(sides), data.draw(sides)
    mask = data.draw(arrays(np.uint8, (1, *shape), elements=st.integers(0, 2)))
    (start,) = draw_starts(
        [shape], patch, [foreground_points(mask)], share, seed=seed, epoch=0, samples=np.array([0])
    )
    for first, size, side in zip(start, shape, patch, strict=True):
        if side <= size:
            assert 0 <= first <= size - side
        else:
            before, after = -first, side - size + first
            assert 0 <= after - before <= 1


def test_a_patch_around_foreground_holds_it_but_not_always_in_its_middle():
    points = np.array([[1, 40, 9]])
    starts = _starts((80, 90), (16, 16), points, share=1.0)
    within = points[0, 1:] - starts
    assert within.min() >= 4
    assert within.max() <= 12
    assert len(set(map(tuple, within.tolist()))) > 30


def test_the_share_of_patches_around_foreground_is_as_asked():
    points = np.array([[1, 500, 500]])
    starts = _starts((1000, 1000), (10, 10), points, share=1 / 3, num=3000)
    holds = ((starts <= 500) & (starts > 490)).all(axis=1)
    assert holds.mean() == pytest.approx(1 / 3, abs=0.03)  # 3.5 standard errors


def test_rare_classes_are_drawn_as_often_as_others():
    common = np.stack([np.ones(999), np.full(999, 10), np.arange(999) % 100], axis=1)
    points = np.concatenate([common, [[5, 900, 900]]]).astype(np.int64)
    starts = _starts((1000, 1000), (10, 10), points, share=1.0, num=2000)
    assert (starts[:, 0] > 500).mean() == pytest.approx(0.5, abs=0.04)


def test_without_foreground_patches_lie_anywhere_evenly():
    starts = _starts((13, 10), (10, 10), _NO_POINTS, share=1.0, num=2000)
    assert starts[:, 1].max() == 0
    assert np.bincount(starts[:, 0], minlength=4) == pytest.approx(500, abs=80)


def test_a_start_depends_on_its_sample_alone():
    shapes, points = [(30, 30), (50, 20), (9, 40)], [_NO_POINTS] * 3
    together = draw_starts(
        shapes, (8, 8), points, 0.5, seed=3, epoch=2, samples=np.array([4, 0, 9])
    )
    alone = draw_starts(
        [(50, 20)], (8, 8), [_NO_POINTS], 0.5, seed=3, epoch=2, samples=np.array([0])
    )
    later = draw_starts(shapes, (8, 8), points, 0.5, seed=3, epoch=3, samples=np.array([4, 0, 9]))
    assert np.array_equal(alone[0], together[1])
    assert not np.array_equal(later, together)


# --- cutting


def test_a_cut_inside_is_a_slice_and_a_copy():
    image = np.arange(2 * 5 * 6, dtype=np.float32).reshape(2, 5, 6)
    part = cut(image, (1, 2), (3, 3))
    assert np.array_equal(part, image[:, 1:4, 2:5])
    part[:] = 0
    assert image[0, 1, 2] == 8


@given(st.data(), st.integers(2, 3))
def test_a_cut_beyond_the_border_is_numpys_reflection(data: st.DataObject, n: int):
    sides = st.lists(st.integers(2, 7), min_size=n, max_size=n).map(tuple)
    shape, patch = data.draw(sides), data.draw(sides)
    starts = [data.draw(st.integers(-9, size + 3)) for size in shape]
    image = np.arange(2 * np.prod(shape)).reshape(2, *shape)
    margin = 20
    padded = np.pad(image, [(0, 0), *[(margin, margin)] * n], mode="reflect")
    index = tuple(slice(s + margin, s + margin + p) for s, p in zip(starts, patch, strict=True))
    assert np.array_equal(cut(image, starts, patch), padded[:, *index])


def test_a_single_pixel_is_repeated():
    image = np.array([[[7, 8, 9]]])
    assert cut(image, (-1, 0), (3, 3)).tolist() == [[[7, 8, 9]] * 3]
    assert mirrored(-2, 5, 1).tolist() == [0] * 5


def test_a_small_case_lies_in_the_middle_of_its_patch():
    image = np.arange(9.0).reshape(1, 3, 3)
    (start,) = _starts((3, 3), (6, 7), _NO_POINTS, share=0.0, num=1)
    part = cut(image, start, (6, 7))
    assert np.array_equal(part[:, 1:4, 2:5], image)
    assert set(part.ravel()) == set(range(9))


def test_of_a_mapped_file_only_the_patch_is_touched(tmp_path: Path):
    class Counted(np.memmap):
        asked: ClassVar[list[tuple[int, ...]]] = []

        def __getitem__(self, index: Any) -> Any:
            found = super().__getitem__(index)
            Counted.asked.append(found.shape)
            return found

    image = Counted(tmp_path / "image.bin", np.float32, "w+", shape=(1, 400, 300))
    image[0, 398, 2] = 5
    Counted.asked.clear()
    part = cut(image, (390, -2), (20, 8))
    assert part[0, 8, 4] == 5
    assert part.shape == (1, 20, 8)
    assert max(np.prod(shape) for shape in Counted.asked) <= 20 * 8
