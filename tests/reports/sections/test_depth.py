from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from make_scores import by, make_scored, noise

from reports.plots.depth_per_dataset import caption, draw_depth_per_dataset
from reports.records import StudyRecords
from reports.sections.depth import depth_table, section, table_rows
from studies import depth, pruning, qualitative

_DICE = {"L1": 0.6, "L2": 0.75, "L3": 0.80, "L4": 0.795, "mean": 0.82}


def _score(arm: str, output: str, seed: int, fold: int) -> float:
    return _DICE[output] + noise("fold", fold) + noise(arm, output, fold, seed, scale=0.004)


@pytest.fixture(scope="module")
def study() -> StudyRecords:
    return make_scored(depth.STUDY, _score, num_seeds=2)


def test_rows_are_the_depths_and_the_network_of_all_depths(study: StudyRecords) -> None:
    rows = table_rows(study)
    assert list(rows["title"]) == ["U-Net L1", "U-Net L2", "U-Net L3", "U-Net L4", "UNet^e DS"]
    assert list(rows["best"]) == [False, False, True, False, False]
    np.testing.assert_allclose(rows["dice_mean"], list(_DICE.values()), atol=0.02)


def test_the_ensemble_is_compared_with_the_best_depth(study: StudyRecords) -> None:
    rows = by(table_rows(study), "arm")
    row = rows["unet_e"]
    assert row["delta_best"] == pytest.approx(row["dice_mean"] - rows["unet_l3"]["dice_mean"])
    assert row["curve_folds"] == 10
    assert not row["best"]
    assert not row["shallow_enough"]


def test_holm_is_over_the_differences_of_the_table(study: StudyRecords) -> None:
    rows = table_rows(study)
    compared = rows[~rows["best"].astype(bool)]
    assert compared["p_holm"].notna().sum() == 4
    assert compared["p_holm"].min() == pytest.approx(4 * compared["p"].min())
    assert rows[rows["best"].astype(bool)]["p_holm"].isna().all()


def test_the_table_says_which_depth_the_rule_chose(study: StudyRecords) -> None:
    table = depth_table(study)
    says = {row[0].text: row[-1].text for row in table.rows}
    assert says["U-Net L3"].startswith("best")
    assert "shallow enough" in says["U-Net L3"]
    ranks = {row[0].text: row[4].rank for row in table.rows}
    assert (ranks["UNet^e DS"], ranks["U-Net L3"]) == (1, 2)


def test_one_run_is_not_tested_and_the_table_says_so() -> None:
    whole = make_scored(depth.STUDY, _score)
    table = depth_table(replace(whole, cases=whole.cases[whole.cases["fold"] == 0]))
    assert any(note.startswith("No interval and no test") for note in table.notes)


def test_the_section_draws_and_prints(study: StudyRecords, tmp_path: Path) -> None:
    found = section(study, tmp_path)
    assert found is not None
    assert (tmp_path / "depth.png").stat().st_size > 0
    assert "UNet^e" in found.figures[0].caption
    assert "L3" in found.answer[0]


def test_without_an_ensemble_nothing_is_said_of_one() -> None:
    rows = table_rows(make_scored(pruning.STUDY, _score))
    assert list(rows["title"]) == ["U-Net L1", "U-Net L2", "U-Net L3", "U-Net L4"]
    assert "UNet^e" not in caption(rows)
    assert caption() == caption(rows)


def test_the_band_is_drawn_at_the_mean_of_the_ensemble(study: StudyRecords) -> None:
    rows = table_rows(study)
    figure = draw_depth_per_dataset(rows)
    mean = by(rows, "arm")["unet_e"]["dice_mean"]
    heights = [set(np.asarray(line.get_ydata())) for line in figure.axes[0].lines]
    assert {mean} in heights


def test_a_study_of_one_depth_has_no_section(tmp_path: Path) -> None:
    assert section(make_scored(qualitative.STUDY, lambda *_: 0.7), tmp_path) is None
