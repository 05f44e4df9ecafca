from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest

from unetpp.data.datasets import Dataset


def _dataset(**changes: Any) -> Dataset:
    rng = np.random.default_rng(0)
    fields: dict[str, Any] = {
        "name": "small",
        "description": "Three cases of noise.",
        "case_ids": ("a", "b", "c"),
        "groups": ("g", "g", "h"),
        "strata": ("s", "t", "s"),
        "images": rng.random((3, 1, 4, 6), dtype=np.float32),
        "masks": rng.integers(0, 2, (3, 4, 6), dtype=np.uint8),
    }
    return Dataset(**(fields | changes))


def test_hash_is_the_same_for_the_same_content_under_another_name() -> None:
    dataset = _dataset()
    assert dataset.hash == _dataset(name="other", description="Copied.").hash
    fortran = np.asfortranarray(dataset.images)
    assert dataset.hash == _dataset(images=fortran, masks=dataset.masks[:, :, :]).hash
    assert len(dataset.hash) == 64


def test_hash_changes_with_one_pixel_and_with_each_name_of_a_case() -> None:
    dataset = _dataset()
    image = dataset.images.copy()
    image[2, 0, 3, 5] = np.nextafter(image[2, 0, 3, 5], np.float32(0))
    mask = dataset.masks.copy()
    mask[0, 0, 0] ^= 1
    others = [
        _dataset(images=image),
        _dataset(masks=mask),
        _dataset(case_ids=("a", "b", "d")),
        _dataset(groups=("g", "h", "h")),
        _dataset(strata=("s", "s", "s")),
        _dataset(images=dataset.images.reshape(3, 1, 6, 4), masks=dataset.masks.reshape(3, 6, 4)),
    ]
    assert len({dataset.hash, *(other.hash for other in others)}) == 1 + len(others)


def test_hash_knows_where_one_name_ends() -> None:
    assert _dataset(case_ids=("a", "bc", "d")).hash != _dataset(case_ids=("ab", "c", "d")).hash


def test_length_and_frozenness() -> None:
    dataset = _dataset()
    assert len(dataset) == 3
    with pytest.raises(FrozenInstanceError):
        dataset.name = "other"  # type: ignore[misc]
    assert replace(dataset, name="other").hash == dataset.hash


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"case_ids": ("a", "a", "b")}, "unique"),
        ({"groups": ("g", "g")}, "one group and stratum per case"),
        ({"images": np.zeros((3, 1, 4, 6))}, "float32"),
        ({"images": np.full((3, 1, 4, 6), 1.01, np.float32)}, "0..1"),
        ({"images": np.full((3, 1, 4, 6), np.nan, np.float32)}, "0..1"),
        ({"images": np.zeros((3, 1, 6, 4), np.float32)}, "differ in size"),
        ({"images": np.zeros((3, 0, 4, 6), np.float32)}, "not be empty"),
        ({"masks": np.full((3, 4, 6), 2, np.uint8)}, "0 and 1"),
        ({"masks": np.zeros((3, 4, 6), bool)}, "uint8"),
    ],
)
def test_broken_invariants_are_our_own_fault(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        _dataset(**changes)
