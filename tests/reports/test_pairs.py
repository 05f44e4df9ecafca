import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_scores import make_scored, noise
from scipy import stats

from reports.pairs import mean_of, output_scores, paired, row_of, run_words, within
from reports.records import StudyRecords
from reports.scores import fold_scores, judged_scores, output_cases
from studies import pruning

RATIO = 0.25
scores = st.lists(st.floats(0, 1).map(lambda v: round(v, 3)), min_size=3, max_size=8)


@pytest.fixture(scope="module")
def study() -> StudyRecords:
    return make_scored(
        pruning.STUDY, lambda arm, out, seed, fold: 0.7 + noise(arm, out, seed, fold), num_seeds=2
    )


def test_scores_of_an_output_are_those_of_fold_scores(study: StudyRecords) -> None:
    found = output_scores(study, "dice")
    for arm, output in (("unetpp_ds", "L2"), ("unetpp_ds", "mean"), ("unet_l3", "L3")):
        one = fold_scores(output_cases(study, arm, output), "dice", empty="nan")
        np.testing.assert_array_equal(row_of(found, (arm, output)), one.loc[arm])


def test_the_judged_output_has_the_scores_of_the_result_table(study: StudyRecords) -> None:
    found, judged = output_scores(study, "iou"), judged_scores(study, "iou")
    np.testing.assert_array_equal(found.loc[("unetpp_ds", "L4")], judged.loc["unetpp_ds"])


def test_a_network_without_scores_has_an_empty_row(study: StudyRecords) -> None:
    assert row_of(output_scores(study, "dice"), ("unetpp_ds", "L9")).empty


def test_a_paired_difference_is_the_corrected_t_by_hand() -> None:
    gaps = np.array([0.01, 0.03, 0.02, 0.04])
    other = pd.Series([0.5, 0.6, 0.7, 0.8])
    found = paired(other + gaps, other, test_train_ratio=RATIO)
    error = gaps.std(ddof=1) * math.sqrt(1 / 4 + RATIO)
    assert found["delta_dice"] == pytest.approx(0.025)
    assert found["t"] == pytest.approx(0.025 / error)
    assert found["p"] == pytest.approx(2 * stats.t.sf(0.025 / error, 3))
    assert found["delta_low"] == pytest.approx(0.025 - stats.t.ppf(0.975, 3) * error)


@given(first=scores, data=st.data())
def test_swapping_the_two_turns_the_sign_and_nothing_else(
    first: list[float], data: st.DataObject
) -> None:
    n = len(first)
    second = data.draw(st.lists(st.floats(0, 1), min_size=n, max_size=n))
    one = paired(pd.Series(first), pd.Series(second), test_train_ratio=RATIO)
    other = paired(pd.Series(second), pd.Series(first), test_train_ratio=RATIO)
    assert one["delta_dice"] == pytest.approx(-other["delta_dice"], abs=1e-12)
    assert one["delta_low"] == pytest.approx(-other["delta_high"], abs=1e-9, nan_ok=True)
    assert one["p"] == pytest.approx(other["p"], nan_ok=True)


def test_only_runs_that_both_have_are_paired() -> None:
    first = pd.Series([0.5, 0.6, 0.9], index=[0, 1, 2])
    second = pd.Series([0.4, 0.5], index=[0, 1])
    found = paired(first, second, test_train_ratio=RATIO)
    assert (found["delta_runs"], found["delta_dice"]) == (2, pytest.approx(0.1))


def test_one_run_has_a_mean_and_no_limits() -> None:
    found = mean_of(pd.Series([0.5]), "dice", test_train_ratio=RATIO)
    assert found["dice_mean"] == 0.5
    assert math.isnan(found["dice_low"])
    assert math.isnan(mean_of(pd.Series([], dtype=float), "x", test_train_ratio=RATIO)["x_mean"])


def test_limits_are_cut_where_scores_end_and_nan_stays() -> None:
    assert within(-0.2, 1.3) == (0, 1)
    assert within(0.2, 0.3) == (0.2, 0.3)
    assert all(map(math.isnan, within(math.nan, math.nan)))


def test_the_number_of_runs_is_a_promise_while_some_are_missing(study: StudyRecords) -> None:
    assert run_words(study) == "10 runs (5 folds x 2 seeds)"
    assert run_words(replace(study, missing=(("unet_l1", 0, 0),))).startswith("up to 10 runs")
