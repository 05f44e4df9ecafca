"""Many workers on one server, for the benchmarks: threads in a few processes, that train nothing.

A worker is a thread with an engine of its own. All begin at the same moment, each with opening the
store. Server and workers share the machine's cores, so what counts is processor time, of either side;
rates only say that nothing else is in the way.
"""

from __future__ import annotations

import csv
import hashlib
import multiprocessing
import queue
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from scaling_server import Server, server_seconds

from unetpp.records import (
    CaseCounts,
    CaseObjects,
    CaseSurface,
    EpochLog,
    RunKey,
    RunRecord,
    ScoredCases,
)
from unetpp.run import Bench
from unetpp.spec import GridSpec
from unetpp.store import RecordStore

_CASES, _EPOCHS, _PROCESSES = 100, 5, 4
# Seconds that all processes have to begin.
_START_S = 60


def made_up_scores() -> ScoredCases:
    """Of one fold, of real size."""
    names = [f"case_{case:05d}" for case in range(_CASES)]
    return ScoredCases(
        counts=tuple(
            CaseCounts(
                case=name, group=name, output="L2", label=1, tp=900, fp=50, fn=60, tn=64526
            )
            for name in names
        ),
        surfaces=tuple(
            CaseSurface(
                case=name, group=name, label=1, hd=5.5, hd95=4.4, assd=1.1, masd=1.2, tolerance=1.0,
                near_predicted=90, near_truth=80, size_predicted=100, size_truth=100, diagonal=90.5,
                unit="pixel",
            )
            for name in names
        ),
        objects=tuple(
            CaseObjects(
                case=name, group=name, label=1, reference_sizes=(100,) * 20,
                reference_ious=(0.75,) * 20, predicted_sizes=(100,) * 20,
                predicted_ious=(0.75,) * 20, predicted_scores=(0.9,) * 20,
            )
            for name in names
        ),
    )  # fmt: skip


class FakeTraining:
    """Stands for `run_fold`, with its reads and writes; waits, and says five epochs.

    Args:
        seconds: of a fold.

    Attributes:
        trained: ids of the runs.
        first: of each thread that trained, when it began, by the system's monotonic clock.
        last: when the last record was stored, by the same clock.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._scores = seconds, made_up_scores()
        self.trained: list[str] = []
        self.first: dict[int, float] = {}
        self.last = 0.0

    def __call__(
        self, bench: Bench, spec: GridSpec, fold: int, store: RecordStore, **others: Any
    ) -> RunRecord:
        """As of `run_fold`."""
        self.first.setdefault(threading.get_ident(), time.monotonic())
        key = bench.key(spec, fold)
        known = store.run(key)
        if known is not None:
            return known
        curve: list[EpochLog] = []
        for epoch in range(1, _EPOCHS + 1):
            time.sleep(self._seconds / _EPOCHS)
            curve.append(
                EpochLog(
                    epoch=epoch, train_loss=0.5, held_out_loss=0.6, held_out_dice=0.7,
                    seconds=self._seconds / _EPOCHS,
                )
            )  # fmt: skip
            others["on_epoch"](curve[-1])
        record = RunRecord(
            key=key, spec=spec.to_json(), recipe=bench.recipe.to_json(), primary_output="L2",
            num_parameters=10_000, macs=10**7, seconds=self._seconds, curve=tuple(curve),
            machine={"processor": "made up"}, versions={}, revision="", num_threads=1,
            device="cpu", started_at="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        assert store.run(key) is None
        store.add_run(record, self._scores_of(key))
        self.trained.append(key.id)
        self.last = time.monotonic()
        return record

    def _scores_of(self, key: RunKey) -> ScoredCases:
        """A network is as good as its id says, so that a search has something to find."""
        luck = hashlib.sha256(key.spec_id.encode() + key.recipe_id.encode()).digest()[0]
        counts = (replace(count, tp=700 + luck) for count in self._scores.counts)
        return replace(self._scores, counts=tuple(counts))


@dataclass(frozen=True)
class Sample:
    """Of a server, at one time.

    Attributes:
        connections: that are open.
        in_line: of these, those that wait for a lock of ours, under which processes take turns.
        waiting: those that wait for any other lock.
    """

    connections: int
    in_line: int
    waiting: int


class Watcher:
    """Samples a server until it is stopped."""

    def __init__(self, server: Server) -> None:
        self._engine = sa.create_engine(server.url, poolclass=sa.NullPool)
        self._end = threading.Event()
        self.samples: list[Sample] = []
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def stop(self) -> list[Sample]:
        """All samples."""
        self._end.set()
        self._thread.join()
        return self.samples

    def _watch(self) -> None:
        query = sa.text(
            "SELECT count(*), count(*) FILTER (WHERE wait_event_type = 'Lock' AND wait_event = "
            "'advisory'), count(*) FILTER (WHERE wait_event_type = 'Lock' AND wait_event <> "
            "'advisory') FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> "
            "pg_backend_pid()"
        )
        with self._engine.connect() as connection:
            while not self._end.wait(0.1):
                self.samples.append(Sample(*connection.execute(query).one()))
                connection.rollback()


@dataclass(frozen=True)
class State:
    """What a server has done so far.

    Attributes:
        transactions: committed and rolled back; a read ends as the latter.
        seconds: of the processor.
        waits: for a lock, longer than 0.1 s, but for turns.
        errors: that it answered, but for a row that another worker had written first.
    """

    transactions: int
    seconds: float
    waits: int
    errors: tuple[str, ...]


def state_of(server: Server) -> State:
    """As it is now."""
    engine = sa.create_engine(server.url, poolclass=sa.NullPool)
    query = "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database"
    with engine.connect() as connection:
        transactions = int(connection.execute(sa.text(query)).scalar_one())
    log = (server.data / "log").read_text(errors="replace").splitlines()
    waits = [line for line in log if "still waiting for" in line and "advisory lock" not in line]
    errors = [line for line in log if "ERROR:" in line or "FATAL:" in line]
    return State(
        transactions=transactions,
        seconds=server_seconds(server),
        waits=len(waits),
        errors=tuple(line for line in errors if "duplicate key" not in line),
    )


@dataclass(frozen=True)
class Found:
    """What a crowd did.

    Attributes:
        reports: one of each process.
        begin: by the system's monotonic clock.
        clock: seconds until all had ended.
        worker_seconds, server_seconds: of the processor.
        transactions, waits: see `State`.
        samples: see `Watcher`.
    """

    reports: list[Any]
    begin: float
    clock: float
    worker_seconds: float
    server_seconds: float
    transactions: int
    waits: int
    samples: list[Sample]


def run_crowd(
    server: Server, number: int, work: Callable[[], None], report: Callable[[], Any]
) -> Found:
    """So many workers, all at once.

    Args:
        server: that they work on.
        number: of workers.
        work: what each does, in a thread of its own.
        report: called in each process when its workers have ended; what it returns is pickled.
    """
    # Forked, so that what the caller has replaced is replaced in them too.
    context = multiprocessing.get_context("fork")
    sizes = [len(range(part, number, _PROCESSES)) for part in range(_PROCESSES)]
    sizes = [size for size in sizes if size]
    ready, ended = context.Barrier(len(sizes) + 1), context.Queue()
    processes = [
        context.Process(target=_run_part, args=(size, work, report, ready, ended)) for size in sizes
    ]
    for process in processes:
        process.start()
    before = state_of(server)
    ready.wait(_START_S)
    begin, watcher = time.monotonic(), Watcher(server)
    parts = [_next_of(ended, processes) for _ in processes]
    clock = time.monotonic() - begin
    samples = watcher.stop()
    for process in processes:
        process.join()
    errors = [error for _, _, error in parts if error]
    assert not errors, errors
    after = state_of(server)
    assert after.errors == before.errors, after.errors[len(before.errors) :]
    return Found(
        reports=[report for report, _, _ in parts], begin=begin, clock=clock,
        worker_seconds=sum(seconds for _, seconds, _ in parts),
        server_seconds=after.seconds - before.seconds,
        transactions=after.transactions - before.transactions,
        waits=after.waits - before.waits, samples=samples,
    )  # fmt: skip


def _next_of(ended: Any, processes: Sequence[BaseProcess]) -> Any:
    """What a process says at its end; none that died without a word is waited for."""
    while True:
        try:
            return ended.get(timeout=1)
        except queue.Empty:
            killed = [process.exitcode for process in processes if process.exitcode]
            assert not killed, f"processes of the crowd ended with {killed}"


def _run_part(
    size: int, work: Callable[[], None], report: Callable[[], Any], ready: Any, ended: Any
) -> None:
    """One process with so many workers."""
    ready.wait(_START_S)
    begin = time.process_time()
    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(work) for _ in range(size)]
    errors = [f"{future.exception()!r}" for future in futures if future.exception()]
    ended.put((report(), time.process_time() - begin, errors))


def line(cells: Iterable[object]) -> str:
    """Of a table that is printed row by row."""
    return " ".join(f"{cell:>12}" for cell in cells)


def show_rows(rows: Sequence[dict[str, float]], out: Path | None) -> None:
    """Print the last row, with the names before the first one, and keep all of them in `out`."""
    if len(rows) == 1:
        print(line(rows[0]))
    print(line(rows[-1].values()), flush=True)
    if out:
        write_rows(out, rows)


def write_rows(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """As CSV, a row a number of workers."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
