"""A worker in a process of its own that can be made to wait at a named point, or to have trouble.

It says what happens in its log, and notes each epoch that it begins in a file that all share.
"""

from __future__ import annotations

import functools
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

import nas.proposals
import nas.trial_workers
import nas.workers
import studies._worker
import studies.cli
import unetpp.processes
import unetpp.run
import unetpp.store
import unetpp.training.loop
from nas.performance_estimation import Estimation
from nas.racing import find_rule
from nas.stopping import PreemptedError, stopping_at_sigterm
from tests.tiny_study import tiny_bench, tiny_plan, tiny_spec
from unetpp.claims import LEASE_S, Claims
from unetpp.errors import UserError
from unetpp.places import FolderPlace
from unetpp.recipe import TrainRecipe
from unetpp.searches import SearchLedger
from unetpp.spec import GridSpec
from unetpp.store import RecordStore
from unetpp.training.checkpoints import Keeper
from unetpp.training.feed import Feed

_PREEMPTED, _REFUSED = 143, 2


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker is to do.

    Attributes:
        kind: folds of two networks, the trials of a small search, the runs of a search once more,
            or a command.
        url: of the store.
        folder: of the artifacts.
        log: file of all that it says.
        begun: file with a line for each epoch that any worker begins.
        epochs, seed, budget: of the bench and the search.
        lease: in seconds.
        pause: a point at which it says so and waits, see `POINTS`.
        nth: at which call.
        stage: only in this part of a search: "fresh folds" or "test".
        trouble: see `TROUBLES`.
        target: id of the run that has the trouble; "" for the first that this worker trains.
        command: what follows `unetpp`; of a replay the store of the search.
    """

    kind: Literal["folds", "trials", "replay", "command"]
    url: str
    folder: str
    log: str
    begun: str
    epochs: int = 4
    seed: int = 0
    budget: int = 0
    lease: float = LEASE_S
    pause: str = ""
    nth: int = 1
    stage: str = ""
    trouble: tuple[str, ...] = ()
    target: str = ""
    command: tuple[str, ...] = ()


def tasks_of(job: Job) -> list[nas.workers.FoldTask]:
    """Six folds: two networks on three folds each."""
    bench = tiny_bench(Path(job.folder), seed=job.seed, epochs=job.epochs)
    return [
        nas.workers.FoldTask(arm=arm, spec=tiny_spec(nested=nested), fold=fold, bench=bench)
        for arm, nested in (("unetpp", True), ("unet", False))
        for fold in range(bench.folds.num_folds)
    ]


def search_of(job: Job) -> nas.trial_workers.SearchWork:
    """A search whose trials are trained on all folds, so that it makes exactly its budget."""
    bench = tiny_bench(Path(job.folder), seed=job.seed, epochs=job.epochs)
    return nas.trial_workers.SearchWork(
        proposals=tiny_plan(bench, budget=job.budget),
        estimation=Estimation(
            metric="dice", costs=(), limits={}, rule=find_rule("none"), halving=None
        ),
        bench=bench,
        store_url=job.url,
        folder=Path(job.folder),
    )


def run(job: Job) -> None:
    """Work; the exit code is that of the command."""
    number = os.open(job.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(number, 1)
    os.dup2(number, 2)
    torch.set_num_threads(1)
    current = count_epochs(Path(job.begun))
    for name in job.trouble:
        TROUBLES[name](job, current)
    if job.pause:
        _wait_at(job)
    try:
        _WORK[job.kind](job)
    except PreemptedError:
        _say("preempted")
        sys.exit(_PREEMPTED)
    except UserError as error:
        _say(f"error: {error}")
        sys.exit(_REFUSED)
    except Exception:
        traceback.print_exc()
        raise
    _say("done")


def _work_on_folds(job: Job) -> None:
    store, tasks = RecordStore(job.url), tasks_of(job)
    with stopping_at_sigterm() as stop:
        _say("begins")
        failed = nas.workers.work_off(tasks, store, on_progress=_tell, stop=stop, lease=job.lease)
    nas.workers.refuse_failures(tasks, failed)


def _work_on_trials(job: Job) -> None:
    store = RecordStore(job.url)
    work = search_of(job)
    nas.trial_workers.open_proposals(work, store, lease=job.lease).promise()
    with stopping_at_sigterm() as stop:
        _say("begins")
        nas.trial_workers.work_on_trials(
            work, store, on_trial=lambda _: None, stop=stop, lease=job.lease
        )


def _replay(job: Job) -> None:
    work, place = search_of(job), RecordStore(job.command[0])
    trials = SearchLedger(place).trials(work.proposals.search)
    place.close()
    for trial in trials:
        bench = replace(work.bench, recipe=TrainRecipe.from_json(trial.recipe))
        for fold in range(bench.folds.num_folds):
            unetpp.run.run_fold(bench, GridSpec.from_json(trial.spec), fold, RecordStore(job.url))


def _command(job: Job) -> None:
    sys.argv = ["unetpp", *job.command]
    studies.cli.main()


_WORK: dict[str, Callable[[Job], None]] = {
    "folds": _work_on_folds,
    "trials": _work_on_trials,
    "replay": _replay,
    "command": _command,
}


def _tell(event: nas.workers.FoldProgress) -> None:
    what = "recorded" if event.log is None else f"epoch {event.log.epoch}"
    _say(f"{event.arm} fold {event.fold + 1} {what}")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


# --- what is counted


@dataclass
class _Current:
    """The run that is trained now."""

    run: str = ""
    epoch: int = 0


def count_epochs(begun: Path) -> _Current:
    """From now on this process notes there each epoch that it begins: run, epoch, itself."""
    current = _Current()
    train, batches = unetpp.run._train, Feed.training_batches

    def noted_train(bench: Any, spec: Any, fold: int, *rest: Any) -> Any:
        current.run = bench.key(spec, fold).id
        return train(bench, spec, fold, *rest)

    def noted_batches(self: Feed, recipe: Any, *, seed: int, epoch: int) -> Any:
        current.epoch = epoch
        with begun.open("a") as file:
            file.write(f"{current.run} {epoch} {os.getpid()}\n")
        return batches(self, recipe, seed=seed, epoch=epoch)

    unetpp.run._train = noted_train
    Feed.training_batches = noted_batches
    return current


# --- points


@dataclass(frozen=True)
class _Point:
    """A call, or the time after it, perhaps only within another call."""

    owner: Any
    name: str
    after: bool = False
    within: tuple[Any, str] | None = None


POINTS = {
    "claimed": _Point(Claims, "claim_one", after=True),
    "training": _Point(unetpp.training.loop, "_step"),
    "checkpoint": _Point(os, "fsync", within=(FolderPlace, "write")),
    "epoch kept": _Point(Keeper, "keep", after=True),
    "scoring": _Point(unetpp.run, "score_cases"),
    "weights": _Point(os, "fsync", within=(FolderPlace, "publish")),
    "weights stored": _Point(unetpp.run, "_put", after=True),
    "committing": _Point(unetpp.store, "_insert", within=(RecordStore, "add_run")),
    "committed": _Point(RecordStore, "add_run", after=True),
    "giving back": _Point(Claims, "give_back"),
    "proposing": _Point(SearchLedger, "add_trial"),
    "proposed": _Point(SearchLedger, "add_trial", after=True),
    "noting": _Point(nas.proposals.Proposals, "note"),
    "concluding": _Point(nas.proposals.Proposals, "_tell"),
}


def go_file(log: str) -> Path:
    """While it is missing, a worker waits at its point."""
    return Path(f"{log}.go")


def _wait_at(job: Job) -> None:
    point, calls, depth = POINTS[job.pause], 0, 0
    stage = _follow_stages()
    true = getattr(point.owner, point.name)
    if point.within is not None:
        outer = getattr(*point.within)

        @functools.wraps(outer)
        def entered(*args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            depth += 1
            try:
                return outer(*args, **kwargs)
            finally:
                depth -= 1

        setattr(*point.within, entered)

    @functools.wraps(true)
    def waiting(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        result = true(*args, **kwargs) if point.after else None
        if (point.within is None or depth) and job.stage in stage[-1]:
            calls += 1
            if calls == job.nth:
                _say(f"at {job.pause}")
                while not go_file(job.log).exists():
                    time.sleep(0.01)
        return result if point.after else true(*args, **kwargs)

    setattr(point.owner, point.name, waiting)


def _follow_stages() -> list[str]:
    """Its last is that at which a worker of a search is."""
    stages, true = [""], studies._worker._work_off

    def work_off(what: str, *rest: Any) -> None:
        stages.append(what)
        true(what, *rest)

    studies._worker._work_off = work_off
    return stages


# --- troubles


def _in_steps_of_the_target(job: Job, current: _Current, action: Callable[[], None]) -> None:
    """Before each step of the second epoch."""
    true = unetpp.training.loop._step
    target = job.target

    def step(*args: Any, **kwargs: Any) -> Any:
        nonlocal target
        target = target or current.run
        if current.run == target and current.epoch == 2:
            action()
        return true(*args, **kwargs)

    unetpp.training.loop._step = step


def _far(job: Job, current: _Current) -> None:
    """As a process of another machine, of which nobody here can know whether it lives."""
    unetpp.processes._here = lambda: ("another machine", job.log)  # type: ignore[assignment]


def _wild_clock(job: Job, current: _Current) -> None:
    """The wall clock jumps by years, back and forth."""
    true, calls = time.time, 0

    def wild() -> float:
        nonlocal calls
        calls += 1
        return true() + (-1) ** calls * 3e8

    time.time = wild


def _no_lease(job: Job, current: _Current) -> None:
    """It waits for ever for whoever gives no sign of life, unless that is known to be dead."""
    true = Claims.__init__

    def made(self: Claims, *args: Any, **kwargs: Any) -> None:
        true(self, *args, **kwargs)
        self.is_lost = lambda state: (
            state.holder is not None
            and unetpp.processes.is_dead(  # type: ignore[method-assign]
                state.holder
            )
        )

    Claims.__init__ = made  # type: ignore[method-assign]


def _not_a_number(job: Job, current: _Current) -> None:
    true, target = unetpp.training.loop._step, job.target

    def step(*args: Any, **kwargs: Any) -> Any:
        nonlocal target
        target = target or current.run
        loss = true(*args, **kwargs)
        return loss * float("nan") if current.run == target else loss

    unetpp.training.loop._step = step


def _out_of_memory(job: Job, current: _Current) -> None:
    def action() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    _in_steps_of_the_target(job, current, action)


def _limited_memory(job: Job, current: _Current) -> None:
    """The system really refuses memory."""

    def action() -> None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**26, -1))
        try:
            torch.ones(2**28)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (-1, -1))

    _in_steps_of_the_target(job, current, action)


def _dies(job: Job, current: _Current) -> None:
    _in_steps_of_the_target(job, current, lambda: os.kill(os.getpid(), signal.SIGKILL))


def _lost_answer(job: Job, current: _Current) -> None:
    """The connection is cut when the server has committed and before the worker knows it."""
    import psycopg
    from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

    commit, add = PGDialect_psycopg.do_commit, RecordStore.add_run
    adding, lost = False, False

    def do_commit(self: Any, dbapi_connection: Any) -> None:
        nonlocal lost
        commit(self, dbapi_connection)
        if adding and not lost:
            lost = True
            own = dbapi_connection.driver_connection
            with psycopg.connect(own.info.dsn, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", (own.info.backend_pid,))
            _say("cut after the commit")
            own.execute("SELECT 1")

    def add_run(*args: Any, **kwargs: Any) -> None:
        nonlocal adding
        adding = True
        try:
            add(*args, **kwargs)
        finally:
            adding = False

    PGDialect_psycopg.do_commit = do_commit
    RecordStore.add_run = add_run  # type: ignore[method-assign]


TROUBLES: dict[str, Callable[[Job, _Current], None]] = {
    "far": _far,
    "wild clock": _wild_clock,
    "no lease": _no_lease,
    "not a number": _not_a_number,
    "out of memory": _out_of_memory,
    "limited memory": _limited_memory,
    "dies": _dies,
    "lost answer": _lost_answer,
}
