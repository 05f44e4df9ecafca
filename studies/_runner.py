"""Runs a study in a folder: prepare, train, time, report. Started again, it goes on."""

from __future__ import annotations

from dataclasses import replace

import reports
from nas.performance_estimation import cross_validate
from nas.search_strategy import try_every_arm
from nas.workers import FoldProgress, fold_runner
from studies._evidence import take_evidence
from studies._folder import alone_in, invocation_of, now
from studies._prepare import Prepared, keep_promise, prepare
from studies._progress import Reporter, Tally
from studies._study import Setting, Study
from unetpp.records import ArmEntry
from unetpp.run import is_done
from unetpp.store import RecordStore


def run_study(study: Study, setting: Setting, reporter: Reporter) -> reports.Report:
    """Run what is not recorded yet, then measure latencies and write the report.

    Raises:
        UserError: on bad input, before anything is trained or written.
    """
    ready = prepare(study, setting, reporter)
    with alone_in(setting.out):
        store = RecordStore.open_folder(setting.out)
        keep_promise(store, ready, setting.out)
        number = store.begin_invocation(study.name, invocation_of(ready.bench.device))
        if study.trains:
            train_arms(ready, store, setting.num_workers, reporter)
            take_evidence(ready, store, setting.out, reporter)
        store.finish_invocation(number, now())
        store.close()
        return reports.build(setting.out, shown=study.name)


def train_arms(ready: Prepared, store: RecordStore, num_workers: int, reporter: Reporter) -> None:
    """Cross-validate every arm, as the trials of one optuna.Study in the same database."""
    bench, arms = ready.bench, {arm.name: arm for arm in ready.manifest.arms}
    seeds = ready.manifest.seeds
    tally = Tally(
        ready.study.name,
        labels={name: _full_label(arm) for name, arm in arms.items()},
        weights={name: float(arm.macs) for name, arm in arms.items()},
        num_folds=bench.folds.num_folds,
        epochs=bench.recipe.epochs,
        num_seeds=len(seeds),
    )
    recorded = [
        FoldProgress(arm=arm, fold=fold, seed=seed, log=None, trained=False)
        for arm, spec in ready.specs.items()
        for seed in seeds
        for fold in range(bench.folds.num_folds)
        if is_done(replace(bench, seed=seed), spec, fold, store)
    ]
    for event in recorded:
        tally.add(event)
    if recorded:
        num_runs = len(arms) * len(seeds) * bench.folds.num_folds
        reporter.say(f"{ready.study.name}  {len(recorded)} of {num_runs} runs are recorded already")
    with (
        reporter.training(tally) as on_progress,
        fold_runner(bench, store, num_workers=num_workers, on_progress=on_progress) as run_folds,
    ):
        try_every_arm(
            ready.study.name,
            list(arms),
            lambda arm: cross_validate(arm, ready.specs[arm], bench, store, run_folds, seeds=seeds),
            storage_url=store.url,
            num_parallel=num_workers,
        )


def _full_label(arm: ArmEntry) -> str:
    return f"{arm.label} DS" if arm.deep_supervision else arm.label
