import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.records import StudyRecords
from reports.scores import case_scores, count_empty, fold_scores, primary_cases
from unetpp.metrics.overlap import dice, iou

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
    return pd.DataFrame(rows, columns=["arm", "fold", "case", "tp", "fp", "fn"])


def test_an_appended_empty_case_changes_the_count_and_not_the_mean() -> None:
    rows = [("a", 0, "x", 9, 1, 1), ("a", 0, "y", 1, 1, 1)]
    before, after = _cases(rows), _cases([*rows, ("a", 0, "z", 0, 0, 0)])
    pd.testing.assert_frame_equal(fold_scores(before, "dice"), fold_scores(after, "dice"))
    assert count_empty(before).num_empty == 0
    assert count_empty(after).num_empty == 1
    assert count_empty(after).left_out == (1, 1)


def test_left_out_is_counted_by_arm_as_it_depends_on_the_prediction() -> None:
    rows = [("a", 0, "z", 0, 0, 0), ("b", 0, "z", 0, 7, 0), ("a", 0, "x", 1, 0, 0)]
    empty = count_empty(_cases(rows))
    assert (empty.num_cases, empty.num_empty, empty.left_out) == (2, 1, (0, 1))


def test_fold_scores_are_means_over_cases_not_over_pixels() -> None:
    table = fold_scores(_cases([("a", 0, "big", 90, 5, 5), ("a", 0, "small", 0, 5, 5)]), "iou")
    assert table.loc["a", 0] == pytest.approx(0.45)


def test_the_order_of_rows_changes_nothing(study: StudyRecords) -> None:
    cases = primary_cases(study)
    shuffled = cases.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(fold_scores(cases, "dice"), fold_scores(shuffled, "dice"))


def test_primary_cases_hold_each_case_once_an_arm(study: StudyRecords) -> None:
    cases = primary_cases(study)
    assert set(cases["output"]) == {"L4"}
    assert not cases.duplicated(["arm", "case"]).any()
    assert len(cases) == 6 * 41
    assert case_scores(cases, "dice").index.equals(cases.index)
