"""The answer to how deep a network must be, in sentences, in a table and in the figure."""

import re
from pathlib import Path

import pandas as pd
import pytest
from make_depth import SCORES, make_depth_study

from reports.depth import depth_rows
from reports.depth_texts import curves_table, depth_verdict
from reports.plots.depth_per_dataset import draw_depth_per_dataset
from reports.records import load_study
from reports.writers import terminal

# Every depth differs from the next by far more than the folds do.
_STEEP = {
    arm: tuple(0.2 * depth + 0.001 * (fold * depth % 3) for fold in range(5))
    for arm, depth in ((arm, int(arm[-1])) for arm in SCORES)
}


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Two data sets, one of them steep."""
    parent = tmp_path_factory.mktemp("depths")
    make_depth_study(parent / "cells")
    make_depth_study(parent / "deep", scores=_STEEP)
    return depth_rows([(name, load_study(parent / name)) for name in ("cells", "deep")])


def test_the_dice_of_every_depth_is_the_one_that_was_recorded(rows: pd.DataFrame) -> None:
    own = rows[rows["data"] == "cells"]
    assert len(own) == 8
    for row in own.to_dict("records"):
        scores = SCORES[row["arm"]]
        assert row["dice_mean"] == pytest.approx(sum(scores) / 5)
        assert row["dice_low"] < row["dice_mean"] < row["dice_high"]
        assert row["shared"] == (row["depth"] == 1)


def test_the_answer_names_the_shallowest_depth_that_is_enough(rows: pd.DataFrame) -> None:
    verdict = depth_verdict(rows)
    assert verdict[:2] == [
        "U-Net, shallow enough: L2 on cells, L4 on deep.",
        "UNet++, shallow enough: L4 on cells, L4 on deep.",
    ]
    assert verdict[2].startswith(
        "On cells, U-Net has its best Dice at L3 (0.802), and L2 is shallow enough: it is 0.003 "
        "below it (95 % interval "
    )
    low = re.search(r"interval -(\d\.\d{3}) to", verdict[2])
    assert low
    assert f"cannot tell from zero, though they do not rule out a loss of {low[1]};" in verdict[2]
    assert verdict[3].startswith(
        "On cells, UNet++ needs L4 (0.852), its best depth: every shallower one can be told from "
        "it; the nearest, L3, is 0.050 below it (95 % interval "
    )


def test_a_best_depth_of_1_is_said_to_be_the_shallowest(tmp_path: Path) -> None:
    falling = {arm: tuple(1 - value for value in row) for arm, row in _STEEP.items()}
    make_depth_study(tmp_path / "easy", scores=falling)
    sentence = depth_verdict(depth_rows([("easy", load_study(tmp_path / "easy"))]))[0]
    assert sentence.startswith("On easy, U-Net has its best Dice at its shallowest depth, L1 (0.7")


def test_one_run_gives_no_interval(tmp_path: Path) -> None:
    gone = frozenset((arm, fold) for arm in SCORES for fold in range(1, 5))
    make_depth_study(tmp_path / "one", missing=gone)
    verdict = depth_verdict(depth_rows([("one", load_study(tmp_path / "one"))]))
    assert "On one, U-Net has its best Dice at L3 (0.800); one run gives no interval." in verdict


def test_a_depth_that_never_ran_leaves_its_family_undecided(tmp_path: Path) -> None:
    gone = frozenset({("unetpp_l4", fold) for fold in range(5)} | {("unet_l4", 2)})
    make_depth_study(tmp_path / "half", missing=gone)
    rows = depth_rows([("half", load_study(tmp_path / "half"))])
    verdict = depth_verdict(rows)
    assert "On half, no run has all depths of UNet++ yet, so they cannot be compared." in verdict
    assert set(rows.loc[rows["family"] == "U-Net", "curve_folds"]) == {4}


def test_the_table_has_a_row_a_curve(rows: pd.DataFrame) -> None:
    table = curves_table(rows, name="depths")
    texts = [[cell.text for cell in row] for row in table.rows]
    assert [(row[0], row[1], row[-3], row[-2]) for row in texts] == [
        ("cells", "U-Net", "L3", "L2"),
        ("cells", "UNet++", "L4", "L4"),
        ("deep", "U-Net", "L4", "L4"),
        ("deep", "UNet++", "L4", "L4"),
    ]
    assert texts[0][2:6] == ["0.600", "0.799", "0.802", "0.782"]
    assert (texts[0][-1], texts[1][-1]) == ("-0.003", "")
    # By hand: sd of the five folds 0.0079, t of 4 degrees 2.776, sqrt(1/5 + 1/4).
    assert table.rows[0][2].spread == "[0.585, 0.615]"
    # The folds of L3 are all equal: they have no spread to tell of.
    assert table.rows[2][4].spread == ""
    assert [cell.rank for cell in table.rows[0][2:6]] == [0, 0, 1, 0]
    assert max(map(len, terminal(table).splitlines())) <= 80


def test_the_figure_rings_the_depth_that_is_enough_in_every_panel(rows: pd.DataFrame) -> None:
    figure = draw_depth_per_dataset(rows)
    assert [axes.get_title() for axes in figure.axes[:2]] == ["cells", "deep"]
    for axes, name in zip(figure.axes[:2], ("cells", "deep"), strict=True):
        rings = [line for line in axes.lines if line.get_markersize() >= 10]
        chosen = rows[(rows["data"] == name) & rows["shallow_enough"]]
        assert [round(float(ring.get_xdata()[0])) for ring in rings] == chosen["depth"].tolist()  # pyright: ignore[reportArgumentType, reportIndexIssue]


@pytest.mark.parametrize("number", [1, 4])
def test_any_number_of_data_sets_has_its_panels(rows: pd.DataFrame, number: int) -> None:
    own = rows[rows["data"] == "cells"]
    several = pd.concat([own.assign(data=f"set {k}") for k in range(number)], ignore_index=True)
    shown = [axes for axes in draw_depth_per_dataset(several).axes if axes.get_visible()]
    assert len(shown) == 2 * number
