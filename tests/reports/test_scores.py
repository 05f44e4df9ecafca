import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.records import StudyRecords
from reports.scores import (
    case_scores,
    count_empty,
    fold_scores,
    primary_cases,
    scored_folds,
)
from unetpp.metrics.overlap import EmptyPolicy, dice, iou

counts = st.integers(0, 10_000)


@given(counts, counts, counts)
def test_iou_is_dice_over_two_minus_dice(tp: int, fp: int, fn: int) -> None:
    d = dice(tp, fp, fn)
    np.testing.assert_allclose(iou(tp, fp, fn), d / (2 - d))


@given(counts, counts, counts)
def test_dice_does_not_tell_reference_from_prediction(tp: int, fp: int, fn: int) -> None:
    np.testing.assert_array_equal(dice(tp, fp, fn), dice(tp, fn, fp))


def test_rule_for_empty_masks() -> None:
    # both empty, false positive on an empty reference, missed object, perfect
    np.testing.assert_array_equal(dice([0, 0, 0, 5], [0, 3, 0, 0], [0, 0, 4, 0]), [np.nan, 0, 0, 1])


def _cases(rows: list[tuple[str, int, str, int, int, int]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["arm", "fold", "case", "tp", "fp", "fn"])
    return frame.assign(seed=0, label=1, tn=100)


def test_an_appended_empty_case_changes_the_count_and_not_the_mean() -> None:
    rows = [("a", 0, "x", 9, 1, 1), ("a", 0, "y", 1, 1, 1)]
    before, after = _cases(rows), _cases([*rows, ("a", 0, "z", 0, 0, 0)])
    pd.testing.assert_frame_equal(
        fold_scores(before, "dice", empty="nan"), fold_scores(after, "dice", empty="nan")
    )
    assert count_empty(before, empty="nan").num_empty == 0
    assert count_empty(after, empty="nan").num_empty == 1
    assert count_empty(after, empty="nan").left_out == (1, 1)


@pytest.mark.parametrize(
    ("empty", "mean", "left_out"),
    [("nan", 0.45, 1), ("one", 1.9 / 3, 0), ("drop_empty_gt", 0.9, 2)],
)
def test_the_rule_for_empty_masks_decides_the_mean_of_the_same_counts(
    empty: EmptyPolicy, mean: float, left_out: int
) -> None:
    # Three cases that libraries average to three numbers: 0.9; a false positive; both empty.
    cases = _cases([("a", 0, "x", 9, 1, 1), ("a", 0, "y", 0, 3, 0), ("a", 0, "z", 0, 0, 0)])
    assert fold_scores(cases, "dice", empty=empty).loc["a", (0, 0)] == pytest.approx(mean)
    assert count_empty(cases, empty=empty).left_out == (left_out, left_out)


def test_left_out_is_counted_by_arm_as_it_depends_on_the_prediction() -> None:
    rows = [("a", 0, "z", 0, 0, 0), ("b", 0, "z", 0, 7, 0), ("a", 0, "x", 1, 0, 0)]
    empty = count_empty(_cases(rows), empty="nan")
    assert (empty.num_cases, empty.num_empty, empty.left_out) == (2, 1, (0, 1))


def test_fold_scores_are_means_over_cases_not_over_pixels() -> None:
    cases = _cases([("a", 0, "big", 90, 5, 5), ("a", 0, "small", 0, 5, 5)])
    assert fold_scores(cases, "iou", empty="nan").loc["a", (0, 0)] == pytest.approx(0.45)


def test_every_seed_has_a_score_of_its_own() -> None:
    one = _cases([("a", 0, "x", 9, 1, 1), ("a", 1, "y", 1, 1, 1)])
    both = pd.concat([one, one.assign(seed=1, tp=0)])
    table = fold_scores(both, "dice", empty="nan")
    assert table.columns.tolist() == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert scored_folds(table, "a").tolist() == pytest.approx([0.9, 0.5, 0, 0])
    assert scored_folds(table, "none").empty


def test_the_order_of_rows_changes_nothing(study: StudyRecords) -> None:
    cases = primary_cases(study)
    shuffled = cases.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        fold_scores(cases, "dice", empty="nan"), fold_scores(shuffled, "dice", empty="nan")
    )


def test_primary_cases_hold_each_case_once_an_arm(study: StudyRecords) -> None:
    cases = primary_cases(study)
    assert set(cases["output"]) == {"L4"}
    assert not cases.duplicated(["arm", "case"]).any()
    assert len(cases) == 6 * 41
    assert case_scores(cases, "dice", empty="nan").index.equals(cases.index)
