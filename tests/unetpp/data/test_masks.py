import math
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as coco

from unetpp.data.files import Format, Stored
from unetpp.data.findings import BadFileError
from unetpp.data.labels import BINARY, Labels, MaskRule
from unetpp.data.masks import Mask, mask_of, planes_of, union_of_objects
from unetpp.data.outlines import draw_outlines
from unetpp.data.sources import Outlines

_THREE = Labels(kind="classes", names=("a", "b", "c"))
_MULTI = Labels(kind="multilabel", names=("a", "b"))


def _stored(array: np.ndarray, format: Format = "png", *, has_alpha: bool = False) -> Stored:
    array = array if array.ndim > 2 else array[None]
    return Stored(path=Path("mask.x"), format=format, array=array, has_alpha=has_alpha)


def _mask(
    array: np.ndarray,
    labels: Labels = BINARY,
    rule: MaskRule = "foreground",
    format: Format = "png",
) -> Mask:
    return mask_of(_stored(array, format), labels, rule)


# --- foreground


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 1]], np.uint8),
        np.array([[0, 255]], np.uint8),
        np.array([[255, 255]], np.uint8),
        np.array([[0, 0]], np.uint8),
        np.array([[0, 1, 2, 3]], np.uint8),
        np.array([[0, 7, 300, 65535]], np.uint16),
        np.array([[0, 7, 2**31 - 1]], np.int32),
        np.array([[0, 1.0, 2.0]], np.float32),
        np.array([[False, True]]),
    ],
)
def test_masks_that_are_labels(values: np.ndarray) -> None:
    mask = _mask(values)
    assert mask.planes.dtype == np.uint8
    np.testing.assert_array_equal(mask.planes[0], values > 0)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=40))
def test_sizes_of_objects_are_their_pixels(values: list[int]) -> None:
    mask = _mask(np.array([values], np.uint16))
    sizes = tuple(values.count(k) for k in range(1, 6) if k in values)
    assert mask.object_sizes == (sizes if len(sizes) > 1 else None)


@pytest.mark.parametrize(
    "values",
    [
        np.array([[0, 37, 128, 254, 255]], np.uint8),
        np.array([[0, 128, 255]], np.uint8),
        np.array([[0, 2]], np.uint8),
        np.arange(256, dtype=np.uint8)[None],
        np.array([[0, 0.5, 1]], np.float32),
        np.array([[-1, 0]], np.int16),
        np.array([[0, np.nan]], np.float32),
    ],
)
def test_values_that_are_no_labels_are_refused(values: np.ndarray) -> None:
    with pytest.raises(BadFileError, match=r"`mask\.x` is a png with \d+ values such as ") as info:
        _mask(values)
    assert info.value.finding.code == "lossy-mask"


def test_volumes_may_have_gaps_between_labels_in_eight_bits() -> None:
    values = np.array([[[[0, 1, 2, 4]]]], np.uint8)
    np.testing.assert_array_equal(_mask(values, format="nii").planes, values > 0)
    with pytest.raises(BadFileError, match="without gaps"):
        _mask(values, format="tif")


def test_a_jpg_is_a_mask_only_where_nothing_was_lost() -> None:
    sharp = np.array([[0, 255]], np.uint8)
    np.testing.assert_array_equal(_mask(sharp, format="jpg").planes[0], [[0, 1]])
    with pytest.raises(
        BadFileError, match=r"is a jpg with 2 values such as 0, 1; save .* losslessly"
    ):
        _mask(np.array([[0, 1]], np.uint8), format="jpg")


def test_equal_channels_are_one_and_alpha_is_none() -> None:
    values = np.array([[0, 255, 0]], np.uint8)
    for array, has_alpha in (
        (np.stack([values] * 3), False),
        (np.stack([values] * 3 + [values + 7]), True),
        (np.stack([values, values + 7]), True),
    ):
        mask = mask_of(_stored(array, has_alpha=has_alpha), BINARY, "foreground")
        np.testing.assert_array_equal(mask.planes[0], values > 0)


def test_coloured_masks_are_refused() -> None:
    red = np.array([[[255]], [[0]], [[0]]], np.uint8)
    with pytest.raises(
        BadFileError, match=r"`mask\.x` is not: its colours differ; save labels"
    ) as info:
        _mask(red)
    assert info.value.finding.code == "coloured-mask"
    with pytest.raises(BadFileError, match=r"it has 2 channels"):
        _mask(red[:2])


# --- classes, one-hot, planes


_BRATS = Labels(
    kind="multilabel",
    names=("whole", "core", "enhancing"),
    values=((1, 2, 3), (2, 3), (3,)),
)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_a_pixel_is_in_every_region_of_its_value(stored: list[int]) -> None:
    planes = _mask(np.array([stored], np.uint8), _BRATS, "classes").planes
    expected = [[[int(v in region) for v in stored]] for region in _BRATS.values]
    assert planes.dtype == np.uint8
    assert planes.tolist() == expected


def test_regions_of_one_value_each_are_the_classes() -> None:
    values = np.array([[0, 1, 2, 1]], np.uint8)
    same = Labels(kind="multilabel", names=("a", "b"), values=((1,), (2,)))
    np.testing.assert_array_equal(
        _mask(values, same, "classes").planes, _mask(values, _MULTI, "classes").planes
    )


def test_values_beyond_all_regions_are_refused() -> None:
    sentence = r"labels must be 0 to 3 \(3 regions and the background\), but `mask\.x` has 4; "
    with pytest.raises(BadFileError, match=sentence) as info:
        _mask(np.array([[0, 4]], np.uint8), _BRATS, "classes")
    assert info.value.finding.code == "label-beyond-classes"


@given(seed=st.integers(0, 99), axes=st.sampled_from([2, 3]))
@settings(deadline=None)
def test_classes_one_hot_and_planes_say_the_same(seed: int, axes: int) -> None:
    classes = np.random.default_rng(seed).integers(0, 4, (3, 5, 4)[:axes], dtype=np.uint8)
    one_hot = np.stack([classes == k for k in range(4)]).astype(np.uint8) * np.uint8(255)
    written: dict[MaskRule, np.ndarray] = {
        "classes": classes[None],
        "one-hot": one_hot,
        "planes": one_hot[1:],
    }
    overlapping = Labels(kind="multilabel", names=_THREE.names)
    for rule, array in written.items():
        mask = mask_of(_stored(array), _THREE, rule)
        np.testing.assert_array_equal(mask.planes, classes[None])
        mask = mask_of(_stored(array), overlapping, rule)
        np.testing.assert_array_equal(mask.planes, one_hot[1:] > 0)


def test_one_class_is_also_0_and_255() -> None:
    values = np.array([[0, 255]], np.uint8)
    np.testing.assert_array_equal(_mask(values, BINARY, "classes").planes, [[[0, 1]]])
    bits = np.array([[False, True]])
    np.testing.assert_array_equal(_mask(bits, BINARY, "classes").planes, [[[0, 1]]])


def test_planes_of_an_image_with_alpha_are_its_colours() -> None:
    array = np.array([[[0, 255]], [[255, 255]], [[9, 9]]], np.uint8)
    mask = mask_of(_stored(array, has_alpha=True), _MULTI, "planes")
    np.testing.assert_array_equal(mask.planes, [[[0, 1]], [[1, 1]]])


@pytest.mark.parametrize(
    ("values", "labels", "rule", "code", "text"),
    [
        ([[0, 4]], _THREE, "classes", "label-beyond-classes", r"0 to 3 \(3 classes.*has 4; name"),
        ([[0, 2]], BINARY, "classes", "label-beyond-classes", r"0 to 1 .* has 2;"),
        ([[0, 255, 1]], _THREE, "classes", "label-beyond-classes", r"has 255, .*`void` of PASCAL"),
        ([[0, 200, 255]], _THREE, "classes", "label-beyond-classes", r"has 200; name all classes"),
        ([[0, 1.5]], _THREE, "classes", "labels-not-whole", r"has 1\.5; save masks as integers"),
        ([[0, math.nan]], _THREE, "classes", "labels-not-whole", r"has nan"),
        ([[0, math.inf]], _THREE, "classes", "labels-not-whole", r"has inf"),
        ([[0, -2.0]], _THREE, "classes", "label-beyond-classes", r"has -2"),
        ([[[1]], [[0]]], _THREE, "one-hot", "wrong-channels", r"4 channels .* has 2;"),
        ([[[1, 0]], [[1, 0]]], BINARY, "one-hot", "not-one-hot", r"but 2 pixels of `mask\.x`"),
        ([[[1, 2]], [[0, 0]]], _MULTI, "planes", "not-binary", r"channel 0 of `mask\.x` has 2;"),
        ([[[0, 0]], [[255, 1]]], _MULTI, "planes", "not-binary", r"channel 1 of `mask\.x` has 1;"),
        (
            [[[1]], [[1]], [[0]]],
            _THREE,
            "planes",
            "overlapping-classes",
            r"but 1 pixels .* several",
        ),
    ],
)
def test_values_that_break_a_rule_are_refused(
    values: Any, labels: Labels, rule: MaskRule, code: str, text: str
) -> None:
    array = np.array(values)
    array = array.astype(np.uint8) if array.dtype.kind == "i" else array
    with pytest.raises(BadFileError, match=text) as info:
        _mask(array, labels, rule)
    assert info.value.finding.code == code


@pytest.mark.parametrize("rule", ["classes", "planes", "one-hot"])
def test_classes_are_not_read_from_jpg(rule: Literal["classes", "planes", "one-hot"]) -> None:
    channels = {"classes": 1, "planes": 3, "one-hot": 4}[rule]
    with pytest.raises(BadFileError, match=r"`mask\.x` is a jpg; save masks as png") as info:
        _mask(np.ones((channels, 2, 2), np.uint8), _THREE, rule, "jpg")
    assert info.value.finding.code == "lossy-mask"


def test_planes_of_one_class_are_binary() -> None:
    inside = np.array([[[True, False]]])
    np.testing.assert_array_equal(planes_of(inside, BINARY, Path("x")), [[[1, 0]]])


# --- objects


def test_objects_together_are_the_foreground() -> None:
    objects = np.zeros((3, 4, 5), np.uint8)
    objects[0, :2] = 255
    objects[1, 1:3] = 255
    mask = union_of_objects(map(_stored, objects), (4, 5))
    np.testing.assert_array_equal(mask.planes[0], objects.max(axis=0) > 0)
    assert mask.object_sizes == (10, 10, 0)
    assert [finding.code for finding in mask.findings] == ["empty-object", "overlapping-objects"]
    assert mask.findings[1].text.startswith("5 pixels are in several of the 3 object masks")


def test_no_objects_are_no_foreground() -> None:
    mask = union_of_objects([], (2, 3))
    np.testing.assert_array_equal(mask.planes, np.zeros((1, 2, 3)))
    assert mask.object_sizes == ()


# --- outlines


def _outlines(*objects: tuple[int, Any], height: int = 20, width: int = 30) -> Outlines:
    return Outlines(path=Path("coco.json"), height=height, width=width, objects=objects)


# pycocotools' own decoder has not followed numpy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation")
@given(corners=st.lists(st.tuples(st.floats(-4, 34), st.floats(-3, 23)), min_size=3, max_size=8))
@settings(deadline=None)
def test_polygons_are_drawn_as_coco_draws_them(corners: list[tuple[float, float]]) -> None:
    polygon = [number for corner in corners for number in corner]
    polygons: Any = [polygon, [2, 2, 6, 2, 6, 6, 2, 6]]
    mask = draw_outlines(_outlines((1, polygons)), BINARY)
    drawn: Any = coco.decode(coco.merge(coco.frPyObjects(polygons, 20, 30)))
    np.testing.assert_array_equal(mask.planes[0], drawn)
    assert mask.object_sizes == (int(drawn.sum()),)


def test_a_square_has_the_area_of_its_corners() -> None:
    mask = draw_outlines(_outlines((1, [[2, 3, 12, 3, 12, 8, 2, 8]])), BINARY)
    expected = np.zeros((20, 30))
    expected[3:8, 2:12] = 1
    np.testing.assert_array_equal(mask.planes[0], expected)


@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=st.integers(0, 999))
@settings(deadline=None)
def test_runs_are_read_back(height: int, width: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inside = np.asfortranarray(rng.random((height, width)) < rng.random()).astype(np.uint8, "F")
    packed: Any = coco.encode(inside)
    flat = np.concatenate([[0], inside.ravel("F"), [2]])
    edges = np.flatnonzero(np.diff(flat))
    plain = np.diff(np.concatenate([[0], edges])).tolist()
    text = packed["counts"].decode()
    for counts in (text, packed["counts"], plain):
        runs = {"size": [height, width], "counts": counts}
        mask = draw_outlines(_outlines((1, runs), height=height, width=width), BINARY)
        np.testing.assert_array_equal(mask.planes[0], inside)


@given(counts=st.one_of(st.binary(max_size=20), st.text("0123456789PQRSTUabcdefno", max_size=20)))
@settings(deadline=None)
def test_damaged_runs_are_refused_or_fill_the_image(counts: str | bytes) -> None:
    codes: list[str] = []
    shape = (1, 20, 30)
    try:
        runs = {"size": [20, 30], "counts": counts}
        shape = draw_outlines(_outlines((1, runs)), BINARY).planes.shape
    except BadFileError as error:
        codes.append(error.finding.code)
    assert codes in ([], ["bad-outline"])
    assert shape == (1, 20, 30)


def test_later_objects_lie_on_top_where_classes_exclude_each_other() -> None:
    left = [[0, 0, 20, 0, 20, 20, 0, 20]]
    right = [[10, 0, 30, 0, 30, 20, 10, 20]]
    outlines = _outlines((2, left), (1, right))
    classes = draw_outlines(outlines, _THREE).planes
    np.testing.assert_array_equal(classes[0, 0], [2] * 10 + [1] * 20)
    planes = draw_outlines(outlines, _MULTI).planes
    np.testing.assert_array_equal(planes[:, 0].sum(axis=1), [20, 20])


def test_an_outline_without_pixels_is_warned_of() -> None:
    mask = draw_outlines(_outlines((1, [[5.1, 5.1, 5.2, 5.1, 5.2, 5.2]])), BINARY)
    assert [finding.code for finding in mask.findings] == ["empty-object"]
    assert mask.object_sizes == (0,)


@pytest.mark.parametrize(
    ("label", "segmentation", "code", "text"),
    [
        (2, [[0, 0, 1, 0, 1, 1]], "label-beyond-classes", r"must be 1 to 1, but object 0 .* has 2"),
        (0, [[0, 0, 1, 0, 1, 1]], "label-beyond-classes", r"must be 1 to 1, but object 0 .* has 0"),
        (1, [], "bad-outline", r"object 0 of an image in `coco\.json` has none"),
        (1, None, "bad-outline", r"has none"),
        (1, [0, 0, 1, 0, 1, 1], "bad-outline", r"no list of lists"),
        (1, [["a"]], "bad-outline", r"no list of lists"),
        (1, [[0, 0, 1, 0, 1, 1, 2]], "bad-outline", r"has 7 numbers"),
        (1, [[0, 0, 5, 5]], "bad-outline", r"has 4 numbers where x and y of at least 3 corners"),
        (1, [[0, 0, 5, math.nan, 5, 5]], "bad-outline", r"not finite"),
        (1, [[0, 0, 60, 0, 60, 9]], "bad-outline", r"lies 30 pixels outside .* 30 x 20 .* in x"),
        (1, [[0, -9, 6, 0, 6, 9]], "bad-outline", r"lies 9 pixels outside .* in y"),
        (1, {"size": [30, 20], "counts": [600]}, "bad-outline", r"of the size \[30, 20\]"),
        (1, {"counts": [600]}, "bad-outline", r"of the size None"),
        (1, {"size": [20, 30], "counts": [5, 3]}, "bad-outline", r"do not make 600 pixels"),
        (1, {"size": [20, 30], "counts": [601, -1]}, "bad-outline", r"do not make 600"),
        (1, {"size": [20, 30], "counts": [2**80]}, "bad-outline", r"do not make 600"),
        (1, {"size": [20, 30], "counts": None}, "bad-outline", r"do not make 600"),
        (1, {"size": [20, 30], "counts": "\x01"}, "bad-outline", r"characters that none has"),
        (1, {"size": [20, 30], "counts": "o"}, "bad-outline", r"cut off"),
    ],
)
def test_outlines_that_cannot_be_drawn_are_refused(
    label: int, segmentation: Any, code: str, text: str
) -> None:
    with pytest.raises(BadFileError, match=text) as info:
        draw_outlines(_outlines((label, segmentation)), BINARY)
    assert info.value.finding.code == code
