import numpy as np
import pytest
from make_scores import make_scored, noise

from reports.embedding import embedding_rows, isolated_arms
from reports.price import trained_rows
from studies import depth, embedded_vs_isolated, pruning


def _score(arm: str, output: str, seed: int, fold: int) -> float:
    """Embedded L1 gains 0.04 over isolated L1; the others differ by chance."""
    gain = 0.04 if (arm, output) == ("unetpp_ds", "L1") else 0.0
    return 0.7 + gain + noise("fold", fold) + noise(arm, output, fold, seed, scale=0.003)


def test_the_isolated_network_is_the_pruned_one_trained_alone() -> None:
    study = make_scored(embedded_vs_isolated.STUDY, _score)
    found = isolated_arms(study, study.arm("unetpp_ds"))
    assert {d: arm.name for d, arm in found.items()} == {d: f"isolated_l{d}" for d in (1, 2, 3, 4)}
    assert isolated_arms(study, study.arm("isolated_l4")) == {}


def test_rows_are_paired_by_run_and_corrected_over_depths() -> None:
    study = make_scored(embedded_vs_isolated.STUDY, _score, num_seeds=2)
    rows = embedding_rows(study).set_index("output")
    assert list(rows.index) == ["L1", "L2", "L3", "L4"]
    assert set(rows["delta_runs"]) == {10}
    assert rows.loc["L1", "delta_dice"] == pytest.approx(0.04, abs=0.005)
    np.testing.assert_allclose(
        rows["delta_dice"], rows["embedded_mean"] - rows["isolated_mean"], atol=1e-12
    )
    assert rows["p_holm"].min() == pytest.approx(4 * rows["p"].min())
    assert list(rows.index[rows["p_holm"] < 0.05]) == ["L1"]


def test_the_interval_is_that_of_the_pairs_and_not_of_the_means() -> None:
    """Folds differ by far more than the two ways of training do."""

    def score(arm: str, output: str, seed: int, fold: int) -> float:
        return 0.5 + 0.1 * fold + (0.01 + 0.001 * fold if arm == "unetpp_ds" else 0.0)

    row = embedding_rows(make_scored(embedded_vs_isolated.STUDY, score)).iloc[0]
    assert row["embedded_low"] < row["isolated_mean"]
    assert row["delta_low"] > 0.008


def test_the_heads_of_unet_e_are_the_u_nets_of_its_depths() -> None:
    """Two sections compare them: by the same arithmetic, so with the same numbers."""
    study = make_scored(depth.STUDY, _score)
    rows, others = embedding_rows(study), trained_rows(study)
    assert set(rows["arm"]) == {"unet_e"}
    assert list(rows["isolated"]) == list(others["plain_arm"])
    for name in ("delta_dice", "delta_low", "p", "p_holm"):
        np.testing.assert_array_equal(rows[name], others[name])


def test_one_depth_both_ways_is_no_figure() -> None:
    """UNet++ pruned to L1 is the U-Net L1, and deeper ones are not."""
    study = make_scored(pruning.STUDY, _score)
    assert list(isolated_arms(study, study.arm("unetpp_ds"))) == [1]
    assert embedding_rows(study).empty
