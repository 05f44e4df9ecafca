"""A worker: trains what a study or a search in a store still needs, beside any number of others.

It prepares what the command prepared, from what that keeps in the store, and refuses to work when
something comes out otherwise here: other data, other folds, another version.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import ConfigDict, TypeAdapter

from nas.performance_estimation import TrialProgress
from nas.stopping import Stop
from nas.trial_workers import open_proposals, work_on_trials
from nas.workers import FoldProgress, FoldTask, refuse_failures, work_off
from studies._catalog import find_study
from studies._prepare import check_promise, prepare
from studies._progress import Reporter
from studies._search_decision import decide
from studies._search_options import SearchOptions
from studies._search_prepare import SEARCH, check_search_promise, prepare_search
from studies._setting_json import setting_from_json
from studies._study import Placing, Setting
from studies._tasks import tasks_of
from unetpp.data.folds_file import read_folds
from unetpp.errors import UserError
from unetpp.run import Bench
from unetpp.searches import SearchLedger, describe
from unetpp.store import RecordStore


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerCall:
    """What a worker is told; the rest is in the store.

    Attributes:
        store: its URL.
        study: name of a study, or "search"; None for the only one there.
        data: the folder of the data here, where it is another than the command's.
        cache: folder of decoded images here, likewise; None is the command's, or this user's own
            where the command named none.
        encoder_weights: the file here, likewise.
        out: the study's folder here, likewise.
        artifacts: the place of networks and checkpoints as it is reached from here, likewise.
        device: None for the first GPU, else the CPU.
        threads: of the CPU; None for all.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    store: str
    study: str | None = None
    data: str | None = None
    cache: str | None = None
    encoder_weights: str | None = None
    out: str | None = None
    artifacts: str | None = None
    device: str | None = None
    threads: int | None = None

    def to_json(self) -> str:
        """All of it."""
        return _CALL_JSON.dump_json(self).decode()

    @staticmethod
    def from_json(text: str) -> WorkerCall:
        """What `to_json` wrote; pydantic's ValidationError on anything else."""
        return _CALL_JSON.validate_json(text)


_CALL_JSON = TypeAdapter(WorkerCall)


def run_worker(call: WorkerCall, reporter: Reporter, stop: Stop) -> None:
    """Work until everything is recorded, by this worker or by others.

    Raises:
        UserError: when there is nothing to work on, or it comes out otherwise here; or when folds
            failed, after all others are done.
        PreemptedError: when this process was asked to end; what it was at is given back.
    """
    if call.threads is not None:
        torch.set_num_threads(call.threads)
    store = RecordStore(call.store)
    try:
        name = _the_study(store, call.study)
        if name == SEARCH:
            _work_on_search(call, store, reporter, stop)
        else:
            _work_on_study(name, call, store, reporter, stop)
    finally:
        store.close()


def _the_study(store: RecordStore, asked: str | None) -> str:
    known = [*store.studies(), *SearchLedger(store).searches()]
    if asked is None and len(known) == 1:
        return known[0]
    if asked is None or asked not in known:
        raise UserError(
            "a worker needs the name of a study that was started in the store, but "
            f"{'none is given' if asked is None else f'{asked} is not there'} "
            f"(there: {', '.join(known) or 'none'}); start it first with "
            "`unetpp run STUDY --store URL --workers 0`, or name another --study"
        )
    return asked


def _work_on_study(
    name: str, call: WorkerCall, store: RecordStore, reporter: Reporter, stop: Stop
) -> None:
    kept = store.manifest(name)
    assert kept is not None
    setting = _here(setting_from_json(kept.setting), call)
    ready = prepare(find_study(name), setting, reporter)
    check_promise(kept, ready, call.store)
    _check_place(ready.bench, setting)
    tasks = tasks_of(ready)
    count = len(store.recorded([task.id for task in tasks]))
    reporter.say(f"{name}  works along; {count} of {len(tasks)} runs are recorded")
    _work_off(f"{name}  ", tasks, store, reporter, stop)
    reporter.say(f"{name}  all {len(tasks)} runs are recorded; this worker ends")


def _work_on_search(call: WorkerCall, store: RecordStore, reporter: Reporter, stop: Stop) -> None:
    kept = SearchLedger(store).manifest(SEARCH)
    assert kept is not None
    options = SearchOptions.from_json(kept.options)
    options = replace(
        options,
        data=call.data or options.data,
        cache=call.cache or options.cache,
        encoder_weights=call.encoder_weights or options.encoder_weights,
        out=call.out or options.out,
        artifacts=call.artifacts or (options.artifacts if call.out is None else None),
        store=call.store,
        device=call.device,
        workers=1,
        placing=Placing(),
    )
    ready = prepare_search(options, reporter)
    check_search_promise(kept, ready)
    _check_place(ready.bench, ready.setting)

    def on_trial(event: TrialProgress) -> None:
        if event.trial.state != "running":
            reporter.say(
                f"search  trial {event.trial.number} {describe(event.trial)}  {event.trial.state}"
            )

    reporter.say("search  works along")
    work_on_trials(ready.work, store, on_trial=on_trial, stop=stop)
    trials = open_proposals(ready.work, store).trials()
    decide(
        ready,
        store,
        kept,
        trials,
        lambda what, tasks: _work_off(f"search {what}  trial ", tasks, store, reporter, stop),
    )
    reporter.say("search  all is recorded; this worker ends")


def _check_place(bench: Bench, setting: Setting) -> None:
    """Refuse to put networks into a folder of this machine alone, where nobody would find them."""
    folder = bench.artifacts.folder
    if folder is None:
        return
    folds = folder / "folds.json"
    is_shared = folder.is_dir()
    if setting.artifacts is None:
        is_shared = folds.is_file() and read_folds(folds).hash == bench.folds.hash
    if not is_shared:
        raise UserError(
            f"a worker puts networks where the command finds them, but {folder} is not the study's "
            "folder on this machine; mount it, name it with --out, or give --artifacts to both"
        )


def _here(setting: Setting, call: WorkerCall) -> Setting:
    """The command's setting with the places of this machine."""
    data = setting.data
    if data is None:
        for name, given in (("--data", call.data), ("--cache", call.cache)):
            if given is not None:
                raise UserError(
                    f"a study on embedded data reads no folder, but {name} is {given}; leave it out"
                )
    else:
        data = replace(
            data,
            folder=data.folder if call.data is None else Path(call.data),
            cache=data.cache if call.cache is None else Path(call.cache),
        )
    return replace(
        setting,
        data=data,
        encoder_weights=call.encoder_weights or setting.encoder_weights,
        device=call.device,
        placing=Placing(),
        out=setting.out if call.out is None else Path(call.out),
        store=call.store,
        artifacts=call.artifacts or (setting.artifacts if call.out is None else None),
    )


def _work_off(
    start: str, tasks: Sequence[FoldTask], store: RecordStore, reporter: Reporter, stop: Stop
) -> None:
    refuse_failures(
        tasks, work_off(tasks, store, on_progress=_teller(start, tasks, store, reporter), stop=stop)
    )


def _teller(
    start: str, tasks: Sequence[FoldTask], store: RecordStore, reporter: Reporter
) -> Callable[[FoldProgress], None]:
    """One line for each fold that was trained here; `start` goes before the arm."""
    ids = [task.id for task in tasks]

    def tell(event: FoldProgress) -> None:
        if event.log is None and event.trained:
            # Asked, as what others recorded meanwhile is told later, or not at all.
            reporter.say(
                f"{start}{event.arm}  fold {event.fold + 1}  seed {event.seed}  trained; "
                f"{len(store.recorded(ids))} of {len(ids)} runs are recorded"
            )

    return tell
