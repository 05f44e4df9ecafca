"""Stores of past versions are copied and migrated; newer and strange ones are refused."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from make_study import make_study
from postgres import Server, needs_postgres, serving
from sqlalchemy import event

from reports import build
from reports.records import load_study
from unetpp import claims, searches, store
from unetpp.database import open_engine
from unetpp.errors import UserError
from unetpp.schema import MIGRATIONS, SCHEMA_VERSION, Migration, open_schema
from unetpp.searches import SearchLedger
from unetpp.store import RecordStore

_STORES = Path(__file__).parents[1] / "stores"
_PAST = sorted(_STORES.glob("v*.sqlite"))
_Rows = dict[str, list[tuple[object, ...]]]


def _old(folder: Path, version: int) -> Path:
    return Path(shutil.copy(_STORES / f"v{version}.sqlite", folder / "records.sqlite"))


def _rows(file: Path) -> _Rows:
    with closing(sqlite3.connect(file)) as connection:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            n: connection.execute(f'SELECT * FROM "{n}" ORDER BY 1').fetchall() for (n,) in names
        }


def _execute(file: Path, *statements: str) -> None:
    with closing(sqlite3.connect(file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def _version(file: Path) -> object:
    return _rows(file)["schema_version"]


def test_there_is_a_store_of_each_silent_version() -> None:
    assert [file.stem for file in _PAST] == ["v1", "v2", "v3"]
    assert [migration.version for migration in MIGRATIONS] == [*range(1, SCHEMA_VERSION + 1)]


def test_a_change_of_the_tables_is_a_new_version() -> None:
    """Where this fails, add a `Migration`, then change what is expected here."""
    metadata = (store._METADATA, claims._METADATA, searches._METADATA)
    there = {t.name: [c.name for c in t.columns] for m in metadata for t in m.sorted_tables}
    assert set(there) == {name for migration in MIGRATIONS for name in migration.tables}
    num_columns = {name: len(columns) for name, columns in there.items()}
    assert (SCHEMA_VERSION, num_columns) == (
        4,
        {
            "runs": 9,
            "cases": 9,
            "surfaces": 15,
            "objects": 9,
            "edges": 9,
            "traces": 5,
            "latencies": 3,
            "manifests": 2,
            "invocations": 3,
            "splits": 2,
            "claims": 7,
            "searches": 3,
            "search_trials": 3,
        },
    )


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_past_store_keeps_every_row_and_leaves_a_copy(tmp_path: Path, version: int) -> None:
    file = _old(tmp_path, version)
    before = _rows(file)
    copy = tmp_path / f"records.sqlite.v{version}.bak"
    with pytest.warns(UserWarning, match=f"from version {version} to version 4; .*{copy.name}"):
        opened = RecordStore.open_folder(tmp_path)
    assert SearchLedger(opened).searches() == _searches(before)
    opened.close()
    after = _rows(file)
    assert {name: after[name] for name in before} == before
    assert before["runs"]
    assert _version(file) == [(SCHEMA_VERSION,)]
    assert {"splits", "traces", "edges"} <= set(after)
    assert _rows(copy) == before
    assert not copy.with_name(f"{copy.name}-wal").exists()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        records = load_study(tmp_path)
    assert len(records.runs) == len(before["runs"])


def _searches(rows: _Rows) -> list[object]:
    return [row[0] for row in rows.get("searches", [])]


@pytest.mark.slow
@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.filterwarnings("ignore:.*was brought from version")
def test_a_report_is_made_of_a_past_store(tmp_path: Path, version: int) -> None:
    _old(tmp_path, version)
    assert "UNet++" in build(tmp_path).page.read_text()


def test_a_copy_is_never_written_over(tmp_path: Path) -> None:
    file = _old(tmp_path, 1)
    (tmp_path / "records.sqlite.v1.bak").write_text("mine")
    with pytest.warns(UserWarning, match=r"v1\.bak-2 holds it"):
        RecordStore.open_folder(tmp_path).close()
    assert (tmp_path / "records.sqlite.v1.bak").read_text() == "mine"
    assert _rows(tmp_path / "records.sqlite.v1.bak-2") == _rows(_STORES / "v1.sqlite")
    assert _version(file) == [(SCHEMA_VERSION,)]


def test_what_lies_in_the_write_ahead_log_is_copied(tmp_path: Path) -> None:
    file = _old(tmp_path, 1)
    with closing(sqlite3.connect(file)) as writer:
        writer.execute("PRAGMA wal_autocheckpoint=0")
        writer.execute("INSERT INTO manifests VALUES ('late', '{}')")
        writer.commit()
        with pytest.warns(UserWarning, match="was brought"):
            RecordStore.open_folder(tmp_path).close()
        copied = _rows(tmp_path / "records.sqlite.v1.bak")
    assert "late" in {row[0] for row in copied["manifests"]}


def test_opening_the_newest_asks_one_question(tmp_path: Path) -> None:
    RecordStore.open_folder(tmp_path).close()
    engine, asked = open_engine(RecordStore.url_of_folder(tmp_path)), []
    event.listen(engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    open_schema(engine, store._METADATA.sorted_tables)
    engine.dispose()
    assert len(asked) == 1
    assert [file.name for file in tmp_path.glob("*.bak*")] == []


def test_many_open_one_old_store_at_once(tmp_path: Path) -> None:
    _old(tmp_path, 2)
    with warnings.catch_warnings(), ThreadPoolExecutor(6) as threads:
        warnings.simplefilter("ignore")
        opened = list(threads.map(lambda _: RecordStore.open_folder(tmp_path), range(12)))
    for one in opened:
        assert one.studies() == ["nested_vs_plain"]
        one.close()
    assert len(list(tmp_path.glob("*.bak*"))) == 1


def test_a_newer_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    RecordStore.open_folder(tmp_path).close()
    file = tmp_path / "records.sqlite"
    _execute(file, f"UPDATE schema_version SET version = {SCHEMA_VERSION + 1}", "DROP TABLE splits")
    before = _rows(file)
    with pytest.raises(UserError, match=r"of version <= 4.* is of version 5; install a newer"):
        RecordStore.open_folder(tmp_path)
    assert _rows(file) == before


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE schema_version SET version = -4",
        "UPDATE schema_version SET version = 0",
        "DELETE FROM schema_version",
        "INSERT INTO schema_version VALUES (3)",
        "ALTER TABLE schema_version RENAME COLUMN version TO words",
    ],
)
def test_a_version_that_is_none_is_refused(tmp_path: Path, statement: str) -> None:
    RecordStore.open_folder(tmp_path).close()
    _execute(tmp_path / "records.sqlite", statement)
    with pytest.raises(UserError, match="in one row of `schema_version`, a whole number, but"):
        RecordStore.open_folder(tmp_path)


def test_a_long_text_as_version_is_not_repeated(tmp_path: Path) -> None:
    RecordStore.open_folder(tmp_path).close()
    _execute(
        tmp_path / "records.sqlite",
        "DROP TABLE schema_version",
        "CREATE TABLE schema_version (version TEXT)",
        "INSERT INTO schema_version VALUES (printf('%.*c', 1000000, 'x'))",
    )
    with pytest.raises(UserError, match="a whole number, but") as caught:
        RecordStore.open_folder(tmp_path)
    assert len(str(caught.value)) < 500


def test_tables_of_another_program_are_refused(tmp_path: Path) -> None:
    _execute(tmp_path / "records.sqlite", "CREATE TABLE runs (run_uuid TEXT, name TEXT)")
    with pytest.raises(UserError, match="holds runs of another program; name an empty database"):
        RecordStore.open_folder(tmp_path)


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "records.sqlite").write_bytes(b"not a database, but long enough" * 100)
    with pytest.raises(UserError, match="must be an SQLite database"):
        RecordStore.open_folder(tmp_path)


def test_without_room_for_the_copy_nothing_is_changed(tmp_path: Path) -> None:
    file = _old(tmp_path, 3)
    _execute(file, "VACUUM")
    before = _rows(file)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As large as the index of the write-ahead log, and smaller than the copy.
    resource.setrlimit(resource.RLIMIT_FSIZE, (32 * 1024, limits[1]))
    try:
        with pytest.raises(UserError, match=r"make room for 1 MiB there.*nothing was changed"):
            RecordStore.open_folder(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert _rows(file) == before
    assert list(tmp_path.glob("*.bak*")) == []


_KILLED = """
import os, signal, sys, pathlib
import sqlalchemy as sa
from unetpp import schema, store
from unetpp.database import open_engine

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def change(connection):
    connection.execute(sa.text("ALTER TABLE runs ADD COLUMN late INTEGER"))
    connection.execute(sa.text("UPDATE runs SET late = 1"))

where, url = sys.argv[1:]
steps = (change, die) if where == "changing" else (change,)
if where == "copying":
    schema._sync = die
if where == "committing":
    sa.event.listen(sa.Engine, "commit", die)
more = schema.Migration(version=schema.SCHEMA_VERSION + 1, sentence="late", steps=steps)
schema.open_schema(open_engine(url), store._METADATA.sorted_tables, (*schema.MIGRATIONS, more))
"""


def _kill_while(where: str, url: str) -> None:
    ended = subprocess.run([sys.executable, "-c", _KILLED, where, url], check=False, timeout=60)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("where", ["copying", "changing", "committing"])
def test_a_kill_leaves_the_old_version(tmp_path: Path, where: str) -> None:
    file = _old(tmp_path, 2)
    before = _rows(file)
    _kill_while(where, RecordStore.url_of_folder(tmp_path))
    assert _rows(file) == before
    whole = sorted(tmp_path.glob("*.bak"))
    assert len(whole) == (where != "copying")
    with pytest.warns(UserWarning, match="was brought"):
        RecordStore.open_folder(tmp_path).close()
    assert _version(file) == [(SCHEMA_VERSION,)]
    assert list(tmp_path.glob("*.part")) == []


@contextmanager
def _read_only(*, make: bool) -> Iterator[Path]:
    """A folder that may be looked at: a study of today, or a store of version 1."""
    folder = Path(tempfile.mkdtemp(prefix="unetpp-read-only-"))
    if make:
        make_study(folder, overlays=False)
    else:
        _old(folder, 1)
    for path in folder.rglob("*"):
        path.chmod(0o444 if path.is_file() else 0o555)
    folder.chmod(0o555)
    user = os.geteuid()
    try:
        # Nothing is read-only for root.
        if user == 0:
            os.seteuid(65534)
        yield folder
    finally:
        os.seteuid(user)
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_store_that_cannot_be_written_is_read() -> None:
    with _read_only(make=True) as folder:
        assert len(load_study(folder).runs) > 5
        opened = RecordStore.open_folder(folder)
        [study] = opened.studies()
        with pytest.raises(UserError, match=r"can only be read; copy its folder"):
            opened.replace_latencies(study, [])
        opened.close()
        assert not list(folder.glob("records.sqlite-*"))


def test_an_old_store_that_cannot_be_written_is_to_be_copied() -> None:
    with (
        _read_only(make=False) as folder,
        pytest.raises(UserError, match=r"of version 1 and cannot be written; copy its folder"),
    ):
        RecordStore.open_folder(folder)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def _make_first_version(server: Server) -> _Rows:
    """As the program of version 1 made its tables, with the rows of the store of that version."""
    rows = _rows(_STORES / "v1.sqlite")
    engine = sa.create_engine(server.url)
    with engine.begin() as connection:
        for name in ("runs", "cases", "latencies", "manifests", "invocations"):
            with closing(sqlite3.connect(_STORES / "v1.sqlite")) as past:
                [(ddl,)] = past.execute("SELECT sql FROM sqlite_master WHERE name = ?", (name,))
            connection.exec_driver_sql(ddl)
            for row in rows[name]:
                places = ", ".join("%s" for _ in row)
                connection.exec_driver_sql(f'INSERT INTO "{name}" VALUES ({places})', row)
    engine.dispose()
    return rows


def _tables(server: Server, schema: str) -> list[str]:
    engine = sa.create_engine(server.url)
    try:
        return sorted(sa.inspect(engine).get_table_names(schema=schema))
    finally:
        engine.dispose()


@needs_postgres
@pytest.mark.slow
def test_a_past_store_in_postgres_is_copied_into_a_schema(server: Server) -> None:
    rows = _make_first_version(server)
    with pytest.warns(UserWarning, match="to version 4; the schema unetpp_backup_v1 holds it"):
        opened = RecordStore(server.url)
    assert opened.studies() == ["nested_vs_plain"]
    with opened.engine.connect() as connection:
        for name, expected in rows.items():
            for place in (name, f"unetpp_backup_v1.{name}"):
                found = connection.exec_driver_sql(f"SELECT * FROM {place}").fetchall()
                assert sorted(map(repr, map(tuple, found))) == sorted(map(repr, expected))
        collation = connection.exec_driver_sql(
            "SELECT collation_name FROM information_schema.columns WHERE table_schema = 'public' "
            "AND table_name = 'cases' AND column_name = 'case'"
        ).scalar()
    assert collation == "C"
    opened.close()


@needs_postgres
@pytest.mark.slow
def test_a_kill_leaves_the_old_version_in_postgres(server: Server) -> None:
    rows = _make_first_version(server)
    for where in ("changing", "committing"):
        _kill_while(where, server.url)
        assert _tables(server, "public") == sorted(rows)
        assert _tables(server, "unetpp_backup_v1") == []
    with warnings.catch_warnings(), ThreadPoolExecutor(4) as threads:
        warnings.simplefilter("ignore")
        for one in threads.map(lambda _: RecordStore(server.url), range(8)):
            one.close()
    assert _tables(server, "unetpp_backup_v1") == sorted(rows)
    assert _tables(server, "unetpp_backup_v1_2") == []


@needs_postgres
@pytest.mark.slow
def test_a_user_that_may_not_copy_is_told_the_right_that_it_needs(server: Server) -> None:
    rows = _make_first_version(server)
    engine = sa.create_engine(server.url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE ROLE guest LOGIN")
        connection.exec_driver_sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO guest")
    engine.dispose()
    with pytest.raises(UserError, match="GRANT CREATE ON DATABASE"):
        RecordStore(server.url.replace("postgres@", "guest@"))
    assert _tables(server, "public") == sorted(rows)


def test_a_version_that_only_adds_has_no_steps(tmp_path: Path) -> None:
    RecordStore.open_folder(tmp_path).close()
    engine = open_engine(RecordStore.url_of_folder(tmp_path))
    new = sa.Table("new", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    more = Migration(version=SCHEMA_VERSION + 1, sentence="new", tables=("new",))
    with pytest.warns(UserWarning, match="from version 4 to version 5"):
        open_schema(engine, (new,), (*MIGRATIONS, more))
    assert sa.inspect(engine).has_table("new")
    engine.dispose()
