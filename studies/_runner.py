"""Runs a study in a folder: prepare, train, time, report. Started again, it goes on."""

from __future__ import annotations

import reports
from nas.engines import Engine, run_all
from nas.performance_estimation import mean_dice
from nas.search_strategy import note_arms
from nas.stopping import Stop, stopping_at_sigterm
from nas.workers import FoldProgress
from studies._engines import engine_of, say_who_works
from studies._evidence import take_evidence
from studies._folder import alone_in, driving, invocation_of, now
from studies._prepare import Prepared, keep_promise, open_store, prepare
from studies._progress import Reporter, Tally
from studies._study import Setting, Study
from studies._tasks import tasks_of
from unetpp.database import wait_for
from unetpp.records import ArmEntry
from unetpp.run import is_done
from unetpp.store import RecordStore


def run_study(study: Study, setting: Setting, reporter: Reporter) -> reports.Report:
    """Run what is not recorded yet, then measure latencies and write the report.

    Raises:
        UserError: on bad input, before anything is trained or written; or when folds failed, after
            all others are trained.
        PreemptedError: when this process was asked to end; the same call goes on.
    """
    ready = prepare(study, setting, reporter)
    with alone_in(setting.out):
        store = open_store(setting)
        with stopping_at_sigterm() as stop, driving(store, study.name, reporter, stop):
            ready.bench.artifacts.make_folder()
            keep_promise(store, ready, setting.out)
            number = store.begin_invocation(study.name, invocation_of(ready.bench.device))
            if study.trains:
                with engine_of(setting, study.name) as engine:
                    train_arms(ready, store, engine, reporter, stop)
                take_evidence(ready, store, setting.out, reporter, stop)
                stop.check()
            store.finish_invocation(number, now())
        store.close()
        return reports.build(setting.out, shown=study.name, store=setting.store)


def train_arms(
    ready: Prepared, store: RecordStore, engine: Engine, reporter: Reporter, stop: Stop
) -> None:
    """Cross-validate every arm; each is a trial of one optuna.Study in the same database."""
    tasks = tasks_of(ready)
    arms = {arm.name: arm for arm in ready.manifest.arms}
    seeds = ready.manifest.seeds
    tally = Tally(
        ready.study.name,
        labels={name: _full_label(arm) for name, arm in arms.items()},
        weights={name: float(arm.macs) for name, arm in arms.items()},
        num_folds=ready.bench.folds.num_folds,
        epochs=ready.bench.recipe.epochs,
        num_seeds=len(seeds),
    )
    done = [t for t in tasks if is_done(t.bench, t.spec, t.fold, store)]
    for t in done:
        tally.add(FoldProgress(arm=t.arm, fold=t.fold, seed=t.seed, log=None, trained=False))
    if done:
        reporter.say(f"{ready.study.name}  {len(done)} of {len(tasks)} runs are recorded already")
    if len(done) < len(tasks):
        say_who_works(engine, ready.study.name, store.url, reporter)
    with reporter.training(tally) as on_progress:
        run_all(tasks, store, engine=engine, on_progress=on_progress, stop=stop)
    scores = {
        name: mean_dice(spec, ready.bench, store, seeds=seeds) for name, spec in ready.specs.items()
    }
    name, url = ready.study.name, store.url
    wait_for(store.engine, lambda: note_arms(name, scores, storage_url=url))


def _full_label(arm: ArmEntry) -> str:
    return f"{arm.label} DS" if arm.deep_supervision else arm.label
