import math
from pathlib import Path

import pytest
from make_search import BASELINE, WINNER, make_search, make_search_manifest

from reports.search_records import load_search
from reports.search_tables import set_aside_difference, winner_lead
from reports.search_verdict import search_verdict
from reports.statistics import Bootstrapped
from unetpp.searches import SearchLedger, SearchManifest, SearchResult
from unetpp.store import RecordStore


def _said(folder: Path) -> str:
    return " ".join(search_verdict(load_search(folder)))


def _unevaluated(**changes: object) -> SearchManifest:
    return make_search_manifest(evaluation="none", tests=(), **changes)


def test_names_winner_scores_gap_and_depth(tmp_path: Path) -> None:
    make_search(tmp_path)
    said = _said(tmp_path)
    for part in (
        "The winner is trial 5, L3 dense",
        "depth 3, 10 skip connections (dense), 553 k parameters, 609 M multiply-accumulates",
        "0.97 times the parameters",
        "on the 5 folds that chose it",
        "on fresh folds of the same cases with 2 fresh seeds",
        "on the 24 cases set aside (95 % interval",
        "Only the last of these is unbiased.",
        "The score that chose the winner lies 0.032 above its unbiased score",
        "10 pairs of fold and seed, corrected resampled t",
        "paired by case, bootstrap over 24 groups",
        "depth 3 scores best (trial 5",
    ):
        assert part in said


@pytest.mark.parametrize("gain", [0.6, 0.0, -0.6])
def test_calls_the_winner_better_exactly_where_the_interval_leaves_out_zero(
    tmp_path: Path, gain: float
) -> None:
    make_search(tmp_path, gain=gain)
    result = set_aside_difference(load_search(tmp_path), WINNER)
    assert result is not None
    said = _said(tmp_path)
    assert ("So the winner is better than" in said) == (result.low > 0) == (gain > 0)
    assert ("So the winner is worse than" in said) == (result.high < 0) == (gain < 0)
    assert ("it is not shown that the winner is better" in said) == (gain == 0)


def test_says_in_so_many_words_that_there_is_no_unbiased_score(tmp_path: Path) -> None:
    make_search(tmp_path, manifest=_unevaluated())
    said = _said(tmp_path)
    assert "There is no unbiased score: no cases were set aside" in said
    assert "too high for having been chosen as the best of 7 validated trials" in said
    assert "those are the same cases" in said
    assert "is unbiased" not in said
    assert "better than UNet++ L4 (baseline) on fresh folds of the same cases" in said


def test_without_any_second_training_nothing_is_claimed(tmp_path: Path) -> None:
    make_search(tmp_path, manifest=_unevaluated(confirmation=None))
    said = _said(tmp_path)
    assert (
        "it is not shown that the winner is better than UNet++ L4 (baseline): there is no" in said
    )
    assert "On fresh folds" not in said


def test_an_unfinished_search_has_a_leader_and_no_winner(tmp_path: Path) -> None:
    make_search(tmp_path, ended=False)
    said = _said(tmp_path)
    assert "So far trial 5 leads" in said
    assert "The winner is" not in said
    assert "better" not in said


@pytest.mark.parametrize(("gain", "told"), [(0.6, True), (0.0, False)])
def test_the_runner_up_is_told_apart_exactly_where_the_interval_leaves_out_zero(
    tmp_path: Path, gain: float, told: bool
) -> None:
    make_search(tmp_path, gain=gain)
    lead = winner_lead(load_search(tmp_path), 13)
    assert lead is not None
    assert (lead.low > 0) == told
    said = _said(tmp_path)
    assert "The runner-up is trial 13, L2 dense" in said
    assert ("which of them is named is partly chance" in said) != told


def test_a_baseline_that_wins_is_not_compared_with_itself(tmp_path: Path) -> None:
    manifest = make_search(tmp_path)
    store = RecordStore.open_folder(tmp_path)
    SearchLedger(store).put_result(
        manifest.search,
        SearchResult(
            confirmed=(BASELINE, WINNER),
            winner=BASELINE,
            importances={},
            finished_at="2026-01-01T02:00:00+00:00",
        ),
    )
    store.close()
    said = _said(tmp_path)
    assert "That is the baseline itself" in said
    assert "better than" not in said


def test_a_shallower_network_that_cannot_be_told_apart_is_named(tmp_path: Path) -> None:
    # Equal in every fold but for the noise of its cases: depths 2 to 4 score alike.
    make_search(tmp_path, gain=0.0, state="raced_out")
    said = _said(tmp_path)
    assert "depth 4 scores best" in said
    assert "the best trial of L2 (trial 13) and L3 (trial 3) cannot be told from it" in said
    assert "consider the shallower network, which costs less" in said
    assert "L1 (trial 1)" not in said


def test_several_objectives_leave_several_trials(tmp_path: Path) -> None:
    make_search(tmp_path)
    assert "5 trials are beaten by no other in Dice and macs at once" in _said(tmp_path)


def test_one_objective_speaks_of_no_front(tmp_path: Path) -> None:
    make_search(tmp_path, manifest=make_search_manifest(costs=(), reference={}))
    assert "at once" not in _said(tmp_path)


@pytest.mark.parametrize(
    ("mean", "gap", "why"),
    [
        (0.2, "0.200 above", "this gap is what being chosen adds"),
        (-0.2, "0.200 below", "being chosen adds to a score, so the cases set aside are easier"),
    ],
)
def test_a_gap_without_an_interval_is_explained_by_its_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mean: float, gap: str, why: str
) -> None:
    make_search(tmp_path)
    found = Bootstrapped(mean=mean, low=math.nan, high=math.nan, num_groups=2)
    monkeypatch.setattr("reports.search_verdict.selection_gap", lambda _: found)
    said = _said(tmp_path)
    assert f"lies {gap} its unbiased score (no interval: the cases are of 2 groups" in said
    assert why in said
