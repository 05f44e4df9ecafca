import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nas.racing import (
    CaseWilcoxon,
    FoldScores,
    Forgiving,
    NoRule,
    PairedMargin,
    SuccessiveHalving,
    Validated,
    adjusted_value,
    choose_rival,
    find_rule,
    give_up,
    mean_score,
    stop_at,
)
from unetpp.errors import UserError

RULES = [NoRule(), Forgiving(), PairedMargin(), CaseWilcoxon()]


def scores_of(*folds, groups=None) -> FoldScores:
    return FoldScores(
        by_fold={k: np.array(values, float) for k, values in enumerate(folds)}, groups=groups or {}
    )


def noisy(quality: float, *, seed: int, folds: int = 5, cases: int = 60) -> FoldScores:
    """Cases and folds that are hard or easy for everybody, and a network's own luck."""
    world, own = np.random.default_rng(7), np.random.default_rng(seed)
    shared = [world.normal(0.8 + world.normal(0, 0.02), 0.08, cases) for _ in range(folds)]
    return scores_of(*(s + quality + own.normal(0, 0.02, cases) for s in shared))


def first(scores: FoldScores, num: int) -> FoldScores:
    return FoldScores(by_fold={f: scores.by_fold[f] for f in range(num)})


def test_no_rule_gives_nobody_up():
    assert give_up(NoRule(), scores_of([0.0]), scores_of([1.0], [1.0]), num_folds=2) is None


def test_forgiving_compares_the_mean_with_the_worst_fold():
    rival = scores_of([0.9], [0.7], [0.8])
    verdict = give_up(Forgiving(), scores_of([0.9], [0.5]), rival, num_folds=3)
    assert verdict is not None
    assert verdict.reason == "after 2 of 3 folds its mean 0.7000 is not above 0.7000"
    assert give_up(Forgiving(), scores_of([0.9], [0.52]), rival, num_folds=3) is None


def test_a_margin_is_of_the_mean_over_folds_of_paired_differences():
    rival = scores_of([0.8, 0.6], [0.5], [0.9])
    # Folds count alike, however many cases they have: (-0.02 + 0) / 2.
    candidate = scores_of([0.78, 0.58], [0.5])
    assert give_up(PairedMargin(margin=0.0101), candidate, rival, num_folds=3) is None
    verdict = give_up(PairedMargin(margin=0.0099), candidate, rival, num_folds=3)
    assert verdict is not None
    assert verdict.reason == "after 2 of 3 folds 0.0100 lower"


def test_the_wilcoxon_rule_has_the_p_of_scipy_over_all_cases_of_the_shared_folds():
    rival, candidate = noisy(0, seed=1), first(noisy(-0.012, seed=2), 2)
    pairs = np.concatenate([candidate.by_fold[f] - rival.by_fold[f] for f in range(2)])
    p = float(np.asarray(stats.wilcoxon(pairs, alternative="less"))[1])
    rule = CaseWilcoxon(p=p * 1.01, effect=0.005)
    verdict = give_up(rule, candidate, rival, num_folds=5)
    assert verdict is not None
    assert f"p = {p:.1g}, 120 pairs" in verdict.reason
    assert give_up(CaseWilcoxon(p=p * 0.99, effect=0.005), candidate, rival, num_folds=5) is None


def test_the_wilcoxon_rule_wants_an_effect_too():
    rival, candidate = noisy(0, seed=1), first(noisy(-0.012, seed=2), 2)
    assert give_up(CaseWilcoxon(p=0.5, effect=0.03), candidate, rival, num_folds=5) is None


def test_cases_of_a_group_are_one_observation():
    """A hundred frames of two videos are no evidence, two hundred videos are."""
    rival, own = np.full(100, 0.8), np.full(100, 0.7)
    videos = {0: ("a",) * 50 + ("b",) * 50}
    rule = CaseWilcoxon()
    grouped = scores_of(own, groups=videos)
    assert give_up(rule, grouped, scores_of(rival, rival), num_folds=2) is None
    assert give_up(rule, scores_of(own), scores_of(rival, rival), num_folds=2) is not None


def test_cases_that_one_of_the_two_does_not_score_are_left_out():
    rival = scores_of([0.8, np.nan, 0.6], [0.5])
    candidate = scores_of([0.7, 0.0, 0.5])
    verdict = give_up(PairedMargin(margin=0.05), candidate, rival, num_folds=2)
    assert verdict is not None
    assert "0.1000 lower" in verdict.reason
    nothing = scores_of([np.nan, 0.1, np.nan])
    assert give_up(PairedMargin(), nothing, rival, num_folds=2) is None


@pytest.mark.parametrize("rule", RULES)
@given(seed=st.integers(0, 50), gain=st.floats(0.03, 0.2))
def test_a_clearly_better_candidate_is_never_given_up(rule, seed, gain):
    better, rival = noisy(gain, seed=seed), noisy(0, seed=seed + 1000)
    for num in range(1, 5):
        assert give_up(rule, first(better, num), rival, num_folds=5) is None


@pytest.mark.parametrize("rule", [PairedMargin(), CaseWilcoxon()])
@given(seed=st.integers(0, 50))
def test_paired_rules_do_not_mind_a_fold_that_is_hard_for_all(rule, seed):
    rival, candidate = noisy(0, seed=seed), noisy(-0.001, seed=seed + 1000)
    hard = {0: 0.3, 1: 0.0, 2: 0.0, 3: 0.0, 4: 0.0}
    shifted = [
        FoldScores(by_fold={f: s.by_fold[f] - hard[f] for f in s.by_fold})
        for s in (candidate, rival)
    ]
    plain = give_up(rule, first(candidate, 1), rival, num_folds=5)
    moved = give_up(rule, first(shifted[0], 1), shifted[1], num_folds=5)
    assert (plain is None) == (moved is None)


@pytest.mark.parametrize("rule", [Forgiving(), PairedMargin(), CaseWilcoxon()])
def test_a_much_worse_candidate_is_given_up_after_one_fold(rule):
    worse = first(noisy(-0.3, seed=3), 1)
    assert give_up(rule, worse, noisy(0, seed=1), num_folds=5) is not None


def test_luck_alone_is_rarely_given_up_by_the_case_rule():
    """Equal networks: the least effect and the small p keep the rate of false ends below 2 %."""
    rival = noisy(0, seed=1)
    ended = sum(
        give_up(CaseWilcoxon(), first(noisy(0, seed=s), n), rival, num_folds=5) is not None
        for s in range(100, 300)
        for n in (1, 2, 3, 4)
    )
    assert ended <= 16


@given(quality=st.floats(-0.1, 0.1), seed=st.integers(0, 20))
def test_with_all_folds_the_adjusted_value_is_the_mean(quality, seed):
    candidate, rival = noisy(quality, seed=seed), noisy(0, seed=99)
    mean = np.mean([mean_score(s) for s in candidate.by_fold.values()])
    assert adjusted_value(candidate, rival) == pytest.approx(min(1, mean))


def test_an_easy_first_fold_flatters_nobody():
    rival = scores_of([0.95, 0.95], [0.6, 0.6])
    assert adjusted_value(scores_of([0.90, 0.90]), rival) == pytest.approx(0.775 - 0.05)


def test_the_rival_is_the_best_that_costs_no_more_under_any_objective():
    trials = [
        Validated(number=0, score=0.90, costs=(10, 5)),
        Validated(number=1, score=0.85, costs=(4, 4)),
        Validated(number=2, score=0.80, costs=(1, 1)),
    ]
    chosen = {costs: choose_rival(costs, trials) for costs in [(10, 5), (9, 9), (4, 4), (1, 0)]}
    assert {costs: v and v.number for costs, v in chosen.items()} == {
        (10, 5): 0,
        (9, 9): 1,
        (4, 4): 1,
        (1, 0): None,
    }


def test_with_one_objective_the_rival_is_the_best_and_the_first_of_equals():
    trials = [Validated(number=n, score=s, costs=()) for n, s in enumerate([0.7, 0.9, 0.9])]
    best = choose_rival((), trials)
    assert best is not None
    assert best.number == 1
    assert choose_rival((), []) is None


def test_halving_looks_at_its_rungs_and_never_at_the_end():
    assert SuccessiveHalving().epochs(20) == (5, 10)
    assert SuccessiveHalving().epochs(2) == (1,)
    assert SuccessiveHalving().epochs(1) == ()


def test_halving_lets_a_third_go_on():
    rule = SuccessiveHalving(eta=3)
    assert stop_at(rule, 5, 0.1, [0.9, 0.8]) is None, "too few to compare with"
    assert stop_at(rule, 5, 0.85, [0.9, 0.8, 0.7, 0.6, 0.5]) is None
    verdict = stop_at(rule, 5, 0.75, [0.9, 0.8, 0.7, 0.6, 0.5])
    assert verdict is not None
    assert verdict.reason == "at epoch 5 of the first fold place 3 of 6, of which 2 go on"


def test_an_unknown_rule_is_refused():
    with pytest.raises(UserError, match="one of none, forgiving, margin, wilcoxon, but got 'asha'"):
        find_rule("asha")
