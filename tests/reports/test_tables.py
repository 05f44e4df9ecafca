import math
from collections.abc import Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from make_study import make_manifest, make_study
from scipy import stats

from reports.cells import num_decimals
from reports.comparison import comparable, result_rows
from reports.heads import head_rows
from reports.price import network_rows
from reports.records import StudyRecords, load_study
from reports.sections.comparison import result_table
from unetpp import budget, grid
from unetpp.spec import GridSpec


def caption(study: StudyRecords) -> tuple[str, ...]:
    """The sentences below the result table."""
    return result_table(study, result_rows(study)).notes


def _fold_dice(study: StudyRecords, arm: str) -> np.ndarray:
    """Mean Dice per fold, counted by hand."""
    folds: dict[int, list[float]] = {}
    for row in study.cases.to_dict("records"):
        below = 2 * row["tp"] + row["fp"] + row["fn"]
        if row["arm"] == arm and row["output"] == "L4" and below:
            folds.setdefault(row["fold"], []).append(2 * row["tp"] / below)
    return np.array([sum(folds[k]) / len(folds[k]) for k in sorted(folds)])


def _by_arm(rows: pd.DataFrame) -> dict[str, dict[Hashable, Any]]:
    return {row["arm"]: row for row in rows.to_dict("records")}


@pytest.mark.parametrize("arm", ["unet", "unetpp", "unetpp_ds"])
def test_every_number_of_a_row_equals_its_recomputation(study: StudyRecords, arm: str) -> None:
    row = _by_arm(result_rows(study))[arm]
    scores, baseline = _fold_dice(study, arm), _fold_dice(study, "unet")
    assert row["num_runs"] == 5
    assert row["dice_mean"] == pytest.approx(scores.mean())
    assert row["dice_sd"] == pytest.approx(scores.std(ddof=1))
    assert row["train_hours"] == pytest.approx((60 + 61 + 62 + 63 + 64) / 3600)
    if arm == "unet":
        assert math.isnan(row["delta_dice"])
        assert math.isnan(row["p"])
        return
    d = scores - baseline
    error = math.sqrt(d.var(ddof=1) * (1 / 5 + (9 / 32 + 4 * 8 / 33) / 5))
    assert row["delta_dice"] == pytest.approx(d.mean())
    assert row["delta_high"] == pytest.approx(d.mean() + 2.776445105 * error)
    assert row["p"] == pytest.approx(2 * stats.t.sf(abs(d.mean()) / error, 4))


def test_the_family_is_every_arm_but_the_baseline(study: StudyRecords) -> None:
    rows = result_rows(study)
    assert rows["p"].notna().sum() == 5
    assert rows["p_holm"].min() == pytest.approx(min(1, 5 * rows["p"].min()))


def test_a_missing_fold_leaves_the_paired_difference_of_its_arm_only(
    study: StudyRecords, tmp_path: Path
) -> None:
    make_study(tmp_path, missing=frozenset({("unetpp", 4)}), overlays=False)
    rows = result_rows(load_study(tmp_path))
    partial, whole = _by_arm(rows), _by_arm(result_rows(study))
    d = (_fold_dice(study, "unetpp") - _fold_dice(study, "unet"))[:4]
    assert partial["unetpp"]["delta_runs"] == 4
    assert partial["unetpp"]["delta_dice"] == pytest.approx(d.mean())
    assert partial["unet_plus"]["delta_dice"] == whole["unet_plus"]["delta_dice"]
    # Means over different folds do not rank.
    assert not comparable(rows)


def test_one_fold_gives_means_and_no_test(tmp_path: Path) -> None:
    gone = frozenset((arm, fold) for arm in ("unet", "unetpp") for fold in range(1, 5))
    manifest = make_manifest(arms=("unet", "unetpp"))
    make_study(tmp_path, manifest=manifest, missing=gone, overlays=False)
    study = load_study(tmp_path)
    row = _by_arm(result_rows(study))["unetpp"]
    assert row["dice_mean"] > 0
    for name in ("dice_sd", "delta_low", "p", "p_holm"):
        assert math.isnan(row[name])
    assert any(line.startswith("No interval and no test") for line in caption(study))
    assert not any("significant" in line for line in caption(study))


def test_heads_carry_the_price_of_the_pruned_network(study: StudyRecords) -> None:
    rows = head_rows(study)
    assert rows["output"].tolist() == ["L1", "L2", "L3", "L4", "mean"] * 2
    assert rows.loc[rows["primary"], "output"].tolist() == ["L4", "L4"]
    spec = GridSpec.from_json(study.arm("unetpp_ds").spec)
    wanted = [budget.count_parameters(grid.prune_to_head(spec, depth)) for depth in (1, 2, 3, 4)]
    got = rows[rows["arm"] == "unetpp_ds"].head(4)["num_parameters"].tolist()
    assert got == wanted
    assert rows["dice_mean"].iloc[0] < rows["dice_mean"].iloc[3]


def test_heads_without_timings_cost_what_the_section_on_pruning_says(study: StudyRecords) -> None:
    bare = replace(study, latencies=study.latencies.head(0))
    timed, untimed, priced = head_rows(study), head_rows(bare), network_rows(bare)
    pd.testing.assert_series_equal(timed["num_parameters"], untimed["num_parameters"])
    keys = ["arm", "output"]
    both = untimed.merge(priced, on=keys, suffixes=("", "_priced"))
    assert len(both) == 8
    assert both["macs"].tolist() == both["macs_priced"].tolist()
    assert both["macs"].notna().all()


@pytest.mark.parametrize(("half", "digits"), [(0.02, 3), (0.004, 3), (0.0004, 4), (1e-7, 4)])
def test_the_interval_decides_the_decimals(half: float, digits: int) -> None:
    assert num_decimals(pd.DataFrame({"delta_low": [-half], "delta_high": [half]})) == digits


def test_no_interval_gives_three_decimals() -> None:
    assert num_decimals(pd.DataFrame({"delta_low": [math.nan], "delta_high": [math.nan]})) == 3


def test_caption_holds_what_a_reader_must_know(study: StudyRecords) -> None:
    text = " ".join(caption(study))
    for part in (
        "Dice = 2 TP / (2 TP + FP + FN)",
        "64 x 64 pixels",
        "fp32",
        "41 cases were scored, 1 with an empty reference; 1 scores (case and run) left out",
        "L4 of every arm",
        "standard deviation over 5 runs (5 folds x 1 seed)",
        "Nadeau and Bengio",
        "n_test/n_train = 0.250",
        "5 comparisons of Dice with U-Net (wide U-Net, UNet+, UNet++, UNet+ DS, UNet++ DS)",
    ):
        assert part in text
