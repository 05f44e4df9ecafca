"""Runs a search in a folder: trials, fresh folds, test, report. Started again, it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rich.console import Console

import reports
from nas.confirmation import baseline_of, confirmed_score, run_key, to_confirm
from nas.trial_workers import open_proposals, run_trials
from nas.workers import FoldProgress, FoldTask, fold_runner
from studies._folder import alone_in, invocation_of, now
from studies._progress import Reporter, Tally
from studies._search_options import SearchOptions
from studies._search_prepare import (
    SEARCH,
    PreparedSearch,
    keep_search_promise,
    prepare_search,
)
from studies._search_progress import SearchTally, cost_in_baselines, watching
from unetpp.errors import UserError
from unetpp.recipe import TrainRecipe
from unetpp.run import Bench
from unetpp.searches import (
    SearchLedger,
    SearchManifest,
    SearchResult,
    TrialRecord,
    describe,
    is_allowed,
    macs_in_baselines,
)
from unetpp.spec import GridSpec
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
    with alone_in(ready.setting.out):
        store = RecordStore.open_folder(ready.setting.out)
        ledger = SearchLedger(store)
        manifest = keep_search_promise(ledger, ready)
        start = store.begin_invocation(SEARCH, invocation_of(ready.bench.device))
        proposals = open_proposals(ready.work, store)
        tally = SearchTally(manifest, proposals.trials(), options.workers)
        with watching(console, tally) as on_trial:
            run_trials(ready.work, store, num_workers=options.workers, on_trial=on_trial)
        trials = proposals.trials()
        cost = cost_in_baselines(trials)
        for line in SearchTally(manifest, trials, options.workers).summary()[:-1]:
            reporter.say(line)
        macs = macs_in_baselines(trials)
        if cost is not None and macs is not None:
            reporter.say(
                f"cost of the search: {cost:.1f} x the time of one baseline on all folds, "
                f"{macs:.1f} x its arithmetic"
            )
        result = _decide(ready, store, manifest, trials, reporter)
        ledger.put_result(SEARCH, replace(result, importances=proposals.importances()))
        store.finish_invocation(start, now())
        store.close()
        return Searched(report=reports.build_search(ready.setting.out), cost=cost)


def _decide(
    ready: PreparedSearch,
    store: RecordStore,
    manifest: SearchManifest,
    trials: Sequence[TrialRecord],
    reporter: Reporter,
) -> SearchResult:
    """Train the best again, name the winner by that, and test it beside the baseline."""
    chosen = to_confirm(trials, manifest, max(1, manifest.top_k))
    if not any(map(is_allowed, chosen)):
        raise UserError(
            f"a winner must be trained on all folds within the limits, but none of {len(trials)} "
            "trials is; raise the limits or the --budget, and the same command goes on"
        )
    if ready.confirmation:
        _train_again("fresh folds", chosen, ready.confirmation, ready, store, reporter)
        score = {t.number: confirmed_score(t, ready.confirmation, store, manifest) for t in chosen}
        chosen = sorted(chosen, key=lambda t: (-score[t.number], t.costs["macs"]))
    # The baseline is trained again for comparison; it wins only if it is allowed to.
    winner = next(t for t in chosen if is_allowed(t))
    if ready.tests:
        baseline = [t for t in baseline_of(trials) if t.number != winner.number]
        _train_again("test", [winner, *baseline], ready.tests, ready, store, reporter)
    return SearchResult(
        confirmed=tuple(t.number for t in chosen) if ready.confirmation else (),
        winner=winner.number,
        importances={},
        finished_at=now(),
    )


def _train_again(
    what: str,
    trials: Sequence[TrialRecord],
    benches: Sequence[Bench],
    ready: PreparedSearch,
    store: RecordStore,
    reporter: Reporter,
) -> None:
    """Train the networks of these trials on each bench, as far as the store lacks them."""
    labels = {f"{trial.number}": describe(trial) for trial in trials}
    weights = {f"{trial.number}": trial.costs["macs"] for trial in trials}
    for index, bench in enumerate(benches):
        tally = Tally(
            f"{what} {index + 1}/{len(benches)}",
            labels=labels,
            weights=weights,
            num_folds=bench.folds.num_folds,
            epochs=bench.recipe.epochs,
        )
        for trial in trials:
            for fold in range(bench.folds.num_folds):
                if store.run(run_key(trial, bench, fold)) is not None:
                    tally.add(
                        FoldProgress(arm=f"{trial.number}", fold=fold, log=None, trained=False)
                    )
        with reporter.training(tally) as on_progress:
            for recipe in {trial.recipe for trial in trials}:
                own = replace(bench, recipe=TrainRecipe.from_json(recipe))
                tasks = [
                    FoldTask(arm=f"{trial.number}", spec=GridSpec.from_json(trial.spec), fold=fold)
                    for trial in trials
                    if trial.recipe == recipe
                    for fold in range(bench.folds.num_folds)
                ]
                with fold_runner(
                    own, store, num_workers=ready.options.workers, on_progress=on_progress
                ) as run_folds:
                    run_folds(tasks)
