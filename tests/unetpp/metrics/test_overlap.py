from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import (
    confusion_matrix,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
)

from unetpp.errors import UserError
from unetpp.metrics.overlap import (
    EMPTY_POLICIES,
    METRICS,
    Counts,
    EmptyPolicy,
    count_overlap,
    dice,
    iou,
    precision,
    recall,
    score,
    specificity,
)

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


@given(_pairs())
def test_every_ratio_is_scikit_learns_under_every_value_for_nothing_over_nothing(
    pair: tuple[np.ndarray, np.ndarray],
):
    predicted, truth = (mask[0].ravel() for mask in pair)
    counts = count_overlap(predicted[None], truth[None])
    right: Any = float((predicted == truth).all())
    # "one": what is undefined is 1 if the prediction is right and 0 if not; scikit-learn's word
    # for it is `zero_division`.
    expected = {
        "dice": f1_score(truth, predicted, zero_division=right),
        "iou": jaccard_score(truth, predicted, zero_division=right),
        "precision": precision_score(truth, predicted, zero_division=right),
        "recall": recall_score(truth, predicted, zero_division=right),
        "specificity": recall_score(~truth, ~predicted, zero_division=right),
    }
    assert list(expected) == list(METRICS)
    for name, value in expected.items():
        assert score(name, *counts, empty="one")[0] == pytest.approx(value)


@given(_pairs())
def test_the_rules_differ_only_where_they_say(pair: tuple[np.ndarray, np.ndarray]):
    counts = count_overlap(*pair)
    no_truth = counts.tp + counts.fn == 0
    for name, metric in METRICS.items():
        plain, one, dropped = (score(name, *counts, empty=empty) for empty in EMPTY_POLICIES)
        np.testing.assert_array_equal(plain, metric.ratio(*counts))
        assert not np.isnan(one).any()
        np.testing.assert_array_equal(one[~np.isnan(plain)], plain[~np.isnan(plain)])
        assert np.isnan(dropped[no_truth]).all()
        np.testing.assert_array_equal(dropped[~no_truth], plain[~no_truth])


# One pixel of four: tp, fp, fn, tn.
_BOTH_EMPTY, _FALSE_POSITIVE, _MISSED, _FULL, _FULL_MISSED = (
    (0, 0, 0, 4), (0, 1, 0, 3), (0, 0, 1, 3), (4, 0, 0, 0), (3, 0, 1, 0),
)  # fmt: skip
_NAN = float("nan")


@pytest.mark.parametrize(
    ("counts", "name", "nan", "one", "drop"),
    [
        (_BOTH_EMPTY, "dice", _NAN, 1, _NAN),
        (_BOTH_EMPTY, "iou", _NAN, 1, _NAN),
        (_BOTH_EMPTY, "precision", _NAN, 1, _NAN),
        (_BOTH_EMPTY, "recall", _NAN, 1, _NAN),
        (_BOTH_EMPTY, "specificity", 1, 1, _NAN),
        (_FALSE_POSITIVE, "dice", 0, 0, _NAN),
        (_FALSE_POSITIVE, "iou", 0, 0, _NAN),
        (_FALSE_POSITIVE, "precision", 0, 0, _NAN),
        (_FALSE_POSITIVE, "recall", _NAN, 0, _NAN),
        (_FALSE_POSITIVE, "specificity", 0.75, 0.75, _NAN),
        (_MISSED, "dice", 0, 0, 0),
        (_MISSED, "iou", 0, 0, 0),
        (_MISSED, "precision", _NAN, 0, _NAN),
        (_MISSED, "recall", 0, 0, 0),
        (_MISSED, "specificity", 1, 1, 1),
        (_FULL, "specificity", _NAN, 1, _NAN),
        (_FULL_MISSED, "specificity", _NAN, 0, _NAN),
    ],
)
def test_the_table_of_rules(counts, name: str, nan: float, one: float, drop: float):
    found = [float(score(name, *counts, empty=empty)) for empty in ("nan", "one", "drop_empty_gt")]
    np.testing.assert_array_equal(found, [nan, one, drop])


def test_one_set_of_masks_has_three_mean_dice_scores():
    # A good case (Dice 0.9), a false positive on an empty truth, and both empty: the three means
    # are those of nnU-Net, of MONAI by default, and of MONAI with ignore_empty=False.
    counts = np.array([(9, 1, 1, 89), (0, 5, 0, 95), (0, 0, 0, 100)]).T
    means: dict[EmptyPolicy, float] = {
        empty: float(np.nanmean(score("dice", *counts, empty=empty))) for empty in EMPTY_POLICIES
    }
    assert means["nan"] == pytest.approx(0.45)
    assert means["drop_empty_gt"] == pytest.approx(0.90)
    assert means["one"] == pytest.approx(1.9 / 3)


def test_the_batch_of_monai_has_its_means():
    # Masks of 2 x 2 from MONAI's own tests, two cases (rows) of three classes.
    found = [["1110", "0100", "0111"], ["1011", "0111", "0110"]]
    true = [["1111", "0000", "0000"], ["0001", "1100", "0010"]]
    predicted, truth = (
        np.array([[[bit == "1" for bit in mask] for mask in case] for case in masks])
        for masks in (found, true)
    )
    dice_of_class = [
        score("dice", *count_overlap(predicted[:, k], truth[:, k]), empty="drop_empty_gt")
        for k in range(3)
    ]
    assert np.nanmean(dice_of_class, axis=1) == pytest.approx([0.6786, 0.4, 0.6667], abs=5e-5)
    assert np.nanmean(np.nanmean(dice_of_class, axis=0)) == pytest.approx(0.689683, abs=5e-7)


def test_the_mean_over_images_is_not_the_pooled_score():
    counts = np.array([(90, 5, 5, 0), (0, 5, 5, 90)]).T
    assert score("iou", *counts).mean() == pytest.approx(0.45)
    assert score("iou", *counts.sum(axis=1)) == pytest.approx(0.818, abs=5e-4)


def test_monai_finds_the_same_under_both_of_its_rules():
    metrics = pytest.importorskip("monai.metrics")
    torch = pytest.importorskip("torch")
    generator = np.random.default_rng(5)
    truth, predicted = generator.random((2, 12, 3, 3)) < 0.2
    truth[:3], predicted[:2] = False, False
    counts = count_overlap(predicted, truth)
    tensors = [torch.tensor(mask[:, None]).float() for mask in (predicted, truth)]
    rules: dict[EmptyPolicy, bool] = {"drop_empty_gt": True, "one": False}
    for empty, ignored in rules.items():
        theirs = metrics.compute_dice(*tensors, ignore_empty=ignored)[:, 0]
        np.testing.assert_allclose(score("dice", *counts, empty=empty), theirs, rtol=1e-6)
        theirs = metrics.compute_iou(*tensors, ignore_empty=ignored)[:, 0]
        np.testing.assert_allclose(score("iou", *counts, empty=empty), theirs, rtol=1e-6)


def test_ratios_of_plain_numbers_by_hand():
    tp, fp, fn, tn = 3, 1, 2, 4
    assert float(precision(tp, fp)) == 0.75
    assert float(recall(tp, fn)) == 0.6
    assert float(specificity(fp, tn)) == 0.8


def test_an_unknown_metric_and_an_unknown_rule_are_refused_with_a_list():
    with pytest.raises(
        UserError, match="one of dice, iou, precision, recall, specificity, but `f1`"
    ):
        score("f1", 1, 1, 1, 1)
    with pytest.raises(UserError, match="one of nan, one, drop_empty_gt, but `zero`"):
        score("dice", 1, 1, 1, 1, empty="zero")  # pyright: ignore[reportArgumentType]


def _dice(counts: Counts) -> np.ndarray:
    return dice(counts.tp, counts.fp, counts.fn)


def _iou(counts: Counts) -> np.ndarray:
    return iou(counts.tp, counts.fp, counts.fn)
