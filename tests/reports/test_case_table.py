import math

import numpy as np
import pandas as pd
import pytest
from make_cases import counts, make_records, row

from reports.case_table import case_places, case_table, group_means
from reports.records import StudyRecords
from reports.scores import primary_cases


def test_a_case_is_the_mean_over_its_seeds() -> None:
    study = make_records(
        [row("unet", "a", 0.5, seed=0), row("unet", "a", 0.7, seed=1), row("unetpp", "a", 0.9)]
    )
    np.testing.assert_allclose(case_table(study).scores, [[0.6, 0.9]])


def test_a_seed_without_a_score_is_left_out_and_a_case_without_any_has_none() -> None:
    study = make_records(
        [
            # Both masks empty, and a false positive on an empty reference.
            counts("unet", "a", 0, 0, 0, seed=0),
            counts("unet", "a", 0, 5, 0, seed=1),
            counts("unetpp", "a", 0, 0, 0),
            row("unet", "b", 0.5),
        ]
    )
    scores = case_table(study).scores
    np.testing.assert_array_equal(scores, [[0.0, math.nan], [0.5, math.nan]])


def test_every_class_of_a_case_is_a_row_of_its_own() -> None:
    rows = [row(a, c, 0.5, label=k) for a in ("unet", "unetpp") for c in "ab" for k in (1, 2)]
    table = case_table(make_records(rows, classes=["x", "y"]))
    assert table.places.units[["case", "label"]].to_numpy().tolist() == [
        ["a", 1],
        ["a", 2],
        ["b", 1],
        ["b", 2],
    ]


def test_the_order_of_rows_changes_nothing(study: StudyRecords) -> None:
    rows = primary_cases(study)
    shuffled = rows.sample(frac=1, random_state=1)
    one, other = case_places(study, rows), case_places(study, shuffled)
    pd.testing.assert_frame_equal(one.units, other.units)
    np.testing.assert_allclose(one.sums(rows["tp"]), other.sums(shuffled["tp"]))


def test_gains_are_paired_case_by_case(study: StudyRecords) -> None:
    table = case_table(study)
    gains = table.gains("unet")
    assert np.nanmax(abs(gains[:, table.places.arms.index("unet")])) == 0
    case = table.places.units.index[table.places.units["case"] == "case_007"][0]
    column = table.places.arms.index("unetpp")
    cases = study.cases[(study.cases["case"] == "case_007") & (study.cases["output"] == "L4")]
    dice = 2 * cases["tp"] / (2 * cases["tp"] + cases["fp"] + cases["fn"])
    by_arm = dict(zip(cases["arm"], dice, strict=True))
    assert gains[case, column] == pytest.approx(by_arm["unetpp"] - by_arm["unet"])


def test_group_means_leave_out_what_has_no_score() -> None:
    values = [1.0, 3.0, math.nan, 5.0, math.nan]
    np.testing.assert_array_equal(group_means(values, ["b", "b", "b", "a", "c"]), [5.0, 2.0])
