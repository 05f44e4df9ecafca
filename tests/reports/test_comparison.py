import math

import numpy as np
import pytest
from make_cases import by_arm, counts, make_records, row
from scipy import stats

from reports.case_table import case_table
from reports.comparison import (
    ROPE,
    best_arm,
    differences,
    empty_reference_rows,
    new_case_rows,
    result_rows,
)
from reports.records import StudyRecords

# Dice of the two arms by (seed, fold); two seeds of three folds.
_BASE = [[0.80, 0.70, 0.75], [0.82, 0.71, 0.74]]
_ARM = [[0.83, 0.74, 0.76], [0.83, 0.70, 0.79]]


def _two_seeds() -> StudyRecords:
    return make_records(
        [
            row(arm, f"{fold}", scores[seed][fold], fold=fold, seed=seed)
            for arm, scores in (("unet", _BASE), ("unetpp", _ARM))
            for seed in range(2)
            for fold in range(3)
        ]
    )


def test_runs_are_folds_times_seeds_and_the_ratio_stays_that_of_the_folds() -> None:
    found = by_arm(result_rows(_two_seeds()))["unetpp"]
    d = (np.array(_ARM) - np.array(_BASE)).ravel()
    # Three folds of one case each: n_test / n_train = 1/2.
    error = math.sqrt(d.var(ddof=1) * (1 / 6 + 1 / 2))
    assert found["num_runs"] == found["delta_runs"] == 6
    assert found["delta_dice"] == pytest.approx(d.mean())
    assert found["p"] == pytest.approx(2 * stats.t.sf(d.mean() / error, 5))
    half = stats.t.ppf(0.975, 5) * error
    assert (found["delta_low"], found["delta_high"]) == pytest.approx(
        (d.mean() - half, d.mean() + half)
    )
    posterior = stats.t(5, loc=d.mean(), scale=error)
    assert found["p_better"] == pytest.approx(posterior.sf(ROPE))
    assert found["p_worse"] == pytest.approx(posterior.cdf(-ROPE))
    assert sum(found[key] for key in ("p_worse", "p_equal", "p_better")) == pytest.approx(1)


def test_the_deviation_is_over_all_runs() -> None:
    found = by_arm(result_rows(_two_seeds()))["unet"]
    assert found["dice_sd"] == pytest.approx(np.std(_BASE, ddof=1))
    assert found["train_hours"] == 6


def test_differences_are_paired_by_seed_and_fold() -> None:
    values = differences(_two_seeds(), "unetpp")
    assert values.loc[(1, 2)] == pytest.approx(0.79 - 0.74)


def test_of_two_arms_the_test_against_the_best_is_that_against_the_baseline() -> None:
    found = by_arm(result_rows(_two_seeds()))
    assert best_arm(result_rows(_two_seeds())) == "unetpp"
    assert found["unet"]["p_best"] == pytest.approx(found["unetpp"]["p"])
    assert math.isnan(found["unetpp"]["p_best"])


def test_an_arm_without_a_run_is_compared_with_nothing() -> None:
    study = make_records([row("unet", "a", 0.5), row("unet", "b", 0.6, fold=1)])
    found = by_arm(result_rows(study))["unetpp"]
    assert found["delta_runs"] == found["num_runs"] == 0
    assert math.isnan(found["p_holm"])
    assert math.isnan(found["p_best"])
    assert new_case_rows(study).empty


def _gains(gains: list[float], *, copies: int = 1) -> StudyRecords:
    """One group a gain over a Dice of 0.5, with equal copies of its case."""
    return make_records(
        [
            row(arm, f"{k}_{copy}", 0.5 + (gain if arm == "unetpp" else 0), group=f"g{k}")
            for k, gain in enumerate(gains)
            for copy in range(copies)
            for arm in ("unet", "unetpp")
        ]
    )


def test_a_sign_flip_over_six_groups_is_counted_by_hand() -> None:
    # All gains point one way: of 64 patterns of signs 2 are as extreme.
    found = by_arm(new_case_rows(_gains([0.1, 0.2, 0.05, 0.1, 0.3, 0.2])))["unetpp"]
    assert found["p"] == found["p_floor"] == found["p_holm"] == 2 / 64
    assert found["delta_dice"] == pytest.approx(0.95 / 6)
    assert found["d_z"] == pytest.approx(
        np.mean([0.1, 0.2, 0.05, 0.1, 0.3, 0.2]) / np.std([0.1, 0.2, 0.05, 0.1, 0.3, 0.2], ddof=1)
    )
    assert found["rank_biserial"] == 1
    assert (found["num_cases"], found["num_groups"], found["share_worse"]) == (6, 6, 0)


def test_a_test_that_cannot_reach_five_per_cent_is_no_test() -> None:
    found = by_arm(new_case_rows(_gains([0.1, 0.2, 0.05, 0.1, 0.3])))["unetpp"]
    assert found["p_floor"] == 2 / 32
    assert math.isnan(found["p_holm"])
    assert math.isnan(found["delta_low"])


def test_copies_of_a_case_in_its_group_are_worth_nothing() -> None:
    gains = [0.1, -0.2, 0.05, 0.1, 0.3, 0.2, -0.1, 0.15]
    one, many = (by_arm(new_case_rows(_gains(gains, copies=k)))["unetpp"] for k in (1, 7))
    names = ["delta_dice", "delta_low", "delta_high", "p", "d_z", "rank_biserial", "share_worse"]
    for name in names:
        assert many[name] == pytest.approx(one[name]), name
    assert (one["num_cases"], many["num_cases"]) == (8, 56)
    assert one["share_worse"] == 2 / 8


def test_the_table_at_hand_gives_the_same_rows(study: StudyRecords) -> None:
    one, other = new_case_rows(study), new_case_rows(study, case_table(study))
    assert one.equals(other)
    assert one["arm"].tolist() == [arm.name for arm in study.arms if arm.name != "unet"]


def test_false_positives_are_counted_on_empty_references_alone() -> None:
    study = make_records(
        [
            counts("unet", "a", 0, 0, 0),
            counts("unet", "b", 0, 30, 0),
            counts("unet", "c", 5, 70, 5),
            counts("unetpp", "a", 0, 0, 0),
            counts("unetpp", "b", 0, 0, 0),
        ]
    )
    found = by_arm(empty_reference_rows(study))
    assert list(found["unet"].values())[1:] == [2, 0.5, 15.0]
    assert list(found["unetpp"].values())[1:] == [2, 0.0, 0.0]


def test_without_empty_references_nothing_is_said_of_them() -> None:
    assert empty_reference_rows(make_records([row("unet", "a", 0.5)])).empty
