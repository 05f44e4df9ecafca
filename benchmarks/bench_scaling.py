"""How many workers one PostgreSQL serves: up to 200 that claim folds, and train nothing.

    python benchmarks/bench_scaling.py                # workers 1 to 200, folds of 5 s
    python benchmarks/bench_scaling.py --seconds 0    # folds that take no time: where it bends
    python benchmarks/bench_scaling.py --look         # what one look costs, by the folds left

A worker is a thread with an engine of its own, several in a process; it runs the loop of `unetpp
worker`, and instead of training it waits, says an epoch every fifth of its time, and stores a record
with 100 cases, their boundaries and their objects. Server and workers share the machine's cores, so
what counts is processor time for each fold, of either side; folds a second only say that nothing else
is in the way: `of ideal` is what they are of workers / seconds. `waiting` is the mean number of
connections that wait for a lock of another one, in samples 0.1 s apart; `waits` are those beyond 0.1 s.

The script asserts that every fold was trained once. Hoped for: nobody waits, and the costs of a fold
do not depend on the number of workers.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa
from scaling_server import Server, server_for, server_seconds

from nas import workers
from nas.stopping import PreemptedError, Stop
from nas.workers import FoldTask, watch, work_off
from tests.tiny_study import tiny_bench, tiny_spec
from unetpp.claims import Claim, Claims
from unetpp.records import (
    CaseCounts,
    CaseObjects,
    CaseSurface,
    EpochLog,
    RunRecord,
    ScoredCases,
)
from unetpp.run import Bench
from unetpp.spec import GridSpec
from unetpp.store import RecordStore

_CASES, _EPOCHS, _PROCESSES, _FOLDS_EACH = 100, 5, 4, 4
_LOOKS = 8
_COUNTS = (1, 10, 50, 100, 200)
_COLUMNS = (
    "workers", "folds", "folds/s", "of ideal", "worker ms", "server ms", "transactions",
    "connections", "waiting", "waits",
)  # fmt: skip


def tasks_of(folder: Path, number: int, *, first_seed: int) -> list[FoldTask]:
    """So many folds, none of which any other call with other seeds has."""
    bench, spec = tiny_bench(folder), tiny_spec(nested=False)
    return [
        FoldTask(
            arm="arm", spec=spec, fold=index % 3, bench=replace(bench, seed=first_seed + index)
        )
        for index in range(number)
    ]


def scores() -> ScoredCases:
    """Made up, of real size."""
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
    """Stands for `run_fold`, with its reads and writes.

    Args:
        seconds: of a fold.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds, self._scores = seconds, scores()
        self.trained: list[str] = []

    def __call__(
        self, bench: Bench, spec: GridSpec, fold: int, store: RecordStore, **others: Any
    ) -> RunRecord:
        """As of `run_fold`."""
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
        store.add_run(record, self._scores)
        self.trained.append(key.id)
        return record


def crowd(
    url: str, tasks: Sequence[FoldTask], number: int, seconds: float, ready: Any, ended: Any
) -> None:
    """One process with so many workers; sends what they trained, and its processor time."""
    training = FakeTraining(seconds)
    stores = [RecordStore(url) for _ in range(number)]
    ready.wait()
    begin = time.process_time()
    with patch.object(workers, "run_fold", training):
        threads = [
            threading.Thread(
                target=work_off,
                args=(tasks, store),
                kwargs={"on_progress": lambda _: None, "stop": Stop()},
            )
            for store in stores
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    ended.put((training.trained, time.process_time() - begin))


@dataclass(frozen=True)
class Sample:
    """Of a server, at one time."""

    connections: int
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
            "SELECT count(*), count(*) FILTER (WHERE wait_event_type = 'Lock') FROM "
            "pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        )
        with self._engine.connect() as connection:
            while not self._end.wait(0.1):
                connections, waiting = connection.execute(query).one()
                self.samples.append(Sample(connections, waiting))
                connection.rollback()


def transactions(server: Server) -> int:
    """Committed and rolled back so far; a read ends as the latter."""
    engine = sa.create_engine(server.url, poolclass=sa.NullPool)
    query = "SELECT sum(xact_commit + xact_rollback) FROM pg_stat_database"
    with engine.connect() as connection:
        return int(connection.execute(sa.text(query)).scalar_one())


def long_waits(server: Server) -> int:
    """Waits for a lock that took longer than 0.1 s, so far."""
    return (server.data / "log").read_text(errors="replace").count("still waiting for")


def measure(server: Server, tasks: Sequence[FoldTask], number: int, seconds: float) -> str:
    """One line: `number` workers on these tasks."""
    context = multiprocessing.get_context("fork")
    sizes = [len(range(part, number, _PROCESSES)) for part in range(_PROCESSES)]
    sizes = [size for size in sizes if size]
    ready, ended = context.Barrier(len(sizes) + 1), context.Queue()
    crowds = [
        context.Process(target=crowd, args=(server.url, tasks, size, seconds, ready, ended))
        for size in sizes
    ]
    for process in crowds:
        process.start()
    ready.wait()
    before = (transactions(server), long_waits(server), server_seconds(server))
    watcher, begin = Watcher(server), time.perf_counter()
    found = [ended.get() for _ in crowds]
    clock = time.perf_counter() - begin
    samples = watcher.stop()
    for process in crowds:
        process.join()
    trained = [run for runs, _ in found for run in runs]
    assert sorted(trained) == sorted(task.id for task in tasks), "a fold was trained twice"
    count = len(tasks)
    after = (transactions(server), long_waits(server), server_seconds(server))
    rate = count / clock
    cells = (
        number, count, f"{rate:.1f}", f"{rate * seconds / number:.2f}" if seconds else "-",
        f"{1000 * sum(used for _, used in found) / count:.1f}",
        f"{1000 * (after[2] - before[2]) / count:.1f}", f"{(after[0] - before[0]) / count:.1f}",
        max(sample.connections for sample in samples),
        f"{fmean(sample.waiting for sample in samples):.2f}", after[1] - before[1],
    )  # fmt: skip
    return " ".join(f"{cell:>12}" for cell in cells)


def look(server: Server, folder: Path, count: int) -> str:
    """One line: what one look at so many folds that are left costs, in processor milliseconds."""
    store = RecordStore(server.url)
    tasks = tasks_of(folder, count, first_seed=10**7)
    spent: list[float] = []

    def train_nothing(_: FoldTask, claim: Claim, claims: Claims, *__: Any) -> bool:
        spent.append(time.process_time())
        claims.give_back(claim)
        if len(spent) == _LOOKS:
            stop.ask()
        return False

    stop = Stop()
    with patch.object(workers, "_train", train_nothing), suppress(PreemptedError):
        work_off(tasks, store, on_progress=lambda _: None, stop=stop)
    own = median(pairwise_differences(spent))
    spent.clear()
    stop = Stop()

    def note() -> None:
        spent.append(time.process_time())
        if len(spent) == _LOOKS:
            stop.ask()

    with suppress(PreemptedError):
        watch(tasks, store, on_progress=lambda _: None, look=note, stop=stop)
    store.close()
    return f"{count:8} {1000 * own:12.1f} {1000 * median(pairwise_differences(spent)):12.1f}"


def pairwise_differences(times: Sequence[float]) -> list[float]:
    """From each to the next."""
    return [after - before for before, after in pairwise(times)]


def main() -> None:
    """Start a server, and measure one number of workers after the other."""
    parser = argparse.ArgumentParser(description="Simulate many workers on one PostgreSQL.")
    parser.add_argument("--workers", type=int, nargs="+", default=_COUNTS)
    parser.add_argument("--seconds", type=float, default=5.0, help="of a fold")
    parser.add_argument("--look", action="store_true", help="instead, cost by folds left")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, server_for(500) as server:
        RecordStore(server.url).close()
        if given.look:
            print("    left    worker ms   command ms")
            for count in (100, 1000, 10_000):
                print(look(server, Path(scratch), count), flush=True)
            return
        print(" ".join(f"{name:>12}" for name in _COLUMNS))
        for place, number in enumerate(given.workers):
            count = max(_FOLDS_EACH * number, 20 if given.seconds else 400)
            tasks = tasks_of(Path(scratch), count, first_seed=place * 10**6)
            print(measure(server, tasks, number, given.seconds), flush=True)


if __name__ == "__main__":
    main()
