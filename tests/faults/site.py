"""Real worker processes on a tiny bench over one database, and the laws that hold at the end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.faults.worker import Job, go_file, run, search_of, tasks_of
from tests.postgres import Server
from unetpp.searches import SearchLedger, num_counted
from unetpp.store import RecordStore

# What is not the same twice: times, and the source where somebody edits it meanwhile.
_TIMES = frozenset({"seconds", "started_at", "finished_at", "revision"})
_TABLES = ("cases", "surfaces", "objects", "edges", "traces")

# What anything may take. A quiet machine needs less than a tenth of it.
_PATIENCE_S = 500.0

# Every network of the space on every fold, so that no order of workers changes what is trained.
SEARCH = (
    *("search", "--quick", "--space", "depth", "--strategy", "brute_force", "--race", "none"),
    *("--depth", "2", "--width", "2", "--size", "16", "--epochs", "2", "--top", "2"),
    *("--test-seeds", "1", "--device", "cpu", "--budget", "20"),
)

# They are forked from a process that has loaded everything and trained nothing.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["tests.faults.worker", "studies._runner", "studies._search", "studies._worker"]
)


@dataclass
class Worker:
    """A process that works."""

    process: Any
    log: Path

    @property
    def said(self) -> str:
        """All of it so far."""
        return self.log.read_text() if self.log.exists() else ""

    def wait_for(self, text: str, *, seconds: float = _PATIENCE_S) -> None:
        """Until it has said so."""
        deadline = time.monotonic() + seconds
        while text not in self.said:
            assert self.process.is_alive() or text in self.said, self.said
            assert time.monotonic() < deadline, f"it did not say {text!r} but:\n{self.said}"
            time.sleep(0.01)

    def signal(self, sign: int) -> None:
        """Send it."""
        os.kill(self.process.pid, sign)

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        self.process.join(_PATIENCE_S)
        assert self.process.exitcode == -signal.SIGKILL

    def go_on(self) -> None:
        """From the point at which it waits."""
        go_file(f"{self.log}").touch()

    def end(self, *, seconds: float = _PATIENCE_S) -> int:
        """Its exit code."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"it does not end:\n{self.said}"
        return self.process.exitcode


@dataclass
class Site:
    """A store, a folder of artifacts, and the workers that were started on them.

    The artifacts are in the folder, beside what workers say, or in a place of their own.
    """

    url: str
    folder: Path
    artifacts: Path | None = None
    epochs: int = 4
    seed: int = 0
    budget: int = 0
    workers: list[Worker] = field(default_factory=list)

    @property
    def place(self) -> Path:
        """Of the artifacts."""
        return self.artifacts or self.folder

    def job(self, **fields: Any) -> Job:
        """As all of its workers have it, but for the fields."""
        log = self.folder / f"worker-{len(self.workers)}.log"
        made: dict[str, Any] = {
            "kind": "trials" if self.budget else "folds",
            "url": self.url,
            "folder": f"{self.place}",
            "log": f"{log}",
            "begun": f"{self.folder / 'begun'}",
            "epochs": self.epochs,
            "seed": self.seed,
            "budget": self.budget,
        }
        return Job(**(made | fields))

    def start(self, **fields: Any) -> Worker:
        """One worker more."""
        job = self.job(**fields)
        process = _CONTEXT.Process(target=run, args=(job,))
        process.start()
        worker = Worker(process, Path(job.log))
        self.workers.append(worker)
        return worker

    def command(self, *arguments: str, **fields: Any) -> Worker:
        """The command `unetpp` in a process of its own."""
        return self.start(kind="command", command=arguments, **fields)

    def start_held(self, count: int) -> list[Worker]:
        """Workers more, which wait with a fold each: they cannot do all before another begins."""
        return [self.start(pause="training") for _ in range(count)]

    def end_all(self) -> None:
        """Nothing goes on after a test."""
        for worker in self.workers:
            if worker.process.is_alive():
                worker.signal(signal.SIGKILL)
                worker.process.join(_PATIENCE_S)

    def begun(self) -> Counter[tuple[str, int]]:
        """(run, epoch) -> how often a worker began it."""
        file = self.folder / "begun"
        lines = file.read_text().splitlines() if file.exists() else []
        return Counter((run, int(epoch)) for run, epoch, _ in map(str.split, lines))

    def trained_again(self) -> int:
        """Epochs that were begun once more than needed."""
        return sum(count - 1 for count in self.begun().values())

    def ids(self) -> list[str]:
        """Of the runs of the six folds."""
        return [task.id for task in tasks_of(self.job())]

    @contextmanager
    def engine(self) -> Iterator[sa.Engine]:
        """Of the store, for looks from outside."""
        engine = sa.create_engine(self.url)
        try:
            yield engine
        finally:
            engine.dispose()

    def scalar(self, query: str) -> Any:
        """The first value of a query."""
        with self.engine() as engine, engine.connect() as connection:
            return connection.execute(sa.text(query)).scalar()

    def do(self, *statements: str) -> None:
        """Outside of transactions."""
        with self.engine() as engine:
            connection = engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            with connection:
                for statement in statements:
                    connection.execute(sa.text(statement))

    def cut_connections(self) -> int:
        """Of all other processes with this database; how many there were."""
        return self.scalar(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def check(self, *, interruptions: int, without: Collection[str] = ()) -> None:
        """The laws of six folds that were disturbed.

        Args:
            interruptions: so many epochs may have been trained again.
            without: runs that have failed.
        """
        ids = {*self.ids()} - {*without}
        found = records(self.url)
        whole = {run: row for run, row in undisturbed(self.epochs, self.seed).items() if run in ids}
        assert found.keys() == ids, "every finished fold is there once"
        for run_id, row in found.items():
            for part, value in row.items():
                assert value == whole[run_id][part], f"{part} of {run_id} differ"
        self.check_epochs(ids, interruptions)
        self.check_leftovers(found, failed=len(without))

    def check_epochs(self, ids: Collection[str], interruptions: int) -> None:
        """Each was trained, and no more than the interrupted ones twice."""
        begun = self.begun()
        assert {epoch for run, epoch in begun if run in ids} == {*range(1, self.epochs + 1)}
        assert {(r, e) for r, e in begun if r in ids} == {
            (r, e) for r in ids for e in range(1, self.epochs + 1)
        }
        again = {key: count for key, count in begun.items() if count > 1}
        assert sum(count - 1 for count in again.values()) <= interruptions, again

    def check_leftovers(self, found: Mapping[str, Mapping[str, Any]], *, failed: int = 0) -> None:
        """No claim is left, no network without a record, no checkpoint but of what has failed."""
        assert self.scalar("SELECT count(*) FROM claims WHERE holder IS NOT NULL") == 0
        names = {row["record"]["weights"] for row in found.values()}
        stored = {path.name for path in (self.place / "weights").iterdir()}
        assert stored == names, "each record has its network, and no other is there"
        assert len(checkpoints_in(self.place)) <= failed

    def check_search(self, *, interruptions: int) -> None:
        """The laws of a search that was disturbed."""
        store = RecordStore(self.url)
        trials = SearchLedger(store).trials(search_of(self.job()).proposals.search)
        store.close()
        own = [trial for trial in trials if trial.cached_from is None]
        assert num_counted(trials) == self.budget
        assert len({trial.candidate_id for trial in own}) == len(own)
        assert {trial.state for trial in trials} == {"validated"}
        found = records(self.url)
        assert len(found) == 3 * self.budget
        again = sum(count - 1 for count in self.begun().values())
        assert again <= interruptions, self.begun()
        assert self.begun().keys() == {(r, e) for r in found for e in range(1, self.epochs + 1)}
        assert self.scalar("SELECT count(*) FROM trials WHERE state IN ('RUNNING')") == 0
        self.check_leftovers(found)


def first_at(text: str, workers: Sequence[Worker], *, seconds: float = _PATIENCE_S) -> Worker:
    """Of the workers, that which says so first."""
    deadline = time.monotonic() + seconds
    while True:
        for worker in workers:
            if text in worker.said:
                return worker
        said = "\n".join(worker.said for worker in workers)
        assert any(worker.process.is_alive() for worker in workers), said
        assert time.monotonic() < deadline, f"none said {text!r} but:\n{said}"
        time.sleep(0.01)


def checkpoints_in(folder: Path) -> list[str]:
    """Those that are left."""
    place = folder / "checkpoints"
    return sorted(p.name for p in place.glob("[!.]*")) if place.exists() else []


def records(url: str) -> dict[str, dict[str, Any]]:
    """Run -> all that the store has of it, but times and the machine."""
    store = RecordStore(url)
    found: dict[str, dict[str, Any]] = {}
    with store.engine.connect() as connection:
        for run_id, text in connection.execute(sa.text("SELECT id, record FROM runs")):
            assert run_id not in found
            found[run_id] = {"record": without_times(text)}
        for table in _TABLES:
            rows = connection.execute(sa.text(f"SELECT * FROM {table}")).mappings()
            by_run: dict[str, list[str]] = {run_id: [] for run_id in found}
            for row in rows:
                by_run[row["run_id"]].append(repr(sorted((k, f"{v}") for k, v in row.items())))
            for run_id, mine in by_run.items():
                found[run_id][table] = sorted(mine)
    store.close()
    return found


def facts(url: str) -> tuple[dict[str, Any], int, Any]:
    """All runs of a search, how many trials counted, and what was decided."""
    store = RecordStore(url)
    ledger = SearchLedger(store)
    trials, result = ledger.trials("search"), ledger.result("search")
    store.close()
    assert result is not None
    by_number = {trial.number: trial.candidate_id for trial in trials}
    decided = ([by_number[n] for n in result.confirmed], by_number[result.winner])
    return records(url), num_counted(trials), decided


def without_times(text: str) -> dict[str, Any]:
    """A record as JSON."""
    import json

    record = json.loads(text)
    record["curve"] = [
        {name: value for name, value in log.items() if name != "seconds"} for log in record["curve"]
    ]
    return {name: value for name, value in record.items() if name not in _TIMES}


@cache
def undisturbed(epochs: int, seed: int) -> dict[str, dict[str, Any]]:
    """What one process records that nobody disturbs."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        site = Site(f"sqlite:///{folder}/records.sqlite", Path(folder), epochs=epochs, seed=seed)
        worker = site.start()
        assert worker.end() == 0, worker.said
        assert site.trained_again() == 0
        return records(site.url)


def database_of(server: Server, name: str, *, tablespace: str = "pg_default") -> str:
    """URL of a new database on the server."""
    engine = sa.create_engine(server.url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TABLESPACE {tablespace}"))
    engine.dispose()
    return server.url.rpartition("/")[0] + f"/{name}"
