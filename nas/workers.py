"""Who trains the folds: this process, or several on this machine. Callers cannot tell.

A fold is the unit of work. Its record goes straight into the store, so whatever dies loses at
most the fold that it was at.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from unetpp.records import EpochLog
from unetpp.run import Bench, run_fold
from unetpp.spec import GridSpec
from unetpp.store import RecordStore


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldTask:
    """One fold of one arm; `seed` is the base seed of its training, None that of the bench."""

    arm: str
    spec: GridSpec
    fold: int
    seed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldProgress:
    """What became of a task: after each epoch, and once with `log` None when its record is there.

    `trained` is False when the record was in the store before; `seed` is that of the task.
    """

    arm: str
    fold: int
    log: EpochLog | None
    trained: bool = True
    seed: int | None = None


RunFolds = Callable[[Sequence[FoldTask]], None]
OnProgress = Callable[[FoldProgress], None]


def run_task(task: FoldTask, bench: Bench, store: RecordStore, on_progress: OnProgress) -> None:
    """Run one fold, unless the store has it, and tell how it goes."""
    own = bench if task.seed is None else replace(bench, seed=task.seed)
    trained = False

    def tell(log: EpochLog | None) -> None:
        on_progress(
            FoldProgress(arm=task.arm, fold=task.fold, seed=task.seed, log=log, trained=trained)
        )

    def on_epoch(log: EpochLog) -> None:
        nonlocal trained
        trained = True
        tell(log)

    run_fold(own, task.spec, task.fold, store, on_epoch=on_epoch)
    tell(None)


@contextmanager
def fold_runner(
    bench: Bench, store: RecordStore, *, num_workers: int, on_progress: OnProgress
) -> Iterator[RunFolds]:
    """A function that returns when all the tasks given to it have their record.

    Args:
        bench: shared by all tasks.
        store: where the records go; every process opens it by its URL.
        num_workers: 1 trains in this process with all its threads; more are processes of their
            own, which share the threads evenly and may serve several callers at once.
        on_progress: called in this process, never from two threads at once.
    """
    if num_workers == 1:

        def run_here(tasks: Sequence[FoldTask]) -> None:
            for task in tasks:
                run_task(task, bench, store, on_progress)

        yield run_here
        return
    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    num_threads = max(1, torch.get_num_threads() // num_workers)
    listener = threading.Thread(target=_listen, args=(events, on_progress), daemon=True)
    listener.start()
    with ProcessPoolExecutor(
        num_workers,
        mp_context=context,
        initializer=_begin_worker,
        initargs=(bench, store.url, events, num_threads, os.getpid()),
    ) as pool:
        try:
            yield lambda tasks: _run_in_pool(pool, tasks)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            events.put(None)
            listener.join()


def _run_in_pool(pool: ProcessPoolExecutor, tasks: Sequence[FoldTask]) -> None:
    futures = [pool.submit(_work, task) for task in tasks]
    done, waiting = wait(futures, return_when=FIRST_EXCEPTION)
    for future in waiting:
        future.cancel()
    for future in done:
        future.result()


def _listen(events: Any, on_progress: OnProgress) -> None:
    while (event := events.get()) is not None:
        on_progress(event)


# What a worker process holds between tasks: it is filled once, by the pool's initializer.
_worker: dict[str, Any] = {}


def _begin_worker(bench: Bench, url: str, events: Any, num_threads: int, parent: int) -> None:
    torch.set_num_threads(num_threads)
    _worker.update(bench=bench, store=RecordStore(url), events=events)
    threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()


def _work(task: FoldTask) -> None:
    run_task(task, _worker["bench"], _worker["store"], _worker["events"].put)


def end_with_parent(parent: int) -> None:
    """A worker whose parent was killed must not go on in secret."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
