import math
from dataclasses import replace
from pathlib import Path

import pytest
from make_cases import counts, make_records, row

from reports.case_table import case_table
from reports.comparison import result_rows
from reports.document import Table
from reports.new_case_table import new_cases_table
from reports.records import StudyRecords
from reports.sections.comparison import result_table, section
from reports.writers import latex, markdown, terminal


def _tables(study: StudyRecords, folder: Path) -> dict[str, Table]:
    found = section(study, folder)
    assert found is not None
    return {table.name: table for table in found.tables}


def _column(table: Table, title: str) -> list:
    at = [column.title for column in table.columns].index(title)
    return [line[at] for line in table.rows]


def _shifted(gain: float, spread: float, *, num_folds: int = 5) -> StudyRecords:
    """UNet++ above U-Net by about `gain` in every fold, with eight cases a fold."""
    wobble = [spread * (k % 3 - 1) for k in range(8 * num_folds)]
    return make_records(
        [
            row(arm, f"{k:02d}", round(0.6 + (gain + wobble[k] if arm == "unetpp" else 0), 3), fold=k % num_folds)
            for k in range(8 * num_folds)
            for arm in ("unet", "unetpp")
        ]
    )  # fmt: skip


def test_a_clear_loss_is_marked_worse_and_no_tie_is_claimed(tmp_path: Path) -> None:
    tables = _tables(_shifted(-0.1, 0.003), tmp_path)
    dice, delta = _column(tables["result"], "Dice"), _column(tables["result"], "Delta Dice [95 %]")
    assert [(cell.rank, cell.mark) for cell in dice] == [(1, ""), (0, "")]
    assert [cell.mark for cell in delta] == ["", "worse"]
    assert delta[0].text == "baseline"
    assert _column(tables["new_cases"], "Delta Dice [95 %]")[0].mark == "worse"
    assert _column(tables["posterior"], "P(worse)")[0].text == "1.000"


def test_what_is_not_told_from_the_best_is_tied_with_it(tmp_path: Path) -> None:
    tables = _tables(_shifted(0.005, 0.05), tmp_path)
    assert [cell.mark for cell in _column(tables["result"], "Dice")] == ["tie", ""]
    text = " ".join(tables["result"].notes)
    assert "compares with UNet++, the best mean Dice" in text
    assert "Holm over 1 comparison with it" in text


def test_both_inferences_say_which_question_they_answer(
    study: StudyRecords, tmp_path: Path
) -> None:
    tables = _tables(study, tmp_path)
    assert list(tables) == ["result", "new_cases", "posterior"]
    retrained, new = (" ".join(tables[name].notes) for name in ("result", "new_cases"))
    for part in (
        "corrected resampled t",
        "n_test/n_train = 0.250",
        "two-sided p",
        "5 comparisons of Dice with U-Net (wide U-Net, UNet+, UNet++, UNet+ DS, UNet++ DS)",
        "Dice = 2 TP / (2 TP + FP + FN)",
        "41 cases were scored, 1 with an empty reference; 1 scores",
        "L4 of every arm",
        "standard deviation over 5 runs (5 folds x 1 seed)",
    ):
        assert part in retrained
    for part in (
        "bootstrap over groups (2,000 draws, seed 0",
        "sign-flip",
        "smallest p it can give is 0.0001",
    ):
        assert part in new
    assert "retrain" not in new
    assert "Trained again" in tables["result"].title
    assert "On new cases" in tables["new_cases"].title


def test_few_groups_get_no_star_and_are_told_why(tmp_path: Path) -> None:
    study = make_records(
        [
            row(arm, f"{k}", 0.5 + (0.1 if arm == "unetpp" else 0), fold=k % 2)
            for k in range(4)
            for arm in ("unet", "unetpp")
        ]
    )
    table = _tables(study, tmp_path)["new_cases"]
    assert [cell.text for cell in _column(table, "p")] == ["n/a"]
    text = " ".join(table.notes)
    assert (
        "with 4 groups, those without a difference left out, its smallest two-sided p is 0.125"
        in text
    )
    assert "No interval with fewer than 6 groups." in text
    assert "bootstrap" not in text


def test_many_comparisons_on_few_groups_are_told_to_be_hopeless(tmp_path: Path) -> None:
    arms = ("unet", "unetpp", "unet_plus")
    study = make_records(
        [
            row(arm, f"{k}", 0.5 + 0.01 * (k + 1) * arms.index(arm), fold=k % 2)
            for k in range(6)
            for arm in arms
        ],
        arms=arms,
    )
    text = " ".join(_tables(study, tmp_path)["new_cases"].notes)
    assert "smallest Holm p of the best of them is 0.062" in text


def test_one_run_has_no_test_and_no_deviation(tmp_path: Path) -> None:
    study = make_records([row(arm, "a", 0.5) for arm in ("unet", "unetpp")])
    # One fold: as many training as held-out cases, so that there is a ratio.
    folds = study.manifest.folds | {"train_sizes": [1]}
    study = replace(study, manifest=replace(study.manifest, folds=folds))
    tables = _tables(study, tmp_path)
    assert "posterior" not in tables
    assert any(note.startswith("No interval and no test") for note in tables["result"].notes)
    assert "significant" not in " ".join(tables["result"].notes)


def test_a_single_arm_has_a_table_and_no_comparison(tmp_path: Path) -> None:
    study = make_records([row("unet", f"{k}", 0.5, fold=k) for k in range(2)], arms=("unet",))
    found = section(study, tmp_path)
    assert found is not None
    assert [table.name for table in found.tables] == ["result"]
    assert found.figures == ()


def test_empty_references_add_two_columns(tmp_path: Path) -> None:
    rows = [row(arm, f"{k}", 0.5, fold=k) for k in range(2) for arm in ("unet", "unetpp")]
    rows += [counts("unet", "e", 0, 30, 0), counts("unetpp", "e", 0, 0, 0)]
    table = _tables(make_records(rows), tmp_path)["result"]
    assert [cell.text for cell in _column(table, "FP rate")] == ["100.0 %", "0.0 %"]
    assert [cell.text for cell in _column(table, "FP pixels")] == ["30.0", "0.0"]
    assert table.data["mean_false_pixels"].tolist() == [30, 0]


def test_means_of_other_runs_are_not_ranked() -> None:
    rows = [row("unet", f"{k}", 0.5, fold=k) for k in range(3)]
    rows += [row("unetpp", f"{k}", 0.9, fold=k) for k in range(2)]
    study = make_records(rows)
    table = result_table(study, result_rows(study))
    assert {cell.rank for cell in _column(table, "Dice")} == {0}
    assert {cell.mark for cell in _column(table, "Dice")} == {""}
    assert "different numbers of runs" in " ".join(table.notes)


def test_limits_beyond_one_are_cut_and_the_cut_is_told(tmp_path: Path) -> None:
    gains = {0: 0.4, 1: -0.3}
    study = make_records(
        [
            row(arm, f"{k}", 0.5 + (gains[k] if arm == "unetpp" else 0), fold=k)
            for k in range(2)
            for arm in ("unet", "unetpp")
        ]
    )
    table = _tables(study, tmp_path)["result"]
    assert _column(table, "Delta Dice [95 %]")[1].spread == "[-1.000, +1.000]"
    assert "cut at ±1" in " ".join(table.notes)
    assert table.data["delta_low"].min() < -1


def test_the_csv_holds_what_is_printed(study: StudyRecords, tmp_path: Path) -> None:
    for table in _tables(study, tmp_path).values():
        assert len(table.data) == len(table.rows)
        for write in (terminal, markdown):
            assert write(table)
        assert latex(table, label="x")
    rows = result_rows(study)
    assert math.isnan(rows["delta_dice"].iloc[0])


def test_the_figure_shows_every_run_once(tmp_path: Path) -> None:
    found = section(_shifted(0.1, 0.01), tmp_path)
    assert found is not None
    (figure,) = found.figures
    assert len(figure.files[-1].read_text().splitlines()) == 1 + 5
    assert "5 runs (5 folds x 1 seed)" in figure.caption


def test_unfinished_studies_have_no_result(study: StudyRecords, tmp_path: Path) -> None:
    assert section(replace(study, runs=study.runs.head(0)), tmp_path) is None


@pytest.mark.parametrize("seeds", [1, 3])
def test_seeds_are_named_where_there_are_several(seeds: int, tmp_path: Path) -> None:
    rows = [
        row(arm, f"{fold}", round(0.5 + 0.01 * seed + 0.02 * fold + 0.05 * (arm == "unetpp"), 3), fold=fold, seed=seed)
        for arm in ("unet", "unetpp")
        for seed in range(seeds)
        for fold in range(3)
    ]  # fmt: skip
    tables = _tables(make_records(rows), tmp_path)
    assert ("averaged over seeds" in " ".join(tables["new_cases"].notes)) == (seeds > 1)
    assert f"{3 * seeds} runs (3 folds x {seeds} seed" in " ".join(tables["result"].notes)


@pytest.mark.parametrize(
    ("divided", "words"), [(False, "what no fold divides"), (True, "which are blocks, divide it")]
)
def test_groups_that_blocks_divide_are_said_to_be_divided(
    study: StudyRecords, *, divided: bool, words: str
) -> None:
    folds = {**study.manifest.folds, "divides_groups": divided}
    changed = replace(study, manifest=replace(study.manifest, folds=folds))
    table = new_cases_table(changed, case_table(changed))
    assert table is not None
    [groups] = [column for column in table.columns if column.title == "Groups"]
    assert words in groups.explained
