from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from make_cases import counts, make_records, row

from reports.plots.case_scores import case_scores_frame, draw_case_scores, thinned
from reports.records import StudyRecords
from reports.sections.cases import NUM_WORST, section, worst_cases


def _study(num_cases: int = 15) -> StudyRecords:
    """Case k has a Dice of about k / 100; two cases tie for the lowest place."""
    values = [0.02 if k < 2 else 0.02 + k / 100 for k in range(num_cases)]
    return make_records(
        [
            row(arm, f"{k:02d}", round(value + (0.1 if arm == "unetpp" else 0), 3), fold=k % 2)
            for k, value in enumerate(values)
            for arm in ("unet", "unetpp")
        ]
    )


def test_the_lowest_come_first_and_ties_by_name() -> None:
    found = worst_cases(_study())
    assert found is not None
    assert found.rows["case"].tolist() == [*(f"{k:02d}" for k in range(NUM_WORST)), "14"]
    assert found.rows["why"].tolist()[0] == "worst 1"
    assert found.rows["why"].tolist()[7] == "worst 8, median"
    assert found.rows["why"].tolist()[-1] == "best"
    assert found.num_cases == 15


def test_a_row_says_which_arm_did_worst_and_best() -> None:
    found = worst_cases(_study())
    assert found is not None
    first = found.rows.iloc[0]
    assert (first["worst_arm"], first["best_arm"]) == ("unet", "unetpp")
    assert (first["lowest"], first["highest"]) == pytest.approx((0.02, 0.12))
    assert first["mean"] == pytest.approx(0.07)
    assert first["reference"] == 1000
    assert first["dice_unetpp"] == pytest.approx(0.12)


def test_the_median_has_as_many_below_as_above() -> None:
    found = worst_cases(_study(31))
    assert found is not None
    assert found.rows.set_index("why").loc["median", "case"] == "15"


def test_cases_that_an_arm_lacks_cannot_be_chosen() -> None:
    rows = [row("unet", "a", 0.0), row("unet", "b", 0.5), row("unetpp", "b", 0.5)]
    rows += [counts("unetpp", "a", 0, 0, 0)]
    found = worst_cases(make_records(rows))
    assert found is not None
    assert found.rows["case"].tolist() == ["b"]
    assert found.rows["why"].tolist() == ["worst 1, median, best"]


def test_the_rule_is_printed(tmp_path: Path) -> None:
    found = section(_study(), tmp_path)
    assert found is not None
    (table,) = found.tables
    assert "the 10 lowest by mean Dice over the arms among the 15 cases" in table.notes[0]
    assert "ties go to the first name" in table.notes[0]


def test_the_csv_of_the_figure_holds_every_case(study: StudyRecords) -> None:
    data = case_scores_frame(study)
    assert len(data) == 40
    cases = study.cases[(study.cases["case"] == "case_005") & (study.cases["arm"] == "unetpp")]
    dice = 2 * cases["tp"] / (2 * cases["tp"] + cases["fp"] + cases["fn"])
    row_ = data[data["case"] == "case_005"].iloc[0]
    assert row_["dice_unetpp"] == pytest.approx(dice.iloc[0])


def test_thinning_keeps_the_extremes_and_the_order() -> None:
    values = np.random.default_rng(0).random(5000)
    shown = thinned(values)
    assert len(shown) == 400
    assert (shown[0], shown[-1]) == (values.min(), values.max())
    assert (np.diff(shown) >= 0).all()
    assert abs(np.median(shown) - np.median(values)) < 0.01


def test_gains_are_drawn_beside_the_scores(study: StudyRecords) -> None:
    with mpl.rc_context():
        figure = draw_case_scores(study, case_scores_frame(study))
    left, right = figure.axes
    assert len(left.get_yticklabels()) == 6
    # Points, whiskers, median and mean of every arm; on the right a zero line and no baseline.
    assert len(left.lines) == 6 * 4
    assert len(right.lines) == 5 * 4 + 1


def test_a_study_without_cases_has_no_section(study: StudyRecords, tmp_path: Path) -> None:
    assert section(replace(study, cases=study.cases.head(0)), tmp_path) is None
