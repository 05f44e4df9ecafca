import itertools
import math
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState
from tiny_study import plan_of

import nas.proposals
from nas.proposals import ProposalPlan, Proposals, excesses, item_of
from nas.search_space import Common, decode
from nas.space_presets import find_space
from unetpp.claims import MOST_DEATHS, Claims
from unetpp.database import exclusively
from unetpp.processes import this_process
from unetpp.recipe import TrainRecipe
from unetpp.searches import SearchLedger, TrialRecord, is_allowed, num_counted
from unetpp.spec import GridSpec
from unetpp.store import RecordStore

COMMON = Common(
    encoders={"plain": None},
    max_depth=3,
    width=4,
    in_channels=1,
    classes=1,
    overlapping=False,
    spatial_dims=2,
    recipe=TrainRecipe(epochs=1),
)


def _plan(*, budget: int = 12, **changes) -> ProposalPlan:
    plan = plan_of(find_space("grid", max_depth=3, width=4), COMMON, budget=budget)
    return replace(plan, **changes)


def _open(folder: Path, plan: ProposalPlan) -> Proposals:
    store = RecordStore.open_folder(folder)
    return Proposals(plan, SearchLedger(store), Claims(store), storage_url=store.url)


def _score(trial: TrialRecord) -> float:
    """A smooth truth, so that a strategy has something to learn."""
    spec = GridSpec.from_json(trial.spec)
    return 0.5 + 0.1 * spec.depth + 0.001 * len(spec.skips) - 0.002 * spec.widths[0]


def _finish(trial: TrialRecord, **changes) -> TrialRecord:
    return replace(trial, **{"state": "validated", "value": _score(trial), **changes})


def _run(proposals: Proposals, *, at_most: int | None = None) -> None:
    for _ in itertools.count() if at_most is None else range(at_most):
        claimed = proposals.claim()
        if claimed is None:
            return
        proposals.conclude(_finish(claimed.trial), claimed.claim)


def _proposed(proposals: Proposals) -> list[tuple[int, str, int | None]]:
    return [(t.number, t.candidate_id, t.cached_from) for t in proposals.trials()]


def test_the_baseline_and_plain_unets_of_every_depth_come_first(tmp_path):
    proposals = _open(tmp_path, _plan())
    proposals.promise()
    _run(proposals)
    labels = [t.label for t in proposals.trials() if t.label]
    assert labels[0].endswith("(baseline)")
    assert labels[1:] == ["U-Net L1", "U-Net L2", "U-Net L3"]
    assert [t.is_baseline for t in proposals.trials()].count(True) == 1


@pytest.mark.parametrize("strategy", ["tpe", "random", "nsga2", "brute_force", "gp"])
def test_a_search_has_exactly_its_budget_of_distinct_candidates(tmp_path, strategy):
    proposals = _open(tmp_path, _plan(strategy=strategy, budget=14))
    proposals.promise()
    _run(proposals)
    trials = proposals.trials()
    trained = [t.candidate_id for t in trials if t.cached_from is None]
    assert len(trained) == len(set(trained)) == num_counted(trials) == 14
    assert all(t.state == "validated" for t in trials)


def test_duplicates_have_the_value_of_the_first_and_the_strategy_is_told(tmp_path):
    plan = _plan(space=find_space("depth", max_depth=3, width=4), promises=(), budget=100)
    proposals = _open(tmp_path, plan)
    _run(proposals)
    trials = {t.number: t for t in proposals.trials()}
    copies = [t for t in trials.values() if t.cached_from is not None]
    assert copies
    assert all(t.value == trials[t.cached_from or 0].value for t in copies)
    study = optuna.load_study(study_name="search", storage=RecordStore.url_of_folder(tmp_path))
    assert [t.value for t in study.trials] == [trials[t.number].value for t in study.trials]


def test_a_space_that_is_exhausted_ends_the_search(tmp_path):
    space = find_space("depth", max_depth=3, width=4)
    proposals = _open(tmp_path, _plan(space=space, promises=(), budget=1000))
    _run(proposals)
    trained = {t.candidate_id for t in proposals.trials() if t.cached_from is None}
    assert trained == {decode(params, COMMON).id for params in space.assignments()}


def test_an_interrupted_search_proposes_what_an_uninterrupted_one_does(tmp_path):
    whole = _open(tmp_path / "whole", _plan(budget=20))
    whole.promise()
    _run(whole)
    for stop in range(1, 20, 4):
        folder = tmp_path / f"cut-{stop}"
        cut = _open(folder, _plan(budget=20))
        cut.promise()
        _run(cut, at_most=stop)
        again = _open(folder, _plan(budget=20))
        again.promise()
        _run(again)
        assert _proposed(again) == _proposed(whole)


def test_what_was_given_back_is_claimed_first_with_its_folds(tmp_path):
    proposals = _open(tmp_path, _plan())
    proposals.promise()
    first = proposals.claim()
    assert first is not None
    begun = replace(first, trial=replace(first.trial, folds_done=2, fold_scores=(0.5, 0.6)))
    proposals.note(begun.trial, begun.claim)
    second = proposals.claim()
    assert second is not None
    assert second.trial.number != first.trial.number
    proposals.give_back(begun)
    assert proposals.trials()[0].worker is None
    taken = proposals.claim()
    assert taken is not None
    assert (taken.trial.number, taken.trial.folds_done) == (first.trial.number, 2)
    assert taken.trial.worker == this_process().name


def test_a_worker_that_lost_its_claim_changes_nothing_any_more(tmp_path):
    """Halted beyond its lease: what it brings late is dropped, and nothing is counted twice."""
    late, other = _open(tmp_path, _plan(budget=3)), _open(tmp_path, _plan(budget=3))
    late.promise()
    first = late.claim()
    assert first is not None
    Claims(RecordStore.open_folder(tmp_path)).give_back(first.claim)
    second = other.claim()
    assert second is not None
    assert second.trial.number == first.trial.number
    late.note(replace(first.trial, folds_done=1), first.claim)
    assert other.trials()[0].folds_done == 0
    ended = _finish(second.trial, folds_done=3)
    other.conclude(ended, second.claim)
    late.note(replace(first.trial, folds_done=1), first.claim)
    late.conclude(_finish(first.trial, value=0.1), first.claim)
    [kept] = [t for t in late.trials() if t.number == first.trial.number]
    assert (kept.state, kept.value, kept.folds_done) == ("validated", ended.value, 3)
    _run(other)
    assert num_counted(other.trials()) == 3


def test_a_trial_over_which_workers_die_fails_and_the_search_goes_on(tmp_path):
    for _ in range(MOST_DEATHS):
        store = RecordStore.open_folder(tmp_path)
        claims = Claims(store)
        claims._me = replace(this_process(), started="a process that is gone")
        dying = Proposals(_plan(budget=3), SearchLedger(store), claims, storage_url=store.url)
        dying.promise()
        dead = dying.claim()
        assert dead is not None
        assert dead.trial.number == 0
    proposals = _open(tmp_path, _plan(budget=3))
    _run(proposals)
    first, *others = proposals.trials()
    assert first.state == "failed"
    assert first.reason.startswith(f"{MOST_DEATHS} workers died over it")
    assert {t.state for t in others} == {"validated"}
    assert num_counted(proposals.trials()) == 3


def test_a_proposal_that_is_running_elsewhere_is_not_trained_twice(tmp_path):
    plan = _plan(space=find_space("depth", max_depth=3, width=4), promises=(), budget=1000)
    proposals = _open(tmp_path, plan)
    claimed = []
    while (one := proposals.claim()) is not None:
        claimed.append(one)
    ids = [one.trial.candidate_id for one in claimed]
    assert len(ids) == len(set(ids))
    assert not proposals.is_over(proposals.trials())
    for one in claimed:
        proposals.conclude(_finish(one.trial), one.claim)
    assert proposals.is_over(proposals.trials())
    assert all(t.state == "validated" for t in proposals.trials())


def test_what_optuna_missed_in_a_crash_is_told_at_the_next_claim(tmp_path):
    proposals = _open(tmp_path, _plan(budget=3))
    proposals.promise()
    claimed = proposals.claim()
    assert claimed is not None
    trial = claimed.trial
    # As if the process had died between the ledger and Optuna's tables.
    SearchLedger(RecordStore.open_folder(tmp_path)).put_trial(
        "search", replace(_finish(trial), worker=None)
    )
    again = _open(tmp_path, _plan(budget=3))
    _run(again)
    study = optuna.load_study(study_name="search", storage=RecordStore.url_of_folder(tmp_path))
    assert study.trials[trial.number].value == _score(trial)
    assert num_counted(again.trials()) == 3


def test_a_trial_that_optuna_has_and_the_ledger_lacks_is_taken_up(tmp_path):
    proposals = _open(tmp_path, _plan(budget=3))
    proposals.promise()
    study = optuna.load_study(study_name="search", storage=RecordStore.url_of_folder(tmp_path))
    lost = study.ask()
    _run(_open(tmp_path, _plan(budget=3)))
    trials = proposals.trials()
    assert trials[0].number == lost.number
    assert num_counted(trials) == 3
    states = {t.state for t in study.get_trials()}
    assert states <= {TrialState.COMPLETE, TrialState.WAITING}


def test_what_nobody_takes_up_any_more_is_closed_at_the_end(tmp_path):
    proposals = _open(tmp_path, _plan(budget=4))
    proposals.promise()
    _run(proposals)
    # Of a worker whose lock was cut off while it asked for the last trial.
    proposals._study.ask()
    claim = proposals._claims.claim_one([item_of(proposals.trials()[0], "search")])
    assert claim is not None
    proposals.clear_up()
    states = [trial.state.name for trial in proposals._study.get_trials()]
    assert states == ["COMPLETE"] * 4 + ["FAIL"]
    assert len(proposals.trials()) == 4
    assert not proposals._claims.states([claim.item])


def test_infeasible_trials_do_not_count_and_are_told_as_broken_constraints(tmp_path):
    plan = _plan(constraints={"macs": 20.0}, budget=8, costs=("macs",))
    proposals = _open(tmp_path, plan)
    proposals.promise()
    while (one := proposals.claim()) is not None:
        costs = {"macs": float(sum(GridSpec.from_json(one.trial.spec).widths))}
        trial = replace(one.trial, costs=costs, constraints=excesses(costs, plan.constraints))
        proposals.conclude(
            _finish(trial) if is_allowed(trial) else replace(trial, state="infeasible", value=0.0),
            one.claim,
        )
    trials = proposals.trials()
    assert num_counted(trials) == 8
    infeasible = [t for t in trials if t.state == "infeasible"]
    assert infeasible
    study = optuna.load_study(study_name="search", storage=RecordStore.url_of_folder(tmp_path))
    told = {t.number: t for t in study.trials}
    for trial in infeasible:
        assert told[trial.number].state == TrialState.COMPLETE
        assert told[trial.number].constraints["macs"] == trial.constraints["macs"] > 0


def test_a_failed_trial_counts_and_optuna_knows_it_as_failed(tmp_path):
    proposals = _open(tmp_path, _plan(budget=2))
    proposals.promise()
    claimed = proposals.claim()
    assert claimed is not None
    trial = claimed.trial
    proposals.conclude(replace(trial, state="failed", reason="ZeroDivisionError"), claimed.claim)
    _run(proposals)
    assert num_counted(proposals.trials()) == 2
    study = optuna.load_study(study_name="search", storage=RecordStore.url_of_folder(tmp_path))
    assert study.trials[trial.number].state == TrialState.FAIL


def test_workers_that_claim_at_once_make_exactly_the_budget(tmp_path):
    _open(tmp_path, _plan(budget=24)).promise()
    errors: list[Exception] = []

    def work() -> None:
        try:
            _run(_open(tmp_path, _plan(budget=24)))
        except Exception as error:  # noqa: BLE001 - the test fails on whatever a thread met
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    trials = _open(tmp_path, _plan(budget=24)).trials()
    assert num_counted(trials) == 24
    assert [t.number for t in trials] == list(range(len(trials)))
    assert all(t.state == "validated" for t in trials)


def test_tpe_finds_more_than_random_does(tmp_path):
    """The strategy is really told: with a smooth truth it gets ahead of chance."""
    means = {}
    for strategy in ("tpe", "random"):
        proposals = _open(tmp_path / strategy, _plan(strategy=strategy, budget=40, promises=()))
        _run(proposals)
        late = [t.value or 0.0 for t in proposals.trials() if t.cached_from is None][20:]
        means[strategy] = sum(late) / len(late)
    assert means["tpe"] > means["random"] + 0.01


def _turns(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows by an entry a turn that is taken from now on."""
    taken: list[str] = []

    @contextmanager
    def counted(engine, name):
        taken.append(name)
        with exclusively(engine, name) as connection:
            yield connection

    monkeypatch.setattr(nas.proposals, "exclusively", counted)
    return taken


def test_waiting_workers_do_not_propose_again_and_again(tmp_path, monkeypatch):
    """The space is exhausted, and its last trial is still trained."""
    plan = _plan(space=find_space("depth", max_depth=3, width=4), promises=(), budget=1000)
    proposals = _open(tmp_path, plan)
    held = []
    while (one := proposals.claim()) is not None:
        held.append(one)
    number = len(proposals.trials())
    taken = _turns(monkeypatch)
    for _ in range(3):
        assert _open(tmp_path, plan).claim() is None
    assert len(proposals.trials()) == number
    assert taken == [], "nor stand in the way of who concludes the last one"


def test_who_joins_or_has_nothing_to_begin_stands_in_nobodys_way(tmp_path, monkeypatch):
    proposals = _open(tmp_path, _plan(budget=2))
    proposals.promise()
    held = [proposals.claim(), proposals.claim()]
    taken = _turns(monkeypatch)
    late = _open(tmp_path, _plan(budget=2))
    assert late.claim() is None
    assert taken == []
    assert not late.is_over(late.trials())
    for one in held:
        assert one is not None
        proposals.conclude(_finish(one.trial), one.claim)
    assert taken == ["proposals"] * 2
    assert late.is_over(late.trials())
    late.clear_up()
    assert taken == ["proposals"] * 2


def test_tables_of_optuna_that_were_left_half_made_are_finished_in_turn(tmp_path, monkeypatch):
    store = RecordStore.open_folder(tmp_path)
    _open(tmp_path, _plan())
    with store.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM alembic_version"))
    taken = _turns(monkeypatch)
    _run(_open(tmp_path, _plan(budget=1)))
    # One turn for the tables, one each to propose and to conclude.
    assert taken == ["proposals"] * 3
    with store.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM alembic_version")).scalar() == 1


def test_a_score_that_is_not_defined_can_be_read_again(tmp_path):
    proposals = _open(tmp_path, _plan(budget=2))
    proposals.promise()
    one = proposals.claim()
    assert one is not None
    proposals.note(replace(one.trial, fold_scores=(float("nan"),), folds_done=1), one.claim)
    [kept] = _open(tmp_path, _plan(budget=2)).trials()
    assert math.isnan(kept.fold_scores[0])


def test_an_end_that_comes_after_another_worker_took_over_is_dropped(tmp_path):
    late, other = _open(tmp_path, _plan(budget=2)), _open(tmp_path, _plan(budget=2))
    late.promise()
    first = late.claim()
    assert first is not None
    Claims(RecordStore.open_folder(tmp_path)).give_back(first.claim)
    second = other.claim()
    assert second is not None
    late.conclude(_finish(first.trial, value=0.9), first.claim)
    assert other.trials()[0].state == "running"
    other.conclude(_finish(second.trial, value=0.2), second.claim)
    assert (other.trials()[0].state, other.trials()[0].value) == ("validated", 0.2)
    study = optuna.load_study(study_name="search", storage=RecordStore.url_of_folder(tmp_path))
    assert study.trials[0].value == 0.2
