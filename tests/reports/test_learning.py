import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from make_scores import by, make_scored, noise
from scipy import stats

from reports.learning import curve_rows, ending_rows
from reports.records import StudyRecords
from studies import learning_curves

EPOCHS = 20


def make_curves(
    dice: Callable[[str, int, int, int], float], *, num_seeds: int = 2, step: int = 1
) -> StudyRecords:
    """Records whose held-out Dice by (arm, seed, fold, epoch) is given, looked at every `step`."""
    study = make_scored(learning_curves.STUDY, lambda *_: 0.8, num_seeds=num_seeds)
    rows = [
        {
            "arm": arm.name, "seed": seed, "fold": fold, "epoch": epoch, "train_loss": 1 / epoch,
            "held_out_loss": math.nan, "seconds": 1.0,
            "held_out_dice": dice(arm.name, seed, fold, epoch) if epoch % step == 0 else math.nan,
        }
        for arm in study.arms
        for seed in range(num_seeds)
        for fold in range(5)
        for epoch in range(1, EPOCHS + 1)
    ]  # fmt: skip
    return replace(study, curves=pd.DataFrame(rows))


def _steady(arm: str, seed: int, fold: int, epoch: int) -> float:
    """U-Net rises by 0.002 an epoch, in some folds a little faster; UNet++ not; its DS falls."""
    slope = {"unet": 0.002 + 0.0001 * fold, "unetpp": 0.0, "unetpp_ds": -0.001 - 0.0001 * fold}
    wobble = noise(seed, fold, "wobble", scale=0.0005) if arm == "unetpp" else 0.0
    return 0.5 + (slope[arm] + wobble) * epoch + 0.01 * fold + 0.004 * seed


def test_line_and_bands_are_over_runs() -> None:
    study = make_curves(lambda _, seed, fold, epoch: 0.1 * fold + 0.01 * seed + 0.001 * epoch)
    rows = curve_rows(study)
    row = rows[(rows["arm"] == "unet") & (rows["quantity"] == "held_out_dice")].iloc[4]
    values = np.array([0.1 * f + 0.01 * s + 0.005 for s in (0, 1) for f in range(5)])
    half = stats.t.ppf(0.975, 9) * values.std(ddof=1) * math.sqrt(1 / 10 + 0.25)
    assert (row["epoch"], row["num_runs"]) == (5, 10)
    assert row["mean"] == pytest.approx(values.mean())
    assert row["high"] == pytest.approx(values.mean() + half)
    assert (row["least"], row["most"]) == (pytest.approx(0.005), pytest.approx(0.415))


def test_what_was_not_computed_has_no_row() -> None:
    rows = curve_rows(make_curves(lambda *_: 0.5, step=5))
    assert "held_out_loss" not in set(rows["quantity"])
    dice = rows[(rows["arm"] == "unet") & (rows["quantity"] == "held_out_dice")]
    assert list(dice["epoch"]) == [5, 10, 15, 20]
    assert list(rows["arm"].unique()) == ["unet", "unetpp", "unetpp_ds"]


def test_slopes_of_the_last_quarter_tell_who_still_rises() -> None:
    frame = ending_rows(make_curves(_steady))
    assert set(frame["first_epoch"]) == {16}
    assert set(frame["last_epoch"]) == {20}
    rows = by(frame, "arm")
    # Four steps from epoch 16 to 20; the mean over folds of 0.002 + 0.0001 fold is 0.0022.
    assert rows["unet"]["change"] == pytest.approx(4 * 0.0022)
    assert rows["unetpp_ds"]["change"] == pytest.approx(-4 * 0.0012)
    assert rows["unet"]["p_holm"] < 0.05
    assert rows["unetpp"]["p_holm"] > 0.05
    assert rows["unetpp"]["change_low"] < 0 < rows["unetpp"]["change_high"]


def test_what_came_before_the_last_quarter_is_nothing_to_its_slope() -> None:
    early = make_curves(lambda arm, s, f, epoch: _steady(arm, s, f, epoch) - 0.3 * (epoch < 16))
    pd.testing.assert_frame_equal(ending_rows(early), ending_rows(make_curves(_steady)))


def test_seeds_and_folds_spread_apart() -> None:
    study = make_curves(lambda _, seed, fold, epoch: 0.5 + 0.1 * fold + 0.02 * seed)
    row = ending_rows(study).iloc[0]
    assert row["sd_folds"] == pytest.approx(np.std([0.0, 0.1, 0.2, 0.3, 0.4], ddof=1))
    assert row["sd_seeds"] == pytest.approx(0.02 / math.sqrt(2))
    one = ending_rows(make_curves(_steady, num_seeds=1)).iloc[0]
    assert math.isnan(one["sd_seeds"])


def test_a_last_quarter_with_one_look_has_no_slope() -> None:
    rows = ending_rows(make_curves(_steady, step=5))
    assert rows["change"].isna().all()
    assert rows["p_holm"].isna().all()
    assert rows["dice_mean"].notna().all()


def test_no_curves_have_no_rows() -> None:
    study = make_scored(learning_curves.STUDY, lambda *_: 0.8)
    assert curve_rows(study).empty
    assert ending_rows(study).empty
