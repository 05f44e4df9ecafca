"""A store in a real PostgreSQL, and what a URL may say."""

from __future__ import annotations

import sqlite3
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from make_study import make_study
from postgres import Server, needs_postgres, serving
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from nas.search_strategy import open_storage
from unetpp import database
from unetpp.database import check_url, exclusively, open_engine, wait_for
from unetpp.errors import PlaceError, UserError
from unetpp.records import RunRecord, ScoredCases
from unetpp.store import RecordStore


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:hunter2@host/db",
        "postgresql+psycopg://host/db?user=me&password=hunter2",
        "postgresql+psycopg://me:hunter2@host:port/db",
        "mysql://me:hunter2@host/db",
        "postgresql+psycopg://me:@host/hunter2",
        "postgresql+psycopg://host/db?user=me&pass%77ord=hunter2",
        "postgresql+psycopg://host/db?sslpassword=hunter2",
        "postgresql+psycopg://host/db?conninfo=password%3Dhunter2",
        "postgresql+psycopg://host/db?options=-cpassword%3Dhunter2",
        "postgresql+psycopg://host/db?hunter2=1",
        "postgresql+psycopg://host/password%3Dhunter2",
        "postgresql+psycopg://host/db?dbname=host%3Da%20password%3Dhunter2",
        "postgresql+psycopg://me%3Ahunter2@host/db",
        "postgresql+psycopg://me:hunter2@host/db?host=other",
        "postgresql+psycopg://me:hun:ter2@host/hunter2@",
        "postgresql+psycopg:///me:hunter2@host/db",
        "postgresql+psycopg://m/e:hunter2@host/db",
        "postgresql+psycopg://host/db?user=me:hunter2",
        "postgresql+psycopg://host/db?host=me:hunter2@other",
        "postgresql+psycopg://host/db?host=other&host=hunter2@other",
        "postgresql+psycopg://host/db?dbname=me:hunter2",
        "nonsense hunter2",
    ],
)
def test_a_refused_url_is_not_repeated(url: str) -> None:
    with pytest.raises(UserError) as caught:
        RecordStore(url)
    # As a traceback would show it, with what it was raised from and during.
    shown = "".join(traceback.format_exception(caught.value))
    assert "hunter2" not in shown.replace(f"RecordStore({url!r})", "")
    assert caught.value.__cause__ is None


def test_settings_that_are_no_secret_are_taken() -> None:
    url = "postgresql+psycopg://me@/db?host=/tmp/run&port=5433&passfile=/keys/pgpass&service=a"
    assert check_url(url).query["passfile"] == "/keys/pgpass"
    # Of clouds that want the server in the name of the user.
    assert check_url("postgresql+psycopg://me%40server@[::1]/db").username == "me@server"


@pytest.mark.parametrize("url", ["mysql://host/db", "postgresql://host/db", "oracle://host/db"])
def test_other_databases_are_refused_with_the_two_that_there_are(url: str) -> None:
    with pytest.raises(UserError, match=r"sqlite:///FILE or postgresql\+psycopg://"):
        check_url(url)


def test_a_server_that_is_not_there_is_named_after_the_patience() -> None:
    engine = sa.create_engine("postgresql+psycopg://me@127.0.0.1:1/db")
    with pytest.raises(
        UserError, match=r"within 0.2 s, but postgresql\+psycopg://me@127.0.0.1:1/db"
    ):
        wait_for(engine, lambda: engine.connect().close(), patience=0.2)


def test_waiting_for_a_server_is_said_once_and_not_at_every_try(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds

    monkeypatch.setattr(database.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(database.time, "sleep", sleep)
    engine = sa.create_engine("postgresql+psycopg://me@127.0.0.1:1/db")
    for patience, said in ((0.5, 0), (30.0, 1)):
        caplog.clear()
        with pytest.raises(UserError, match=f"within {patience:g} s"):
            wait_for(engine, lambda: engine.connect().close(), patience=patience)
        assert len(caplog.messages) == said
    assert "the store does not answer (connection failed" in caplog.text
    assert "waiting for it, 30 s at most" in caplog.text


def test_a_fault_of_ours_is_not_tried_again() -> None:
    engine, calls = sa.create_engine("sqlite://"), []

    def broken() -> None:
        calls.append(1)
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT nothing"))

    with pytest.raises(OperationalError):
        wait_for(engine, broken)
    assert len(calls) == 1


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def _copy(source: RecordStore, target: RecordStore) -> None:
    """All of the only study in a store, through the public methods alone."""
    [study] = source.studies()
    manifest = source.manifest(study)
    assert manifest is not None
    target.put_manifest(manifest)
    for record in _runs(source):
        counts = source.cases(record.key)
        target.add_run(record, ScoredCases(counts=tuple(counts), surfaces=(), objects=()))


def _runs(store: RecordStore) -> list[RunRecord]:
    [study] = store.studies()
    manifest = store.manifest(study)
    assert manifest is not None
    return store.runs(
        dataset_hash=manifest.dataset_hash,
        split_hash=manifest.split_hash,
        recipe_id=manifest.recipe_id,
        seeds=manifest.seeds,
        numbers_version=manifest.numbers_version,
    )


@needs_postgres
@pytest.mark.slow
def test_postgres_holds_what_sqlite_holds_in_the_same_order(server: Server, tmp_path: Path) -> None:
    make_study(tmp_path)
    source, target = RecordStore.open_folder(tmp_path), RecordStore(server.url)
    _copy(source, target)
    assert target.studies() == source.studies()
    assert _runs(target) == _runs(source)
    assert len(_runs(target)) > 5
    for record in _runs(source):
        assert target.cases(record.key) == source.cases(record.key)
        assert target.rows("cases", record.key) == source.rows("cases", record.key)
    # A second copy of a run changes nothing.
    first = _runs(source)[0]
    target.add_run(replace(first, seconds=-1.0), ScoredCases(counts=(), surfaces=(), objects=()))
    assert target.run(first.key) == first
    target.close()


@needs_postgres
@pytest.mark.slow
def test_a_connection_may_be_another_in_each_transaction(server: Server) -> None:
    """As behind a pooler: what a connection has prepared is not there in the next transaction."""
    store = RecordStore(server.url)
    for _ in range(20):
        with store.engine.begin() as connection:
            connection.execute(sa.text("SELECT 1"))
    with store.engine.connect() as connection:
        prepared = connection.execute(sa.text("SELECT count(*) FROM pg_prepared_statements"))
        assert prepared.scalar_one() == 0
    store.close()


@needs_postgres
@pytest.mark.slow
def test_a_connection_that_is_cut_while_optuna_reads_is_tried_again(server: Server) -> None:
    storage = open_storage(server.url)
    study = optuna.create_study(storage=storage, study_name="cut")
    for _ in range(2):
        study.ask({"width": optuna.distributions.IntDistribution(1, 9)})
    engine, other = sa.create_engine(server.url), open_engine(server.url)
    cuts = [1]

    def cut(connection: sa.Connection, _cursor: Any, statement: str, *_: Any) -> None:
        if cuts and "FROM trial_params" in statement:
            cuts.pop()
            pid = connection.connection.dbapi_connection.info.backend_pid  # pyright: ignore
            with other.begin() as killer:
                killer.execute(sa.select(sa.func.pg_terminate_backend(pid)))

    event.listen(sa.Engine, "before_cursor_execute", cut)
    try:
        found = wait_for(engine, lambda: storage.get_all_trials(study._study_id))
    finally:
        event.remove(sa.Engine, "before_cursor_execute", cut)
    assert (len(found), cuts) == (2, [])
    for one in (engine, other, storage._backend.engine):  # pyright: ignore
        one.dispose()


@needs_postgres
@pytest.mark.slow
def test_many_open_a_new_store_at_once() -> None:
    with serving() as fresh:

        def open_and_look(_: int) -> list[str]:
            store = RecordStore(fresh.url)
            try:
                return store.studies()
            finally:
                store.close()

        with ThreadPoolExecutor(8) as threads:
            assert list(threads.map(open_and_look, range(16))) == [[]] * 16


@needs_postgres
@pytest.mark.slow
def test_a_database_that_comes_back_is_waited_for() -> None:
    with serving() as fresh:
        store = RecordStore(fresh.url)
        assert store.studies() == []
        fresh.stop()
        back = threading.Timer(3, fresh.start)
        begin = time.monotonic()
        back.start()
        assert store.studies() == []
        assert time.monotonic() - begin >= 2.5
        back.join()
        store.close()


@needs_postgres
@pytest.mark.slow
@pytest.mark.parametrize(("user", "database"), [("nobody", "postgres"), ("postgres", "nowhere")])
def test_who_is_turned_away_is_told_at_once(
    server: Server, user: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql+psycopg://{user}@127.0.0.1:{server.port}/{database}"

    def wait(_: float) -> None:
        raise AssertionError("nothing is waited for")

    monkeypatch.setattr("unetpp.database.time.sleep", wait)
    with pytest.raises(UserError, match=r"a database that lets this user in.*PGPASSWORD") as caught:
        RecordStore(url)
    assert f'"{user if user == "nobody" else database}" does not exist' in str(caught.value)


def test_patience_begins_when_the_server_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = sa.create_engine("postgresql+psycopg://me@127.0.0.1:1/db")
    tries, now = 0, 0.0
    monkeypatch.setattr("unetpp.database.time.monotonic", lambda: now)

    def waits_for_its_turn() -> int:
        nonlocal tries, now
        tries += 1
        if tries == 1:
            now += 0.4
            raise OperationalError("", {}, Exception("server closed the connection"))
        return tries

    assert wait_for(engine, waits_for_its_turn, patience=0.3) == 2


def test_a_file_that_stays_locked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unetpp.database.PATIENCE_S", 0.1)
    store = RecordStore.open_folder(tmp_path)
    with closing(sqlite3.connect(tmp_path / "records.sqlite")) as halted:
        halted.execute("BEGIN IMMEDIATE")
        with pytest.raises(PlaceError, match="in use"):
            store.put_split("0" * 64, "{}")


@needs_postgres
@pytest.mark.slow
def test_a_process_that_was_halted_in_its_turn_takes_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import psycopg

    monkeypatch.setattr("unetpp.database._LONGEST_IN_LOCK_S", 1)
    tries = 0
    with (
        serving() as server,
        closing(psycopg.connect(server.url.replace("+psycopg", ""), autocommit=True)) as other,
    ):
        engine = open_engine(server.url)

        def wait_until_server_ends(connection: sa.Connection | None) -> None:
            assert connection is not None
            pid = connection.connection.dbapi_connection.info.backend_pid  # pyright: ignore
            query = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s"
            deadline = time.monotonic() + 100
            while other.execute(query, (pid,)).fetchone() != (0,):
                assert time.monotonic() < deadline
                time.sleep(0.02)

        def turn() -> int:
            nonlocal tries
            with exclusively(engine, "a turn") as connection:
                tries += 1
                if tries == 1:
                    wait_until_server_ends(connection)
                    # Nobody is halted in the next turn.
                    monkeypatch.setattr("unetpp.database._LONGEST_IN_LOCK_S", 300)
                assert connection is not None
                return connection.execute(sa.select(sa.literal(7))).scalar_one()

        assert wait_for(engine, turn) == 7
        assert tries == 2
        engine.dispose()


@pytest.mark.parametrize(("setting", "idle"), [("", 20), ("?keepalives_idle=7", "7")])
def test_a_network_that_is_cut_is_noticed_within_a_minute(
    setting: str, idle: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    psycopg = pytest.importorskip("psycopg")
    said: dict[str, object] = {}

    def connect(*_: object, **settings: object) -> None:
        said.update(settings)
        raise psycopg.OperationalError

    monkeypatch.setattr(psycopg, "connect", connect)
    with pytest.raises(OperationalError):
        open_engine(f"postgresql+psycopg://me@host/db{setting}").connect()
    assert said["keepalives_idle"] == idle
    assert (said["connect_timeout"], said["tcp_user_timeout"]) == (10, 40_000)
