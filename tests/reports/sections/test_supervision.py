"""Training by output: every cell is its mean, and is compared with one cell."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from make_evidence import at, case_row, make_arm, make_records, promise

from reports.plots.supervision import supervised_arms, supervision_cells
from reports.records import StudyRecords
from reports.sections.supervision import section
from unetpp import grid

_ENCODER = grid.plain_encoder(2, width=4)
_DEEP = grid.unetpp(_ENCODER, deep_supervision=True)
_ARMS = (
    make_arm("last", grid.unetpp(_ENCODER), label="last head", levels={"supervision": "last"}),
    make_arm("equal", _DEEP, label="equal weights", levels={"supervision": "equal"}),
    make_arm(
        "decayed",
        replace(_DEEP, supervision="decayed"),
        label="halving weights",
        levels={"supervision": "decayed"},
    ),
)
# Pixels missed of 1000.
_MISSED = {
    ("last", "L2"): 100,
    ("equal", "L1"): 300, ("equal", "L2"): 100, ("equal", "mean"): 80,
    ("decayed", "L1"): 350, ("decayed", "L2"): 60, ("decayed", "mean"): 70,
}  # fmt: skip


def _study(arms: tuple = _ARMS) -> StudyRecords:
    names = [arm.name for arm in arms]
    cases = [
        case_row(
            arm, f"c{fold}", tp=1000 - lost, fn=lost, fp=lost, fold=fold, output=output,
            judged=output == "L2",
        )
        for (arm, output), missed in _MISSED.items()
        if arm in names
        for fold in range(5)
        for lost in [missed + 10 * fold + (fold % 2 if arm != "last" else 0)]
    ]  # fmt: skip
    runs = [
        {"arm": arm, "fold": fold, "seed": 0, "primary_output": "L2"}
        for arm in names
        for fold in range(5)
    ]
    return make_records(
        promise(arms, baseline="last"), cases=pd.DataFrame(cases), runs=pd.DataFrame(runs)
    )


def test_cells_are_means_over_runs() -> None:
    frame = supervision_cells(_study()).set_index(["arm", "output"])
    assert list(frame.index) == list(_MISSED)
    np.testing.assert_allclose(at(frame, ("last", "L2"), "dice_mean"), 0.9 - 0.02)
    np.testing.assert_allclose(at(frame, ("equal", "mean"), "dice_mean"), 0.92 - 0.0204)
    np.testing.assert_allclose(
        at(frame, ("last", "L2"), "dice_sd"), np.std(np.arange(5) / 100, ddof=1)
    )


def test_every_cell_but_one_is_compared_with_that_one() -> None:
    frame = supervision_cells(_study()).set_index(["arm", "output"])
    assert frame["is_baseline"].tolist() == [True] + [False] * 6
    assert np.isnan(at(frame, ("last", "L2"), "delta_dice"))
    assert frame["p_holm"].notna().sum() == 6
    np.testing.assert_allclose(at(frame, ("decayed", "L2"), "delta_dice"), 0.04 - 0.0004)
    # A difference of noise alone: 0, 1, 0, 1, 0 pixels more are missed.
    assert at(frame, ("equal", "L2"), "p_holm") > 0.05
    smallest = frame["p"].min()
    assert frame["p_holm"].min() == 6 * smallest


def test_a_study_that_does_not_vary_it_has_no_section(tmp_path: Path) -> None:
    study = _study(_ARMS[:1])
    assert supervised_arms(study) == []
    assert section(study, tmp_path) is None


def test_the_tables_mark_the_best_output_of_each_training(tmp_path: Path) -> None:
    found = section(_study(), tmp_path)
    assert found is not None
    means, gaps = found.tables
    assert [column.title for column in means.columns] == ["Trained with", "L1", "L2", "mean of all"]
    bold = [[cell.strong for cell in row[1:]] for row in means.rows]
    # With a single output there is nothing to choose.
    assert bold == [[False] * 3, [False, False, True], [False, True, False]]
    assert means.rows[0][1].text == "n/a"
    assert "the best of all is halving weights, read at L2" in means.notes[0]
    assert gaps.rows[0][3].text == "baseline"
    assert [row[3].mark for row in gaps.rows] == ["", "worse", "", "", "worse", "", ""]
    assert "over the 6 cells" in gaps.notes[1]
    assert found.figures[0].files
    assert "3 lie significantly above it and 2 below" in found.answer[0]
