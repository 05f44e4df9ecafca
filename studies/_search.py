"""Runs a search in a folder: trials, fresh folds, test, report. Started again, it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console

import reports
from nas.engines import Engine, run_all
from nas.stopping import Stop, stopping_at_sigterm
from nas.trial_workers import open_proposals, run_trials
from nas.workers import FoldProgress, FoldTask
from studies._engines import engine_of, say_who_works
from studies._folder import alone_in, driving, invocation_of, now
from studies._prepare import open_store
from studies._progress import Reporter, Tally
from studies._search_decision import decide
from studies._search_options import SearchOptions
from studies._search_prepare import (
    SEARCH,
    PreparedSearch,
    keep_search_promise,
    prepare_search,
)
from studies._search_progress import SearchTally, cost_in_baselines, watching
from unetpp.data.folds_file import folds_to_json, write_folds
from unetpp.searches import SearchLedger, TrialRecord, describe, macs_in_baselines
from unetpp.store import RecordStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What a search ended with.

    Attributes:
        report: of all of it.
        cost: of its trials, in trainings of the baseline on all folds.
    """

    report: reports.Report
    cost: float | None


def run_search(options: SearchOptions, console: Console) -> Searched:
    """Make the trials that are missing, confirm, test, and write the report.

    Raises:
        UserError: on bad input, before anything is trained or written; or when no trial is valid.
    """
    reporter = Reporter(console)
    ready = prepare_search(options, reporter)
    with alone_in(ready.setting.out), engine_of(ready.setting, SEARCH) as engine:
        store = open_store(ready.setting)
        with stopping_at_sigterm() as stop, driving(store, SEARCH, reporter, stop):
            cost = _search(ready, store, engine, console, stop)
        store.close()
        report = reports.build_search(ready.setting.out, store=ready.setting.store)
        return Searched(report=report, cost=cost)


def _search(
    ready: PreparedSearch, store: RecordStore, engine: Engine, console: Console, stop: Stop
) -> float | None:
    """All of it but the report; what the trials cost, in baselines."""
    reporter, ledger, workers = Reporter(console), SearchLedger(store), ready.options.workers
    ready.bench.artifacts.make_folder()
    manifest = keep_search_promise(ledger, ready)
    store.put_split(ready.bench.folds.hash, folds_to_json(ready.bench.folds))
    # By this a worker knows the folder when it sees it.
    if not (ready.setting.out / "folds.json").is_file():
        write_folds(ready.bench.folds, ready.setting.out / "folds.json")
    start = store.begin_invocation(SEARCH, invocation_of(ready.bench.device))
    proposals = open_proposals(ready.work, store)
    tally = SearchTally(manifest, proposals.trials(), workers)
    say_who_works(engine, SEARCH, store.url, reporter)
    with watching(console, tally) as on_trial:
        run_trials(ready.work, store, engine=engine, on_trial=on_trial, stop=stop)
    trials = proposals.trials()
    cost = cost_in_baselines(trials)
    for line in SearchTally(manifest, trials, workers).summary()[:-1]:
        reporter.say(line)
    macs = macs_in_baselines(trials)
    if cost is not None and macs is not None:
        reporter.say(
            f"cost of the search: {cost:.1f} x the time of one baseline on all folds, "
            f"{macs:.1f} x its arithmetic"
        )

    def train_again(what: str, tasks: Sequence[FoldTask]) -> None:
        with reporter.training(_tally(what, tasks, trials, store)) as on_progress:
            run_all(tasks, store, engine=engine, on_progress=on_progress, stop=stop)

    result = decide(ready, store, manifest, trials, train_again)
    ledger.put_result(SEARCH, replace(result, importances=proposals.importances()))
    store.finish_invocation(start, now())
    return cost


def _tally(
    what: str, tasks: Sequence[FoldTask], trials: Sequence[TrialRecord], store: RecordStore
) -> Tally:
    """Of the second training of some trials, with what is recorded already."""
    by_name = {f"{trial.number}": trial for trial in trials}
    names = dict.fromkeys(task.arm for task in tasks)
    tally = Tally(
        what,
        labels={name: describe(by_name[name]) for name in names},
        weights={name: by_name[name].costs["macs"] for name in names},
        num_folds=tasks[0].bench.folds.num_folds,
        epochs=tasks[0].bench.recipe.epochs,
    )
    done = store.recorded([task.id for task in tasks])
    for task in tasks:
        if task.id in done:
            tally.add(
                FoldProgress(arm=task.arm, fold=task.fold, seed=task.seed, log=None, trained=False)
            )
    return tally
