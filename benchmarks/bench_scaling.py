"""How many workers one PostgreSQL serves: up to 200 that claim folds, and train nothing.

    python benchmarks/bench_scaling.py                # workers 1 to 200, folds of 5 s
    python benchmarks/bench_scaling.py --seconds 0    # folds that take no time: where it bends
    python benchmarks/bench_scaling.py --look         # what one look costs, by the folds left

A worker is one of `scaling_crowd.py`; it runs the loop of `unetpp worker`, and instead of training it
waits, says an epoch every fifth of its time, and stores a record with 100 cases, their boundaries and
their objects. What the columns mean:

    of_ideal      folds a second (folds_s) over workers / seconds
    joined_s      until the last worker began its first fold; all come at the same moment
    worker_ms     of the processor for each fold; server_ms too
    in_line       connections that wait for a lock of ours, the mean of samples 0.1 s apart
    waiting       the same for any other lock; waits, how often that took longer than 0.1 s

The script asserts that every fold was trained once and that the server answered no error. Hoped for:
nobody waits, and the costs of a fold do not depend on the number of workers.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any
from unittest.mock import patch

from scaling_crowd import FakeTraining, run_crowd, show_rows
from scaling_server import Server, server_for

from nas import workers
from nas.stopping import PreemptedError, Stop
from nas.workers import FoldTask, watch, work_off
from tests.tiny_study import tiny_bench, tiny_spec
from unetpp.claims import Claim, Claims
from unetpp.store import RecordStore

_FOLDS_EACH, _LOOKS = 4, 8
_COUNTS = (1, 10, 50, 100, 200)


def tasks_of(folder: Path, number: int, *, first_seed: int) -> list[FoldTask]:
    """So many folds, none of which any other call with other seeds has."""
    bench, spec = tiny_bench(folder), tiny_spec(nested=False)
    return [
        FoldTask(
            arm="arm", spec=spec, fold=index % 3, bench=replace(bench, seed=first_seed + index)
        )
        for index in range(number)
    ]


def measure(
    server: Server, tasks: Sequence[FoldTask], number: int, seconds: float
) -> dict[str, float]:
    """One row: `number` workers on these tasks."""
    training = FakeTraining(seconds)

    def work() -> None:
        store = RecordStore(server.url)
        work_off(tasks, store, on_progress=lambda _: None, stop=Stop())
        store.close()

    with patch.object(workers, "run_fold", training):
        found = run_crowd(
            server,
            number,
            work,
            lambda: (training.trained, list(training.first.values()), training.last),
        )
    trained = [run for runs, _, _ in found.reports for run in runs]
    assert sorted(trained) == sorted(task.id for task in tasks), "a fold was trained twice"
    count = len(tasks)
    rate = count / (max(last for _, _, last in found.reports) - found.begin)
    return {
        "workers": number, "seconds": seconds, "folds": count, "folds_s": round(rate, 2),
        "of_ideal": round(rate * seconds / number, 3),
        "joined_s": round(max(f for _, first, _ in found.reports for f in first) - found.begin, 1),
        "worker_ms": round(1000 * found.worker_seconds / count, 1),
        "server_ms": round(1000 * found.server_seconds / count, 1),
        "transactions": round(found.transactions / count, 1),
        "connections": max(sample.connections for sample in found.samples),
        "in_line": round(fmean(sample.in_line for sample in found.samples), 2),
        "waiting": round(fmean(sample.waiting for sample in found.samples), 2),
        "waits": found.waits,
    }  # fmt: skip


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
    parser.add_argument("--out", type=Path, help="a CSV of the rows")
    parser.add_argument("--look", action="store_true", help="instead, cost by folds left")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, server_for(500) as server:
        RecordStore(server.url).close()
        if given.look:
            print("    left    worker ms   command ms")
            for count in (100, 1000, 10_000):
                print(look(server, Path(scratch), count), flush=True)
            return
        rows: list[dict[str, float]] = []
        for place, number in enumerate(given.workers):
            count = max(_FOLDS_EACH * number, 20 if given.seconds else 400)
            tasks = tasks_of(Path(scratch), count, first_seed=place * 10**6)
            rows.append(measure(server, tasks, number, given.seconds))
            show_rows(rows, given.out)


if __name__ == "__main__":
    main()
