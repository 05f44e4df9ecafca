from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import confusion_matrix, f1_score, jaccard_score

from unetpp.metrics.overlap import Counts, count_overlap, dice, iou

_SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 7))


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    shape = draw(_SHAPES)
    return draw(hnp.arrays(np.bool_, shape)), draw(hnp.arrays(np.bool_, shape))


@given(_pairs())
def test_the_counts_are_scikit_learns_confusion_matrix(pair: tuple[np.ndarray, np.ndarray]):
    predicted, truth = pair
    counts = count_overlap(predicted, truth)
    for n in range(len(predicted)):
        matrix = confusion_matrix(truth[n].ravel(), predicted[n].ravel(), labels=[False, True])
        assert [[counts.tn[n], counts.fp[n]], [counts.fn[n], counts.tp[n]]] == matrix.tolist()
        if truth[n].any() or predicted[n].any():
            expected = f1_score(truth[n].ravel(), predicted[n].ravel())
            assert _dice(counts)[n] == pytest.approx(expected)
            expected = jaccard_score(truth[n].ravel(), predicted[n].ravel())
            assert _iou(counts)[n] == pytest.approx(expected)
        else:
            assert np.isnan(_dice(counts)[n])
            assert np.isnan(_iou(counts)[n])


@given(_pairs())
def test_counts_sum_to_the_image_and_swap_with_their_arguments(
    pair: tuple[np.ndarray, np.ndarray],
):
    predicted, truth = pair
    counts = count_overlap(predicted, truth)
    assert all(c.dtype == np.int64 and c.shape == (len(truth),) for c in counts)
    assert (sum(counts) == truth.shape[1] * truth.shape[2]).all()
    swapped = count_overlap(truth, predicted)
    assert np.array_equal(counts.fp, swapped.fn)
    np.testing.assert_array_equal(_dice(counts), _dice(swapped))


@given(_pairs())
def test_iou_and_dice_are_one_number_in_two_forms(pair: tuple[np.ndarray, np.ndarray]):
    counts = count_overlap(*pair)
    np.testing.assert_allclose(_iou(counts), _dice(counts) / (2 - _dice(counts)))


@given(_pairs(), st.integers(1, 3))
def test_counts_do_not_depend_on_the_batch(pair: tuple[np.ndarray, np.ndarray], cut: int):
    whole = np.stack(count_overlap(*pair))
    halves = [
        count_overlap(pair[0][part], pair[1][part]) for part in (slice(cut), slice(cut, None))
    ]
    assert np.array_equal(whole, np.concatenate([np.stack(h) for h in halves], axis=1))


def test_the_vector_of_monai():
    truth = np.array([[[1, 0], [0, 1]]], bool)
    predicted = np.array([[[1, 0], [1, 1]]], bool)
    assert _dice(count_overlap(predicted, truth))[0] == pytest.approx(0.8)


def test_the_vector_of_metrics_reloaded():
    truth = np.zeros((1, 11, 11), bool)
    truth[0, 3:8, 3:8] = True
    predicted = truth.copy()
    predicted[0, 5, 1:10] = True
    predicted[0, 1:10, 5] = True
    counts = count_overlap(predicted, truth)
    assert [int(c[0]) for c in counts] == [25, 8, 0, 88]
    assert _dice(counts)[0] == pytest.approx(0.8620690, abs=1e-7)
    assert _iou(counts)[0] == pytest.approx(0.7575758, abs=1e-7)


def test_an_empty_truth_with_a_prediction_is_zero_and_without_one_undefined():
    counts = count_overlap(np.array([[[True]], [[False]]]), np.array([[[False]], [[False]]]))
    np.testing.assert_array_equal(_dice(counts), [0, np.nan])
    np.testing.assert_array_equal(_iou(counts), [0, np.nan])


def test_ratios_take_plain_numbers_too():
    assert dice(3, 1, 2) == pytest.approx(6 / 9)
    assert iou([3, 0], [1, 0], [2, 5]).tolist() == [0.5, 0.0]


def _dice(counts: Counts) -> np.ndarray:
    return dice(counts.tp, counts.fp, counts.fn)


def _iou(counts: Counts) -> np.ndarray:
    return iou(counts.tp, counts.fp, counts.fn)
