import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from make_scores import FRAME, SIZE, by, make_arm, make_scored, make_timed, noise

from reports.price import (
    hypervolumes,
    network_rows,
    reference_cost,
    saving_rows,
    speed_up,
    stand_alone_outputs,
    trained_rows,
)
from reports.records import StudyRecords
from studies import depth, nested_vs_plain, pruning
from studies._presets import nested_at
from unetpp.budget import count_grid_macs, count_parameters
from unetpp.errors import UserError

_DICE = {"L1": 0.60, "L2": 0.75, "L3": 0.80, "L4": 0.805, "mean": 0.81}
# The pruned network is dearer than the U-Net of its depth, as it is.
_TIMES = {
    **{f"unet_l{d} L{d}": t for d, t in zip((1, 2, 3, 4), (2.0, 3.0, 4.0, 5.0), strict=True)},
    **{f"unetpp_ds L{d}": t for d, t in zip((1, 2, 3, 4), (2.5, 5.0, 10.0, 20.0), strict=True)},
}


def _score(gain: float) -> Callable[[str, str, int, int], float]:
    def score(arm: str, output: str, seed: int, fold: int) -> float:
        own = gain if arm == "unetpp_ds" else 0.0
        return (
            _DICE[output] + own + noise("fold", fold) + noise(arm, output, fold, seed, scale=0.002)
        )

    return score


@pytest.fixture(scope="module")
def untimed() -> StudyRecords:
    return make_scored(pruning.STUDY, _score(0.0))


@pytest.fixture(scope="module")
def study(untimed: StudyRecords) -> StudyRecords:
    return make_timed(untimed, _TIMES)


def test_every_head_and_every_arm_with_one_head_is_a_network(study: StudyRecords) -> None:
    rows = network_rows(study)
    assert list(rows["network"]) == list(_TIMES)
    assert set(rows["cost"]) == {"milliseconds"}
    # Odd rounds are 10 % slower: of eight, the median lies between the two speeds.
    np.testing.assert_allclose(rows["milliseconds"], 1.05 * np.array(list(_TIMES.values())))
    np.testing.assert_allclose(rows["milliseconds_q25"], list(_TIMES.values()))


def test_the_mean_of_heads_is_no_network_of_its_own() -> None:
    records = make_scored(depth.STUDY, _score(0.0))
    outputs = [out for arm in records.arms for out in stand_alone_outputs(records, arm)]
    assert "mean" not in outputs
    assert outputs == ["L1", "L2", "L3", "L4"] * 2


def test_without_latencies_the_price_is_counted_in_closed_form(untimed: StudyRecords) -> None:
    frame = network_rows(untimed)
    assert set(frame["cost"]) == {"macs"}
    rows = by(frame, "network")
    for level in (1, 2, 3, 4):
        alone = nested_at(level)(FRAME)
        pruned = rows[f"unetpp_ds L{level}"]
        assert pruned["num_parameters"] == count_parameters(alone)
        assert pruned["macs"] == count_grid_macs(alone, SIZE)


def test_a_point_is_dominated_only_where_a_paired_interval_leaves_out_zero() -> None:
    # L1 loses by 0.05 to a U-Net that costs less: told. L4 loses 0.001 and its folds differ by more.
    wavering = (-0.02, 0.01, 0.01, -0.01, 0.005)

    def score(arm: str, output: str, seed: int, fold: int) -> float:
        if (arm, output) == ("unetpp_ds", "L4"):
            return _DICE["L4"] + wavering[fold]
        loss = 0.05 + 0.001 * fold if arm == "unetpp_ds" else 0.0
        return _DICE[output] - loss

    rows = network_rows(make_timed(make_scored(pruning.STUDY, score), _TIMES))
    status = rows.set_index("network")["status"]
    assert (status[[f"unet_l{d} L{d}" for d in (1, 2, 3)]] == "front").all()
    assert status["unetpp_ds L1"] == "dominated"
    assert rows.set_index("network").loc["unetpp_ds L1", "beaten_by"] == "unet_l1 L1"
    assert status["unetpp_ds L4"] == "tied"


def test_one_run_dominates_nothing(study: StudyRecords) -> None:
    one = replace(study, cases=study.cases[study.cases["fold"] == 0])
    assert set(network_rows(one)["status"]) <= {"front", "tied"}


def test_savings_are_shares_of_the_deepest_head(study: StudyRecords) -> None:
    rows = saving_rows(study).set_index("output")
    assert list(rows.index) == ["L1", "L2", "L3", "L4"]
    np.testing.assert_allclose(rows["speed_up"], [8, 4, 2, 1])
    np.testing.assert_allclose(rows["saved_time"], [0.875, 0.75, 0.5, 0])
    np.testing.assert_allclose(rows["saved_parameters"], [0.75, 0.5, 0.25, 0], atol=1e-4)
    assert rows.loc["L4", "delta_runs"] == 0
    assert rows["p"].isna().tolist() == [False, False, False, True]
    assert rows.loc["L1", "delta_dice"] == pytest.approx(-0.205, abs=0.01)
    # Holm over three: the smallest of three p values is tripled.
    assert rows["p_holm"].min() == pytest.approx(3 * rows["p"].min())


def test_a_round_is_compared_with_itself_alone(study: StudyRecords) -> None:
    """A round that is slow for all moves the medians and no ratio."""
    slow = study.latencies.copy()
    slow.loc[slow["round"] == 3, "milliseconds"] *= 50
    found = speed_up(replace(study, latencies=slow), "unetpp_ds L2", "unetpp_ds L4")
    assert found["speed_up"] == pytest.approx(4)
    assert found["speed_up_low"] == pytest.approx(4)


def test_few_rounds_have_no_interval(untimed: StudyRecords) -> None:
    few = make_timed(untimed, _TIMES, rounds=5)
    found = speed_up(few, "unetpp_ds L3", "unetpp_ds L4")
    assert found["speed_up"] == pytest.approx(2)
    assert math.isnan(found["speed_up_low"])


def test_pruned_heads_meet_the_u_net_of_their_depth(study: StudyRecords) -> None:
    rows = trained_rows(study)
    assert list(rows["plain_arm"]) == ["unet_l1", "unet_l2", "unet_l3", "unet_l4"]
    np.testing.assert_allclose(rows["speed_up"], [0.8, 0.6, 0.4, 0.25])
    assert rows["delta_dice"].abs().max() < 0.01
    assert (rows["p_holm"] >= rows["p"]).all()


def test_a_study_of_one_depth_has_no_such_rivals() -> None:
    arms = [make_arm(arm) for arm in nested_vs_plain.STUDY.arms if arm.name != "wide_unet"]
    records = make_scored(nested_vs_plain.STUDY, _score(0.0), arms=arms)
    assert trained_rows(records).empty


@pytest.mark.parametrize("name", ["machine", "device"])
def test_latencies_of_two_places_are_refused(study: StudyRecords, name: str) -> None:
    mixed = study.latencies.copy()
    mixed.loc[0, name] = "other"
    with pytest.raises(UserError, match=f"must share their {name}.*other"):
        network_rows(replace(study, latencies=mixed))


def test_the_hypervolume_is_the_staircase_by_hand(untimed: StudyRecords) -> None:
    flat = make_scored(pruning.STUDY, lambda _, out, *__: {"L1": 0.5, "L2": 0.6}.get(out, 0.7))
    records = make_timed(flat, {"unetpp_ds L1": 1.0, "unetpp_ds L2": 2.0, "unetpp_ds L3": 4.0})
    rows = network_rows(records)
    # Reference at 1.1 x 4.2 ms, in shares of it; each step from its price to the reference.
    corner = 1.1 * 4.2
    assert reference_cost(rows) == pytest.approx(corner)
    prices = [1.05 / corner, 2.1 / corner, 4.2 / corner]
    by_hand = 0.5 * (1 - prices[0]) + 0.1 * (1 - prices[1]) + 0.1 * (1 - prices[2])
    found = hypervolumes(records, rows)
    assert found["UNet++ DS"] == pytest.approx(by_hand)
    assert found["all networks"] == pytest.approx(by_hand)
    assert "plain networks trained alone" not in found
    assert all(0 < value < 1 for value in hypervolumes(untimed, network_rows(untimed)).values())
