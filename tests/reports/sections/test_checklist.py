from dataclasses import replace
from pathlib import Path

import pandas as pd
from make_cases import make_records, row

from reports.checklist import Item, checklist, spec_changes
from reports.records import StudyRecords
from reports.sections.checklist import section


def _item(study: StudyRecords, number: int) -> Item:
    return checklist(study)[number - 1]


def test_there_are_eighteen_items_and_none_is_empty(study: StudyRecords, tmp_path: Path) -> None:
    found = section(study, tmp_path)
    assert found is not None
    (table,) = found.tables
    assert [line[0].text for line in table.rows] == [str(k) for k in range(1, 19)]
    assert all(cell.text for line in table.rows for cell in line)


def test_data_and_folds_are_those_of_the_records(study: StudyRecords) -> None:
    data, folds = _item(study, 1), _item(study, 2)
    cases = study.cases[study.cases["judged"]]
    share = (cases["tp"] + cases["fn"]).sum() / cases[["tp", "fp", "fn", "tn"]].to_numpy().sum()
    for part in (
        "41 cases in 41 groups",
        f"foreground {100 * share:.1f} %",
        "1 case without foreground",
        "d" * 12,
    ):
        assert part in data.value
    assert "held-out cases (groups), fold by fold: 9 (9), 8 (8), 8 (8), 8 (8), 8 (8)" in folds.value
    assert "none of 41 groups lies in two folds" in folds.value
    assert (data.status, folds.status) == ("yes", "yes")


def test_a_group_in_two_folds_is_a_fault() -> None:
    study = make_records([row("unet", f"{k}", 0.5, fold=k, group="g") for k in range(2)])
    assert "1 of 1 group lies in several folds" in _item(study, 2).value
    assert _item(study, 2).status == "in part"


def test_arms_that_change_more_than_one_field_are_flagged(study: StudyRecords) -> None:
    assert spec_changes(study, "unetpp") == ["inputs"]
    assert sorted(spec_changes(study, "wide_unet")) == ["encoder", "widths"]
    value = _item(study, 3).value
    assert "UNet++: inputs;" in value
    flagged = value.split("More than one field: ")[1]
    assert "wide U-Net" in flagged
    assert "UNet++ DS" in flagged
    assert "UNet++," not in flagged


def test_unknown_memory_is_said_to_be_unknown(study: StudyRecords) -> None:
    assert "training memory not available" in _item(study, 4).value
    known = tuple(replace(arm, training_memory=1) for arm in study.arms)
    other = replace(study, manifest=replace(study.manifest, arms=known))
    assert "not available" not in _item(other, 4).value
    assert (_item(study, 4).status, _item(other, 4).status) == ("in part", "yes")


def test_missing_runs_are_listed_and_not_dropped(study: StudyRecords) -> None:
    assert "30 of 30 runs" in _item(study, 7).value
    assert "none is missing" in _item(study, 7).value
    partial = replace(study, missing=(("unet", 0, 3),))
    assert "1 are missing" in _item(partial, 7).value


def test_what_was_not_recorded_is_not_claimed(study: StudyRecords) -> None:
    bare = replace(
        study, latencies=study.latencies.head(0), overlays=None, curves=study.curves.head(0)
    )
    assert _item(study, 15).status == "yes"
    assert _item(bare, 15).status == "no"
    assert _item(study, 13).status == "yes"
    assert "Overlays are not available" in _item(bare, 13).value
    assert _item(bare, 14).status == "in part"
    assert "not recorded" in _item(study, 8).value


def test_a_published_value_and_a_nested_score_are_never_invented(study: StudyRecords) -> None:
    assert _item(study, 17).status == "no"
    assert _item(study, 17).value.startswith("Not available: no published score of U-Net")
    assert "nested or external score is not available" in _item(study, 6).value


def test_the_ratio_of_spreads_is_flagged_below_one(study: StudyRecords) -> None:
    assert "below 1: differences lie inside the noise" in _item(study, 18).value
    one = make_records([row("unet", "a", 0.5)])
    assert _item(one, 18).value.startswith("Not available")


def test_too_few_groups_rank_by_other_rules_only() -> None:
    study = make_records(
        [row(arm, f"{k}", 0.5, fold=k % 2) for k in range(4) for arm in ("unet", "unetpp")]
    )
    assert _item(study, 12).status == "in part"
    assert (
        _item(make_records([row("unet", "a", 0.5)], arms=("unet",)), 12).status == "not applicable"
    )


def test_no_revision_is_in_part(study: StudyRecords) -> None:
    runs = study.runs.assign(revision="")
    assert isinstance(runs, pd.DataFrame)
    assert _item(replace(study, runs=runs), 16).status == "in part"


def test_a_study_without_runs_has_no_checklist(study: StudyRecords, tmp_path: Path) -> None:
    assert section(replace(study, runs=study.runs.head(0)), tmp_path) is None
