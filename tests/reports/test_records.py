from pathlib import Path

import pytest
import sqlalchemy as sa
from make_study import STUDY, make_manifest, make_study
from sqlalchemy import event

from reports.records import (
    StudyRecords,
    incomplete_line,
    load_study,
    most_nested,
    num_in_edges,
    same_grid,
)
from unetpp.errors import UserError
from unetpp.store import RecordStore


def test_loads_every_run_case_epoch_and_timing(study: StudyRecords) -> None:
    assert len(study.runs) == 30
    # 41 cases; four plain arms with one output, two deep-supervised arms with five.
    assert len(study.cases) == 41 * (4 + 2 * 5)
    assert len(study.curves) == 30 * 20
    assert len(study.latencies) == 7 * (4 + 2 * 4)
    assert len(study.invocations) == 2
    assert study.missing == ()
    assert incomplete_line(study) is None


def test_ratio_is_the_mean_over_the_folds(study: StudyRecords) -> None:
    # 41 cases in folds of 9, 8, 8, 8, 8.
    assert study.test_train_ratio == pytest.approx((9 / 32 + 4 * 8 / 33) / 5)


def test_titles_are_unique_where_labels_are_not(study: StudyRecords) -> None:
    assert list(study.titles.values()) == [
        "U-Net", "wide U-Net", "UNet+", "UNet++", "UNet+ DS", "UNet++ DS",
    ]  # fmt: skip


def test_the_most_nested_arm_differs_from_the_baseline_in_the_grid_alone(
    study: StudyRecords,
) -> None:
    nested = most_nested(study)
    assert nested is not None
    assert nested.name == "unetpp"
    assert (
        num_in_edges(nested) > num_in_edges(study.arm("unet_plus")) > num_in_edges(study.baseline)
    )


def test_the_same_grid_at_other_widths_is_found(study: StudyRecords) -> None:
    assert [arm.name for arm in same_grid(study)] == ["unet", "wide_unet"]


def test_an_interrupted_study_names_what_is_missing(tmp_path: Path) -> None:
    missing = frozenset({("unetpp", 4), ("unet_plus_ds", 0), ("unet_plus_ds", 3)})
    make_study(tmp_path, missing=missing, overlays=False)
    line = incomplete_line(load_study(tmp_path))
    assert line is not None
    assert line.startswith(
        "incomplete: 3 of 30 runs are missing: UNet++ fold 5, UNet+ DS fold 1, UNet+ DS fold 4."
    )


def test_runs_of_another_recipe_are_left_out(tmp_path: Path) -> None:
    make_study(tmp_path, manifest=make_manifest(arms=("unet", "unetpp")), overlays=False)
    other = make_manifest(arms=("unet", "unetpp"), study="other", recipe_id="f" * 12)
    make_study(tmp_path, manifest=other, overlays=False)
    assert len(load_study(tmp_path, STUDY).runs) == 10


def test_several_studies_need_a_name(tmp_path: Path) -> None:
    for name in ("first", "second"):
        make_study(tmp_path, manifest=make_manifest(arms=("unet",), study=name), overlays=False)
    with pytest.raises(
        UserError, match=r"must hold one study .* holds first, second; name the one"
    ):
        load_study(tmp_path)
    with pytest.raises(UserError, match=r"study `third` must have been started .* first, second"):
        load_study(tmp_path, "third")
    assert load_study(tmp_path, "second").manifest.study == "second"


def test_a_study_without_a_finished_run_is_refused(tmp_path: Path) -> None:
    store = RecordStore.open_folder(tmp_path)
    store.put_manifest(make_manifest())
    store.close()
    with pytest.raises(UserError, match=r"at least one finished run, but study `nested_vs_plain`"):
        load_study(tmp_path)


def test_a_folder_without_records_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds `records\.sqlite`"):
        load_study(tmp_path)


def test_seeds_beside_folds_are_runs_of_their_own(tmp_path: Path) -> None:
    manifest = make_manifest(arms=("unet", "unetpp"), num_folds=2, num_seeds=2)
    make_study(tmp_path, manifest=manifest, overlays=False, missing=frozenset({("unet", 1)}))
    study = load_study(tmp_path)
    # The maker runs the first seed alone.
    assert study.num_runs == 8
    assert study.missing == (
        ("unet", 0, 1), ("unet", 1, 0), ("unet", 1, 1), ("unetpp", 1, 0), ("unetpp", 1, 1),
    )  # fmt: skip
    line = incomplete_line(study)
    assert line is not None
    assert line.startswith("incomplete: 5 of 8 runs are missing: U-Net fold 2 seed 0, U-Net fold 1")


def test_a_study_that_trains_nothing_needs_no_run(tmp_path: Path) -> None:
    manifest = make_manifest(study="diagrams", trains=False)
    store = RecordStore.open_folder(tmp_path)
    store.put_manifest(manifest)
    store.close()
    study = load_study(tmp_path)
    assert study.runs.empty
    assert study.missing == ()
    assert incomplete_line(study) is None


def test_texts_that_repeat_are_categories_and_rows_are_marked_as_judged(
    study: StudyRecords,
) -> None:
    assert all(study.cases[name].dtype == "category" for name in ("arm", "case", "output"))
    judged = study.cases[study.cases["judged"]]
    assert set(judged["output"]) == {"L4"}
    assert len(judged) == 6 * 41


def test_a_report_asks_the_store_a_few_questions_for_many_runs(folder: Path) -> None:
    asked: list[str] = []

    def note(*call: object) -> None:
        asked.append(f"{call[2]}")

    event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        study = load_study(folder)
    finally:
        event.remove(sa.Engine, "before_cursor_execute", note)
    assert len(study.runs) == 30
    # Five kinds of rows, four times each, as there are 30 runs and eight are asked for at once.
    assert sum(" IN (" in text for text in asked) <= 5 * 4 + 1
    assert len(asked) < 40
