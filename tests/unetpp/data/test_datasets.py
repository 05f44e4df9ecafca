from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
from helpers import dataset_of
from hypothesis import given
from hypothesis import strategies as st

from unetpp.data.datasets import ArraysInMemory, Dataset
from unetpp.data.facts import measure
from unetpp.data.labels import BINARY, Labels

_RNG = np.random.default_rng(0)
_IMAGES = _RNG.random((3, 1, 4, 6), dtype=np.float32)
_MASKS = _RNG.integers(0, 2, (3, 1, 4, 6), dtype=np.uint8)
_CLASSES = Labels(kind="classes", names=("anterior", "posterior"))


def _dataset(images: np.ndarray = _IMAGES, masks: np.ndarray = _MASKS, **changes: Any) -> Dataset:
    fields = {
        "case_ids": ("a", "b", "c"),
        "groups": ("g", "g", "h"),
        "strata": ("s", "t", "s"),
        "description": "Three cases of noise.",
    }
    return dataset_of(images, masks, **(fields | changes))


def test_hash_is_the_same_for_the_same_content_under_another_name() -> None:
    dataset = _dataset()
    assert dataset.hash == _dataset(name="other", description="Copied.").hash
    assert dataset.hash == _dataset(np.asfortranarray(_IMAGES)).hash
    assert len(dataset.hash) == 64


def test_hash_changes_with_one_pixel_and_with_each_name_of_a_case() -> None:
    image, mask = _IMAGES.copy(), _MASKS.copy()
    image[2, 0, 3, 5] = np.nextafter(image[2, 0, 3, 5], np.float32(0))
    mask[0, 0, 0, 0] ^= 1
    others = [
        _dataset(image),
        _dataset(masks=mask),
        _dataset(case_ids=("a", "b", "d")),
        _dataset(groups=("g", "h", "h")),
        _dataset(strata=("s", "s", "s")),
        _dataset(labels=Labels(kind="binary", names=("cell",))),
        _dataset(_IMAGES.reshape(3, 1, 6, 4), _MASKS.reshape(3, 1, 6, 4)),
    ]
    assert len({_dataset().hash, *(other.hash for other in others)}) == 1 + len(others)


def test_hash_knows_where_one_name_ends() -> None:
    assert _dataset(case_ids=("a", "bc", "d")).hash != _dataset(case_ids=("ab", "c", "d")).hash


def test_length_and_frozenness() -> None:
    dataset = _dataset()
    assert len(dataset) == 3
    with pytest.raises(FrozenInstanceError):
        dataset.name = "other"  # type: ignore[misc]
    assert replace(dataset, name="other").hash == dataset.hash


def test_pixels_come_back_by_position() -> None:
    dataset = _dataset()
    np.testing.assert_array_equal(dataset.images([2, 0]), _IMAGES[[2, 0]])
    np.testing.assert_array_equal(dataset.masks(), _MASKS)
    assert (dataset.in_channels, dataset.spatial_dims, dataset.shape) == (1, 2, (4, 6))


@given(num=st.integers(1, 4), side=st.integers(1, 5), seed=st.integers(0, 99))
def test_facts_are_what_numpy_says(num: int, side: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    image = rng.normal(100, 30, (num, side, side + 1)).astype(np.float32)
    mask = rng.integers(0, 3, (1, side, side + 1), dtype=np.uint8)
    facts = measure("x", image, mask, _CLASSES)
    flat = image.reshape(num, -1).astype(np.float64)
    np.testing.assert_allclose(facts.mean, flat.mean(axis=1))
    np.testing.assert_allclose(facts.deviation, flat.std(axis=1), atol=1e-9)
    assert facts.low == tuple(flat.min(axis=1))
    assert facts.high == tuple(flat.max(axis=1))
    assert facts.class_pixels == ((mask == 1).sum(), (mask == 2).sum())
    assert facts.foreground_share == pytest.approx((mask > 0).mean())


def test_overlapping_classes_are_counted_each() -> None:
    mask = np.array([[[1, 1, 0]], [[0, 1, 0]]], np.uint8)
    labels = Labels(kind="multilabel", names=("whole", "core"))
    facts = measure("x", np.zeros((1, 1, 3), np.float32), mask, labels)
    assert facts.class_pixels == (2, 1)
    assert facts.deviation == (0.0,)


@pytest.mark.parametrize(
    ("images", "masks", "message"),
    [
        (np.zeros((3, 1, 6, 4)), _MASKS, "differ in size"),
        (np.zeros((3, 0, 4, 6)), _MASKS, "not be empty"),
        (np.full((3, 1, 4, 6), np.nan), _MASKS, "finite"),
        (_IMAGES[:2], _MASKS[:2], "one image, mask per case"),
        (_IMAGES, np.full((3, 1, 4, 6), 2), "beyond the classes"),
    ],
)
def test_broken_pixels_are_our_own_fault(
    images: np.ndarray, masks: np.ndarray, message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        ArraysInMemory(("a", "b", "c"), images.astype(np.float32), masks.astype(np.uint8), BINARY)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"case_ids": ("a", "b", "a")}, "unique"),
        ({"groups": ("g",)}, "one group"),
        ({"strata": ("s",) * 4}, "one group and stratum"),
    ],
)
def test_broken_names_are_our_own_fault(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        _dataset(**changes)
