"""Searches that really train, on the smallest bench."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from tiny_study import store_in, tiny_bench, tiny_plan

import nas.performance_estimation
from nas.engines import Engine
from nas.performance_estimation import Estimation
from nas.racing import PairedMargin, SuccessiveHalving, find_rule
from nas.trial_workers import SearchWork, _pause_after, open_proposals, run_trials
from tests.held import Held
from unetpp.errors import UserError
from unetpp.searches import TrialRecord, num_counted
from unetpp.spec import GridSpec
from unetpp.store import RecordStore
from unetpp.training.failures import DivergenceError

TESTS = Path(__file__).parents[1]


def tiny_work(folder: Path, *, budget: int = 4, epochs: int = 1, **estimation: Any) -> SearchWork:
    bench = tiny_bench(folder, epochs=epochs)
    fields: dict[str, Any] = {
        "metric": "dice",
        "costs": (),
        "limits": {},
        "rule": find_rule("none"),
        "halving": None,
    }
    fields |= estimation
    return SearchWork(
        proposals=tiny_plan(
            bench,
            budget=budget,
            metric=fields["metric"],
            costs=fields["costs"],
            constraints=fields["limits"],
        ),
        estimation=Estimation(**fields),
        bench=bench,
        store_url=RecordStore.url_of_folder(folder),
        folder=folder,
    )


def run(work: SearchWork, *, num_workers: int = 1) -> list[TrialRecord]:
    store = store_in(work.folder)
    run_trials(work, store, engine=Engine(num_workers=num_workers), on_trial=lambda _: None)
    return open_proposals(work, store).trials()


@pytest.mark.parametrize(
    ("spent", "pause"), [(0.0, 0.3), (0.01, 0.3), (0.2, 2.0), (60.0, 5.0), (600.0, 5.0)]
)
def test_a_command_looks_again_soon_after_a_server_was_away(spent, pause):
    assert _pause_after(spent) == pytest.approx(pause)


def test_a_validated_trial_has_the_scores_of_its_runs(tmp_path):
    work = tiny_work(tmp_path)
    trials, store = run(work), store_in(tmp_path)
    assert num_counted(trials) == 4
    for trial in trials:
        assert trial.state == "validated"
        by_hand = []
        for fold in range(3):
            key = work.bench.key(GridSpec.from_json(trial.spec), fold)
            record = store.run(key)
            assert record is not None
            cases = [c for c in store.cases(key) if c.output == record.primary_output]
            dice = [2 * c.tp / (2 * c.tp + c.fp + c.fn) for c in cases if c.tp + c.fp + c.fn]
            by_hand.append(fmean(dice))
        assert trial.fold_scores == pytest.approx(by_hand)
        assert trial.value == pytest.approx(fmean(by_hand))
        assert trial.seconds > 0
        assert trial.costs["memory_mb"] > 0


def test_racing_gives_up_after_a_fold_and_never_the_baseline(tmp_path):
    # Whatever is not at least a whole point better than the best is given up.
    trials = run(tiny_work(tmp_path, budget=5, rule=PairedMargin(margin=-1.0)))
    assert trials[0].is_baseline
    assert trials[0].state == "validated"
    for trial in trials[1:]:
        assert (trial.state, trial.folds_done, trial.rival) == ("raced_out", 1, 0)
        assert "of 3 folds" in trial.reason
        assert trial.reason.endswith("against trial 0")
        # The effect of the fold is taken out: the rival's mean, moved by the paired difference.
        moved = trial.fold_scores[0] - trials[0].fold_scores[0] + fmean(trials[0].fold_scores)
        assert trial.value == pytest.approx(moved)


def test_halving_ends_first_folds_at_an_epoch_and_never_the_baseline(tmp_path):
    halving = SuccessiveHalving(eta=2, rungs=(0.5,))
    trials = run(tiny_work(tmp_path, budget=8, epochs=4, halving=halving))
    stopped = [t for t in trials if t.state == "stopped" and t.cached_from is None]
    assert stopped
    assert trials[0].state == "validated"
    assert all(t.folds_done == 0 and set(t.rungs) == {2} for t in stopped)
    assert all(t.seconds > 0 for t in stopped)
    assert all(t.reason.startswith("at epoch 2 of the first fold place") for t in stopped)
    # A fold that was ended has no record: nothing half trained is ever scored.
    store = store_in(tmp_path)
    bench = tiny_work(tmp_path, epochs=4).bench
    for trial in stopped:
        assert store.run(bench.key(GridSpec.from_json(trial.spec), 0)) is None
        best = fmean(trials[trial.rival or 0].fold_scores)
        assert trial.value is not None
        assert 0 <= trial.value <= best + 1


def test_a_limit_keeps_trials_from_training_but_not_the_baseline(tmp_path):
    work = tiny_work(tmp_path, budget=2, limits={"parameters": 1.0})
    trials = run(work)
    assert trials[0].state == "validated"
    rest = [t for t in trials if t.candidate_id != trials[0].candidate_id]
    assert {t.state for t in rest} == {"infeasible"}
    assert all(t.folds_done == 0 and "allowed 1" in t.reason for t in rest)


def test_latency_is_measured_before_training_where_it_is_asked_for(tmp_path):
    trials = run(tiny_work(tmp_path, budget=2, costs=("latency_ms",)))
    assert all(0 < t.costs["latency_ms"] < 1000 for t in trials)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (torch.OutOfMemoryError("CUDA out of memory."), "out_of_memory"),
        (DivergenceError("the training loss must stay finite"), "diverged"),
        (ZeroDivisionError("division by zero"), "failed"),
    ],
)
def test_the_fault_of_a_candidate_is_its_end_and_the_search_goes_on(
    tmp_path, monkeypatch, error, state
):
    true_run = nas.performance_estimation.run_fold

    def sometimes(bench: Any, spec: GridSpec, fold: int, *args: Any, **kwargs: Any) -> Any:
        if spec.depth == 1 and fold == 1:
            raise error
        return true_run(bench, spec, fold, *args, **kwargs)

    monkeypatch.setattr(nas.performance_estimation, "run_fold", sometimes)
    trials = run(tiny_work(tmp_path, budget=4))
    faulty = [t for t in trials if GridSpec.from_json(t.spec).depth == 1]
    assert faulty
    assert {t.state for t in faulty} == {state}
    assert {t.folds_done for t in faulty} == {1}
    assert all(t.reason for t in faulty)
    others = [t for t in trials if t not in faulty]
    assert {t.state for t in others} == {"validated"}
    if state == "out_of_memory":
        assert all(t.constraints["memory_mb"] > 0 and t.value == 0 for t in faulty)


def test_a_network_that_cannot_be_priced_fails_alone(tmp_path, monkeypatch):
    true_price = nas.performance_estimation.price

    def sometimes(candidate: Any, bench: Any) -> Any:
        if candidate.spec.depth == 1:
            raise UserError("the encoder must take images of 16 x 16, but it does not")
        return true_price(candidate, bench)

    monkeypatch.setattr(nas.performance_estimation, "price", sometimes)
    trials = run(tiny_work(tmp_path, budget=4))
    faulty = [t for t in trials if GridSpec.from_json(t.spec).depth == 1]
    assert {(t.state, t.value, t.folds_done) for t in faulty} == {("failed", None, 0)}
    assert all(t.reason.startswith("the encoder must take images") for t in faulty)
    assert {t.state for t in trials if t not in faulty} == {"validated"}


def test_a_program_that_always_fails_stops_with_its_error(tmp_path, monkeypatch):
    def never(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(nas.performance_estimation, "run_fold", never)
    with pytest.raises(UserError, match=r"3 trials in a row failed.*ZeroDivisionError: division"):
        run(tiny_work(tmp_path, budget=10))


def test_an_interrupted_search_has_the_trials_of_an_uninterrupted_one(tmp_path, monkeypatch):
    whole = run(tiny_work(tmp_path / "whole", budget=5))
    work = tiny_work(tmp_path / "cut", budget=5)
    true_run = nas.performance_estimation.run_fold
    calls = 0

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls % 4 == 0:
            raise KeyboardInterrupt
        return true_run(*args, **kwargs)

    monkeypatch.setattr(nas.performance_estimation, "run_fold", interrupted)
    cut: list[TrialRecord] = []
    while not cut:
        try:
            cut = run(work)
        except KeyboardInterrupt:
            assert calls < 100
    assert calls >= 8

    def told(trials: list[TrialRecord]) -> list[TrialRecord]:
        return [replace(t, seconds=0, started_at="", finished_at="", worker=None) for t in trials]

    assert told(cut) == told(whole)


@pytest.mark.slow
def test_processes_make_exactly_the_budget(tmp_path):
    trials = run(tiny_work(tmp_path, budget=7), num_workers=3)
    trained = [t.candidate_id for t in trials if t.cached_from is None]
    assert len(trained) == len(set(trained)) == 7
    assert {t.state for t in trials} == {"validated"}


_DRIVE = """
from pathlib import Path
import sys
from test_trial_workers import tiny_work, run
from tests.held import hold_runs
hold_runs()
if __name__ == "__main__":
    run(tiny_work(Path(sys.argv[1]), budget=5, epochs=int(sys.argv[2])), num_workers=2)
"""


def drive(folder: Path, epochs: int, held: Held) -> subprocess.Popen[str]:
    file = folder / "drive.py"
    file.write_text(_DRIVE)
    paths = [TESTS.parent, TESTS, TESTS / "nas"]
    return subprocess.Popen(
        [sys.executable, str(file), str(folder), str(epochs)],
        stderr=subprocess.PIPE,
        text=True,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "OMP_NUM_THREADS": "1",
            **held.environment,
        },
    )


def workers_of(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [c for c in map(int, children) if b"spawn_main" in _command_line(c)]


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def is_alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def wait_until(condition: Any, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 600
    while not condition():
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_killed_workers_lose_no_fold_that_was_finished(tmp_path):
    """kill -9 of two workers in turn, and of the whole search: exact budget, no fold twice."""
    store = store_in(tmp_path)
    work = tiny_work(tmp_path, budget=5, epochs=20)

    held = Held(tmp_path / "held")

    def folds() -> int:
        return sum(t.folds_done for t in open_proposals(work, store).trials())

    def two_are_held() -> bool:
        workers = workers_of(process.pid)
        return len(workers) == 2 and held.training().issuperset(workers)

    held.allow(2)
    with drive(tmp_path, 20, held) as process:
        for after in (2, 5):
            wait_until(lambda after=after: folds() >= after, process)
            wait_until(two_are_held, process)
            os.kill(workers_of(process.pid)[0], signal.SIGKILL)
            held.allow(3)
        wait_until(lambda: folds() >= 8, process)
        left = workers_of(process.pid)
        process.kill()
        process.communicate()
    deadline = time.monotonic() + 600
    while any(map(is_alive, left)):
        assert time.monotonic() < deadline, "they end with their parent"
        time.sleep(0.02)
    held.let_go()
    before = {t.number: (t.folds_done, t.fold_scores) for t in open_proposals(work, store).trials()}
    with drive(tmp_path, 20, held) as process:
        _, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    trials = open_proposals(work, store).trials()
    assert num_counted(trials) == 5
    assert {t.state for t in trials} == {"validated"}
    for number, (done, scores) in before.items():
        assert trials[number].fold_scores[:done] == scores
    (tmp_path / "whole").mkdir()
    whole = run(tiny_work(tmp_path / "whole", budget=5, epochs=20))
    by_candidate = {t.candidate_id: t.fold_scores for t in whole}
    common = [t for t in trials if t.candidate_id in by_candidate]
    assert common
    assert all(t.fold_scores == by_candidate[t.candidate_id] for t in common)
