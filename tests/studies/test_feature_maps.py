from __future__ import annotations

import numpy as np
from helpers import dataset_of

from studies._feature_maps import view_of


def _volume(*boxes: tuple[int | slice, ...]):
    masks = np.zeros((1, 1, 20, 30, 12), np.uint8)
    for box in boxes:
        masks[0, 0][box] = 1
    return dataset_of(np.zeros(masks.shape), masks)


_BOX = (slice(14, 18), slice(2, 6), slice(3, 5))


def test_a_network_of_whole_cases_is_shown_the_whole_case_at_the_fullest_slice():
    view = view_of(_volume(_BOX, (16, 20, 2)), "case_000", None)
    assert view.window == (slice(None),) * 3
    assert view.at == 16


def test_a_network_of_patches_is_shown_one_around_the_object_inside_the_case():
    patch = (8, 8, 16)  # longer than the case along the last axis
    view = view_of(_volume(_BOX), "case_000", patch)
    there = np.zeros((20, 30, 12), bool)
    there[_BOX] = True
    assert there[view.window].shape == (8, 8, 12)
    assert there[view.window].sum() == there.sum()
    assert there[view.window][view.at].any()


def test_between_two_objects_one_of_them_is_shown():
    view = view_of(_volume((2, 2, slice(0, 3)), (17, 27, slice(0, 3))), "case_000", (4, 4, 4))
    there = np.zeros((20, 30, 12), bool)
    there[2, 2, :3] = there[17, 27, :3] = True
    assert there[view.window][view.at].any()


def test_without_an_object_the_middle_is_shown():
    view = view_of(_volume(), "case_000", (4, 6, 4))
    assert view.window == (slice(8, 12), slice(12, 18), slice(4, 8))
    assert view.at == 2
