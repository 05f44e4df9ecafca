from pathlib import Path

import numpy as np
import pytest
from make_cases import by_arm, counts, make_records, row

from reports.class_scores import FIVE, class_rows
from reports.records import StudyRecords
from reports.scores import case_scores, primary_cases
from reports.sections.classes import section


def test_a_mean_over_cases_is_not_a_pooled_score() -> None:
    # The example of an image of 100 pixels and one without a hit: 0.45 against 0.818.
    study = make_records([counts("unet", "a", 90, 5, 5), counts("unet", "b", 0, 5, 5)])
    found = by_arm(class_rows(study))["unet"]
    assert found["iou_mean"] == pytest.approx(0.45)
    assert found["pooled_iou"] == pytest.approx(90 / 110)
    assert found["pooled_dice"] == pytest.approx(180 / 200)
    assert found["precision_mean"] == found["recall_mean"] == pytest.approx((90 / 95) / 2)
    assert found["specificity_mean"] == pytest.approx(9000 / 9005)


def test_case_means_are_those_of_the_folds(study: StudyRecords) -> None:
    found = by_arm(class_rows(study))
    cases = primary_cases(study)
    for name in FIVE:
        scores = case_scores(cases, name, empty="nan")
        by_fold = scores[cases["arm"] == "unetpp"].groupby(cases["fold"]).mean()
        assert found["unetpp"][f"{name}_mean"] == pytest.approx(by_fold.mean())
        assert found["unetpp"][f"{name}_sd"] == pytest.approx(by_fold.std(ddof=1))


def test_limits_of_pooled_iou_are_those_of_pooled_dice(study: StudyRecords) -> None:
    found = class_rows(study)
    for end in ("", "_low", "_high"):
        dice = found[f"pooled_dice{end}"]
        np.testing.assert_allclose(found[f"pooled_iou{end}"], dice / (2 - dice))
    assert (found["pooled_dice_low"] < found["pooled_dice"]).all()
    assert (found["pooled_dice"] < found["pooled_dice_high"]).all()


def test_every_class_has_a_table_of_its_own(tmp_path: Path) -> None:
    rows = [
        row(arm, f"{case}", 0.5 + 0.2 * (label == 2), label=label)
        for arm in ("unet", "unetpp")
        for case in range(3)
        for label in (1, 2)
    ]
    found = section(make_records(rows, classes=["liver", "tumour"]), tmp_path)
    assert found is not None
    assert [table.name for table in found.tables] == ["classes_1", "classes_2"]
    assert [table.title for table in found.tables] == ["Class liver", "Class tumour"]
    assert [table.rows[0][1].text for table in found.tables] == ["0.500", "0.700"]


def test_best_and_second_are_within_a_class(study: StudyRecords, tmp_path: Path) -> None:
    found = section(study, tmp_path)
    assert found is not None
    (table,) = found.tables
    best = int(table.data["pooled_dice"].to_numpy().argmax())
    assert [line[6].rank for line in table.rows].index(1) == best
    text = " ".join(table.notes)
    for part in (
        "precision = TP / (TP + FP)",
        "unit: case",
        "40 scored (case and run)",
        "percentile",
    ):
        assert part in text


def test_a_class_that_never_occurs_shows_no_number_in_place_of_none(tmp_path: Path) -> None:
    rows = [row(arm, "a", 0.5) for arm in ("unet", "unetpp")]
    rows += [counts(arm, "a", 0, 0, 0, label=2) for arm in ("unet", "unetpp")]
    found = section(make_records(rows, classes=["x", "y"]), tmp_path)
    assert found is not None
    assert [cell.text for cell in found.tables[1].rows[0][1:4]] == ["n/a"] * 3
