"""Who works on the trials of a search: this process, or several on this machine.

A worker claims a trial, judges it and concludes it, until there is none to begin. One that dies
loses the fold that it was at: what it had claimed is given back, and another takes its place.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nas.performance_estimation import Estimation, TrialProgress, judge
from nas.proposals import ProposalPlan, Proposals
from nas.workers import end_with_parent
from unetpp.errors import UserError
from unetpp.run import Bench
from unetpp.searches import SearchLedger, TrialRecord
from unetpp.store import RecordStore

# A program that fails every time must not use up the budget.
_FAILURES_IN_A_ROW = 3
# How often a worker that died is replaced, for each worker.
_REPLACEMENTS = 5
_POLL_S = 0.5

OnTrial = Callable[[TrialProgress], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchWork:
    """All that a worker needs; it can be sent to another process.

    Attributes:
        proposals: which trials are made.
        estimation: how a trial is judged.
        bench: what candidates are trained on; its recipe is replaced by theirs.
        store_url: of the records.
        folder: of the search, for the locks between processes.
    """

    proposals: ProposalPlan
    estimation: Estimation
    bench: Bench
    store_url: str
    folder: Path


def open_proposals(work: SearchWork, store: RecordStore) -> Proposals:
    """The trials of a search, as one process sees them."""
    return Proposals(
        work.proposals,
        SearchLedger(store),
        storage_url=store.url,
        lock=work.folder / ".proposals.lock",
    )


def run_trials(
    work: SearchWork, store: RecordStore, *, num_workers: int, on_trial: OnTrial
) -> None:
    """Work until the budget is spent or the space is exhausted. Started again, it goes on.

    The caller makes sure that no other process drives the same search.

    Args:
        work: see `SearchWork`.
        store: of the records, by the URL in `work`.
        num_workers: 1 works in this process with all its threads; more are processes of their
            own, which share the threads evenly.
        on_trial: told how trials go, in this process.

    Raises:
        UserError: when trial after trial fails, with the last error; or workers keep dying.
    """
    proposals = open_proposals(work, store)
    proposals.release()
    proposals.promise()
    if num_workers == 1:
        try:
            _work("1", work, store, proposals, on_trial)
        except BaseException:
            proposals.release()
            raise
        return
    _Crew(work, proposals, num_workers, on_trial).run()


def _work(
    worker: str, work: SearchWork, store: RecordStore, proposals: Proposals, on_trial: OnTrial
) -> None:
    failures = 0
    while (trial := proposals.claim(worker)) is not None:
        on_trial(TrialProgress(trial=trial))
        judged = _judged(trial, work, store, proposals, on_trial)
        proposals.conclude(judged)
        on_trial(TrialProgress(trial=judged))
        failures = failures + 1 if judged.state == "failed" else 0
        if failures == _FAILURES_IN_A_ROW:
            raise UserError(
                f"{failures} trials in a row failed, the last (trial {judged.number}) with: "
                f"{judged.reason}; the search stops here, and the same command goes on with it"
            )


def _judged(
    trial: TrialRecord,
    work: SearchWork,
    store: RecordStore,
    proposals: Proposals,
    on_trial: OnTrial,
) -> TrialRecord:
    """A trial with its end. A fault of a candidate is its end; the search goes on."""
    try:
        return judge(
            trial, work.estimation, work.bench, store, proposals, work.folder, on_trial=on_trial
        )
    except Exception as error:  # noqa: BLE001 - whatever a candidate does, the others get their turn
        kept = next(t for t in proposals.trials() if t.number == trial.number)
        reason = str(error) if isinstance(error, UserError) else _last_line(error)
        return replace(kept, state="failed", value=None, reason=reason)


def _last_line(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    text = " ".join(str(error).split())[:200]
    return f"{type(error).__name__}: {text} ({Path(frame.filename).name}, line {frame.lineno})"


class _Crew:
    """The worker processes of one start, and what is done when one of them dies."""

    def __init__(
        self, work: SearchWork, proposals: Proposals, num_workers: int, on_trial: OnTrial
    ) -> None:
        self._work = work
        self._proposals = proposals
        self._num_workers = num_workers
        self._on_trial = on_trial
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[str, Any] = {}
        self._queues: dict[str, Any] = {}
        self._started = 0

    def run(self) -> None:
        try:
            for _ in range(self._num_workers):
                self._start()
            while self._processes:
                self._listen()
                self._look_after()
        finally:
            for process in self._processes.values():
                process.kill()
                process.join()
            self._proposals.release()

    def _start(self) -> None:
        if self._started == self._num_workers * (1 + _REPLACEMENTS):
            raise UserError(
                f"workers must live to finish a fold, but {self._started} of them were started and "
                "too many died (out of memory?); give fewer --workers, and the same command goes on"
            )
        self._started += 1
        name = f"{self._started}"
        # One queue each: a process that is killed while it writes spoils only its own.
        events = self._context.Queue()
        threads = max(1, torch.get_num_threads() // self._num_workers)
        process = self._context.Process(
            target=_begin_worker, args=(name, self._work, events, threads, os.getpid())
        )
        process.start()
        self._processes[name], self._queues[name] = process, events

    def _listen(self) -> None:
        """Hand on what the workers tell, and wait a little when nobody does."""
        heard = False
        for events in self._queues.values():
            try:
                while True:
                    event = events.get_nowait()
                    heard = True
                    if isinstance(event, str):
                        raise UserError(event)
                    self._on_trial(event)
            except queue.Empty:
                pass
        if not heard:
            multiprocessing.connection.wait(
                [process.sentinel for process in self._processes.values()], timeout=_POLL_S
            )

    def _look_after(self) -> None:
        for name, process in list(self._processes.items()):
            if process.is_alive():
                continue
            process.join()
            del self._processes[name]
            self._listen_last(name)
            if process.exitcode != 0:
                for trial in self._proposals.release([name]):
                    self._on_trial(TrialProgress(trial=trial, lost_worker=name))
                self._start()

    def _listen_last(self, name: str) -> None:
        events = self._queues.pop(name)
        try:
            while True:
                event = events.get(timeout=_POLL_S)
                if isinstance(event, str):
                    raise UserError(event)
                self._on_trial(event)
        except queue.Empty:
            events.close()


def _begin_worker(name: str, work: SearchWork, events: Any, num_threads: int, parent: int) -> None:
    """A worker process. Ctrl-C is the parent's business: it ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(num_threads)
    threading.Thread(target=end_with_parent, args=(parent,), daemon=True).start()
    store = RecordStore(work.store_url)
    try:
        _work(name, work, store, open_proposals(work, store), events.put)
    except UserError as error:
        events.put(str(error))
    finally:
        store.close()
        events.close()
        events.join_thread()
