import math
from pathlib import Path

import numpy as np
import pytest
from make_cases import by_arm, make_records, row

from reports.rank_stability import spread, stability
from reports.records import StudyRecords
from reports.sections.stability import section

_ARMS = ("unet", "unetpp", "unet_plus")


def _clear(*, gap: float = 0.05) -> StudyRecords:
    """UNet++ is best in every case, then UNet+."""
    order = {"unet": 0, "unet_plus": 1, "unetpp": 2}
    return make_records(
        [
            row(arm, f"{k:02d}", round(0.5 + 0.01 * k + gap * order[arm], 3), fold=k % 4)
            for k in range(12)
            for arm in _ARMS
        ],
        arms=_ARMS,
    )


def test_an_order_that_holds_in_every_case_holds_in_every_draw() -> None:
    found = stability(_clear())
    assert found is not None
    assert found.rows["arm"].tolist() == ["unetpp", "unet_plus", "unet"]
    for name in ("by_mean", "low", "high", "by_median", "by_mean_rank"):
        assert found.rows[name].tolist() == [1, 2, 3]
    assert found.rows["first"].tolist() == [1, 0, 0]
    assert found.tau == (1, 1)
    assert (found.num_cases, found.num_groups) == (12, 12)


def test_one_failure_moves_the_mean_and_not_the_median() -> None:
    study = make_records(
        [
            row("unetpp", f"{k}", 0.0 if k == 0 else 0.62) if arm == "unetpp" else row(arm, f"{k}", 0.6)
            for k in range(9)
            for arm in ("unet", "unetpp")
        ]
    )  # fmt: skip
    found = stability(study)
    assert found is not None
    ranks = by_arm(found.rows)
    assert [ranks["unetpp"][key] for key in ("by_mean", "by_median", "by_mean_rank")] == [2, 1, 1]
    # Without the one case it would be first: one draw in exp(1) or so lacks it.
    assert 0.2 < ranks["unetpp"]["first"] < 0.6


def test_shares_add_up_and_ranks_are_between_their_limits(study: StudyRecords) -> None:
    found = stability(study)
    assert found is not None
    assert found.rows["first"].sum() == pytest.approx(1)
    assert (found.rows["low"] <= found.rows["by_mean"]).all()
    assert (found.rows["by_mean"] <= found.rows["high"]).all()


def test_one_arm_has_no_ranking(tmp_path: Path) -> None:
    study = make_records([row("unet", "a", 0.5)], arms=("unet",))
    assert section(study, tmp_path) is None
    assert section(make_records([row("unet", "a", 0.5)]), tmp_path) is None


def test_spreads_are_those_of_a_table_of_runs() -> None:
    values = np.array([[0.5, 0.6, 0.7], [0.6, 0.65, 0.85]])
    study = make_records(
        [
            row(arm, f"{fold}", values[k, fold], fold=fold)
            for k, arm in enumerate(("unet", "unetpp"))
            for fold in range(3)
        ]
    )
    found = spread(study)
    assert found.between == pytest.approx(values.mean(axis=1).std(ddof=1))
    assert found.within == pytest.approx(math.sqrt(values.var(axis=1, ddof=1).mean()))
    # Of two arms: the residual is half the difference's deviation on either side.
    gaps = values[1] - values[0]
    assert found.paired == pytest.approx(gaps.std(ddof=1) / math.sqrt(2))
    assert math.isnan(found.seeds)
    assert found.ratio == pytest.approx(found.between / found.within)


def test_seeds_are_compared_within_their_fold() -> None:
    study = make_records(
        [
            row(arm, f"{fold}", 0.5 + 0.2 * fold + 0.1 * seed, fold=fold, seed=seed)
            for arm in ("unet", "unetpp")
            for fold in range(2)
            for seed in range(2)
        ]
    )
    assert spread(study).seeds == pytest.approx(np.std([0.5, 0.6], ddof=1))


def test_a_ratio_below_one_is_flagged(study: StudyRecords, tmp_path: Path) -> None:
    found, clear = section(study, tmp_path), section(_clear(gap=0.2), tmp_path)
    assert found is not None
    assert clear is not None
    assert (
        "below 1: the arms differ by less than the runs"
        in dict(found.pairs)["Of the runs of one arm"]
    )
    assert "below 1" not in " ".join(text for _, text in clear.pairs)


def test_notes_name_draws_groups_and_tau(study: StudyRecords, tmp_path: Path) -> None:
    found = section(study, tmp_path)
    assert found is not None
    text = " ".join(found.tables[0].notes)
    for part in ("2,000 draws, seed 0", "40 groups (unit: case", "Kendall's tau-b", "40 cases"):
        assert part in text


def test_few_groups_are_not_drawn_from(tmp_path: Path) -> None:
    study = make_records(
        [
            row(arm, f"{k}", 0.5 + 0.1 * (arm == "unetpp"))
            for k in range(5)
            for arm in ("unet", "unetpp")
        ]
    )
    found = section(study, tmp_path)
    assert found is not None
    assert [line[1].spread for line in found.tables[0].rows] == ["", ""]
    assert "No draws with fewer than 6 groups" in " ".join(found.tables[0].notes)
    assert "not available" in found.pairs[0][1]
