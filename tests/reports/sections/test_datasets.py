"""Data and folds: facts of the manifest, counts of the records, and groups that cross folds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from make_evidence import case_row, make_arm, make_records, promise

from reports.records import StudyRecords
from reports.sections.datasets import (
    DATASET_COLUMNS,
    crossing_words,
    dataset_row,
    dataset_table,
    fold_rows,
    num_crossing,
    section,
)
from unetpp import grid

_ARMS = tuple(make_arm(name, grid.unet(2)) for name in ("unet", "other"))


def _study(groups: str = "aabbcc", folds: str = "001122", **data: Any) -> StudyRecords:
    """Case k of group groups[k] is held out in fold folds[k]; the first case is empty."""
    manifest = promise(_ARMS, baseline="unet", num_folds=3)
    facts = {"num_cases": len(groups), "num_groups": len(set(groups)), "num_empty": 1} | data
    manifest = replace(
        manifest,
        dataset=manifest.dataset | facts,
        folds=manifest.folds | {"sizes": [2, 2, 2], "train_sizes": [4, 4, 4], "group": "patient"},
    )
    cases = [
        case_row(arm.name, f"c{k}", tp=0 if k == 0 else 100, group=group, fold=int(fold))
        for arm in _ARMS
        for k, (group, fold) in enumerate(zip(groups, folds, strict=True))
    ]
    return make_records(manifest, cases=pd.DataFrame(cases))


def test_a_row_holds_the_facts_of_the_manifest() -> None:
    study = _study(foreground_share=0.25, channels=3, classes=["cell", "edge"])
    texts = dict(zip([c.title for c in DATASET_COLUMNS], dataset_row(study), strict=True))
    assert texts["Cases"].text == "6"
    assert texts["Groups"].text == "3"
    assert texts["Channels"].text == "3"
    assert texts["Classes"].text == "cell, edge"
    assert texts["Foreground"].text == "25.0 %"
    assert texts["Empty"].text == "1"
    assert texts["Folds"].text == "3 of 2"


def test_several_data_sets_share_a_table() -> None:
    table = dataset_table([_study(), _study(name="second")])
    assert len(table.rows) == len(table.data) == 2
    assert table.title == "Data sets"


def test_folds_are_counted_over_cases_and_not_over_arms() -> None:
    frame = fold_rows(_study())
    assert frame["num_held_out"].tolist() == [2, 2, 2]
    assert frame["num_trained_on"].tolist() == [4, 4, 4]
    assert frame["num_groups"].tolist() == [1, 1, 1]
    assert frame["num_empty"].tolist() == [1, 0, 0]
    # 10,000 background pixels a case.
    assert frame["foreground_share"].tolist() == pytest.approx([100 / 20_100, *[200 / 20_200] * 2])


@pytest.mark.parametrize(
    ("groups", "folds", "crossing"),
    [
        ("aabbcc", "001122", 0),
        ("aabbcc", "010122", 2),  # a and b are on both sides of the folds 0 and 1
        ("aaaaaa", "001122", 1),
        ("abcdef", "001122", 0),
    ],
)
def test_groups_that_cross_folds_are_counted(groups: str, folds: str, crossing: int) -> None:
    assert num_crossing(_study(groups, folds)) == crossing


def test_a_repeated_cross_validation_crosses_nothing() -> None:
    first, again = _study(), _study(folds="112200")
    cases = pd.concat(
        [first.cases, again.cases.assign(fold=again.cases["fold"] + 3)], ignore_index=True
    )
    assert num_crossing(make_records(first.manifest, cases=cases)) == 0


def test_what_was_checked_is_said() -> None:
    assert "No group (column patient) crosses a fold: checked on the 3" in crossing_words(_study())
    assert "2 groups (column patient) have cases on both sides" in crossing_words(
        _study(folds="010122")
    )
    assert "Every case is a group of its own" in crossing_words(_study("abcdef"))
    study = _study()
    divided = replace(study.manifest, folds=study.manifest.folds | {"divides_groups": True})
    assert "divides groups on purpose" in crossing_words(make_records(divided))


def test_without_runs_the_manifest_alone_speaks(tmp_path: Path) -> None:
    study = make_records(_study().manifest)
    found = section(study, tmp_path)
    assert found is not None
    assert "was not checked again" in found.paragraphs[1]
    assert [cell.text for cell in found.tables[1].rows[0]] == ["1", "2", "n/a", "4", "n/a", "n/a"]
    assert num_crossing(study) is None
