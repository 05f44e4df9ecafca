"""How many workers one search keeps busy: up to 200 that propose, claim and conclude its trials.

    python benchmarks/bench_scaling_search.py                         # workers 1 to 200, trials of 30 s
    python benchmarks/bench_scaling_search.py --seconds 30 --workers 200    # folds of 30 s

A worker is one of `scaling_crowd.py`; it runs the loop of `unetpp worker` on one live search, with
TPE, the paper's networks first, and scores that it can learn from. Only a training is replaced, by a
wait, and what a network costs, which a worker computes by itself. Each stands for a machine of its
own. Its trials have three folds, of `--seconds` each, and none is given up. What the columns mean:

    of_ideal      trials a second (trials_s) over workers / (3 x seconds)
    joined_s      until the last worker began its first fold; all come at the same moment
    left_s        from the last record until the last worker knew that nothing was left
    line_s        that a worker waits for a turn, mean; line_max_s, the longest
    turn_ms       that a turn lasts; of it turn_cpu_ms of the worker's processor
    turns         for each trial: one to propose it and one to conclude it, with joining and leaving
    busy          share of the time until the last record in which somebody had the turn
    in_line       connections that wait for a lock of ours, the mean of samples 0.1 s apart
    waiting       the same for any other lock; waits, how often that took longer than 0.1 s

The script asserts: exactly the budget, no candidate twice, no fold trained twice, no claim left, all
trials ended in our ledger and in Optuna's tables with the same value, and no error of the server. Hoped
for: what bounds a search is the turn alone, and a turn does not become longer with the workers.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any
from unittest.mock import patch

import optuna
import sqlalchemy as sa
from bench_scaling_trials import plan
from optuna.trial import TrialState
from scaling_crowd import FakeTraining, run_crowd, show_rows
from scaling_server import Server, server_for

from nas import performance_estimation, proposals
from nas.performance_estimation import Estimation
from nas.proposals import Promise, ProposalPlan
from nas.racing import find_rule
from nas.search_space import Candidate
from nas.space_presets import references
from nas.stopping import Stop
from nas.trial_workers import SearchWork, open_proposals, work_on_trials
from tests.tiny_study import tiny_bench
from unetpp.database import exclusively
from unetpp.run import Bench
from unetpp.searches import num_counted
from unetpp.store import RecordStore

_COUNTS = (1, 10, 50, 100, 200)
_TRIALS_EACH, _FOLDS = 3, 3


@dataclass(frozen=True)
class Turn:
    """Seconds in line, in turn, and of the processor within it."""

    line: float
    held: float
    processor: float


class Turns:
    """Stands for `exclusively`, and times it."""

    def __init__(self) -> None:
        self.all: list[Turn] = []

    @contextmanager
    def __call__(self, engine: sa.Engine, name: str) -> Iterator[sa.Connection | None]:
        """As of `exclusively`."""
        asked = time.perf_counter()
        with exclusively(engine, name) as connection:
            begin, used = time.perf_counter(), time.thread_time()
            yield connection
            used = time.thread_time() - used
        end = time.perf_counter()
        self.all.append(Turn(line=begin - asked, held=end - begin, processor=used))


def search_work(server: Server, folder: Path, budget: int, *, seed: int) -> SearchWork:
    """A search of its own name, whose folds no search of another seed has."""
    given = plan()
    promised = references(given.space, given.common)
    wanted: ProposalPlan = replace(
        given,
        search=f"search-{seed}",
        budget=budget,
        promises=tuple(
            Promise(label=label, params=params, is_baseline=place == 0)
            for place, (label, params) in enumerate(promised)
        ),
    )
    return SearchWork(
        proposals=wanted,
        estimation=Estimation(
            metric="dice", costs=(), limits={}, rule=find_rule("none"), halving=None
        ),
        bench=tiny_bench(folder, seed=seed),
        store_url=server.url,
        folder=folder,
    )


def fake_price(_candidate: Candidate, _bench: Bench) -> dict[str, float]:
    """As of `price`."""
    return {"parameters": 9e6, "macs": 3e10, "memory_mb": 2048.0}


def measure(server: Server, work: SearchWork, number: int, seconds: float) -> dict[str, float]:
    """One row: `number` workers on this search."""
    store = RecordStore(server.url)
    open_proposals(work, store).promise()
    training, turns = FakeTraining(seconds), Turns()

    def one_worker() -> None:
        own = work.folder / f"{threading.get_native_id()}"
        own.mkdir()
        store = RecordStore(server.url)
        work_on_trials(replace(work, folder=own), store, on_trial=lambda _: None, stop=Stop())
        store.close()

    with ExitStack() as stack:
        for owner, name, fake in (
            (performance_estimation, "run_fold", training),
            (performance_estimation, "price", fake_price),
            (proposals, "exclusively", turns),
        ):
            stack.enter_context(patch.object(owner, name, fake))
        found = run_crowd(server, number, one_worker, lambda: (training, turns.all))
    trainings: list[FakeTraining] = [training for training, _ in found.reports]
    check(work, store, [run for training in trainings for run in training.trained])
    store.close()
    budget = work.proposals.budget
    last = max(training.last for training in trainings)
    first = max(begun for training in trainings for begun in training.first.values())
    all_turns: list[Turn] = [turn for _, part in found.reports for turn in part]
    rate = budget / (last - found.begin)
    return {
        "workers": number, "seconds": seconds, "trials": budget, "trials_s": round(rate, 3),
        "of_ideal": round(rate * _FOLDS * seconds / number, 3),
        "joined_s": round(first - found.begin, 1),
        "left_s": round(found.begin + found.clock - last, 1),
        "line_s": round(fmean(turn.line for turn in all_turns), 3),
        "line_max_s": round(max(turn.line for turn in all_turns), 2),
        "turn_ms": round(1000 * fmean(turn.held for turn in all_turns)),
        "turn_cpu_ms": round(1000 * fmean(turn.processor for turn in all_turns)),
        "turns": round(len(all_turns) / budget, 2),
        "busy": round(sum(turn.held for turn in all_turns) / (last - found.begin), 2),
        "worker_ms": round(1000 * found.worker_seconds / budget),
        "server_ms": round(1000 * found.server_seconds / budget),
        "transactions": round(found.transactions / budget),
        "connections": max(sample.connections for sample in found.samples),
        "in_line": round(fmean(sample.in_line for sample in found.samples), 1),
        "waiting": round(fmean(sample.waiting for sample in found.samples), 2),
        "waits": found.waits,
    }  # fmt: skip


def check(work: SearchWork, store: RecordStore, trained: list[str]) -> None:
    """What must be true of a search that is over."""
    plan = work.proposals
    trials = open_proposals(work, store).trials()
    own = [trial for trial in trials if trial.cached_from is None]
    assert num_counted(trials) == len(own) == plan.budget, (len(own), plan.budget)
    assert len({trial.candidate_id for trial in own}) == len(own), "a candidate came twice"
    assert {trial.state for trial in trials} == {"validated"}
    assert len(trained) == len(set(trained)) == _FOLDS * len(own), "a fold was trained twice"
    with store.engine.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM claims")).scalar_one() == 0
    told = optuna.load_study(study_name=plan.search, storage=store.url).get_trials()
    assert {trial.state for trial in told} == {TrialState.COMPLETE}
    assert [(trial.number, trial.value) for trial in told] == [(t.number, t.value) for t in trials]


def main() -> None:
    """Start a server, and measure one number of workers after the other."""
    parser = argparse.ArgumentParser(description="Simulate many workers on one search.")
    parser.add_argument("--workers", type=int, nargs="+", default=_COUNTS)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a fold; a trial has three")
    parser.add_argument("--out", type=Path, help="a CSV of the rows")
    given: Any = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    rows: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as scratch, server_for(1000) as server:
        RecordStore(server.url).close()
        for place, number in enumerate(given.workers):
            budget = max(5, _TRIALS_EACH * number)
            folder = Path(scratch) / f"{place}"
            folder.mkdir()
            work = search_work(server, folder, budget, seed=place)
            rows.append(measure(server, work, number, given.seconds))
            show_rows(rows, given.out)


if __name__ == "__main__":
    main()
