"""A SQLite file that somebody else made: nothing in it runs, and no value is without a bound."""

from __future__ import annotations

import json
import re
import sqlite3
import struct
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from make_study import make_study

from nas.search_strategy import open_storage
from reports.overlay_file import overlays_name, read_overlays, write_overlays
from reports.records import load_study
from reports.search_records import holds_search
from studies._dashboard import _storage
from studies._folder import without_password
from unetpp.claims import Claims
from unetpp.errors import UserError
from unetpp.store import RecordStore

_ENDLESS = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n"
_CASES = (
    "select i as run_id, 'a' as 'case', 'L1' as output, 1 as label, 'g' as 'group', 1 as tp, 1 as fp, "
    "1 as fn, 1 as tn from n"
)


def _hostile(folder: Path, *statements: str) -> Path:
    with closing(sqlite3.connect(folder / "records.sqlite")) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_study(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (
            (
                "drop table cases",
                f"create view cases as {_ENDLESS.replace('select i from n', _CASES)}",
            ),
            "view cases",
        ),
        (
            ("create trigger t after insert on invocations begin delete from runs; end",),
            "trigger t",
        ),
        (("create virtual table f using fts5(x)",), "virtual table f"),
        (
            ("create table g (a integer, b blob generated always as (zeroblob(a)) virtual)",),
            "computed column g.b",
        ),
        (
            ("create table g (a integer, b blob default (hex(zeroblob(9))))",),
            "computed default of g.b",
        ),
        (("create index i on runs(hex(zeroblob(9)))",), "computed index i"),
        (("create index i on runs(id) where hex(id) > 'a'",), "computed index i"),
    ],
    ids=[
        "endless view",
        "trigger",
        "virtual table",
        "computed column",
        "default",
        "index",
        "partial",
    ],
)
@pytest.mark.timeout(200)
def test_what_runs_by_itself_is_refused(
    folder: Path, statements: tuple[str, ...], named: str
) -> None:
    _hostile(folder, *statements)
    with pytest.raises(UserError, match=rf"tables and indexes alone, but .* has the {named}"):
        load_study(folder)
    # Whoever only looks for a search is not stopped by it: whoever reads on is told.
    assert not holds_search(folder)


def test_a_condition_of_a_table_is_not_computed(folder: Path) -> None:
    """It may take all memory when an older store is brought to this version."""
    version = "create table schema_version (version integer primary key check (version < 4))"
    _hostile(folder, "drop table schema_version", version, "insert into schema_version values (3)")
    with pytest.warns(UserWarning, match="from version 3"):
        load_study(folder)


def _journal_that_names(other: Path) -> bytes:
    """As a transaction over several databases leaves it: SQLite ends that, and removes `other`."""
    magic, name = bytes.fromhex("d9d505f920a163d7"), f"{other}".encode()
    header = magic + struct.pack(">5I", 0, 0, 0, 512, 4096)
    end = name + struct.pack(">2I", len(name), sum(name)) + magic
    return header.ljust(512, b"\0") + struct.pack(">I", 2**18 + 1) + end


def test_a_journal_does_not_remove_another_file(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("precious")
    _hostile(folder, "PRAGMA journal_mode=DELETE")
    (folder / "records.sqlite-journal").write_bytes(_journal_that_names(other))
    with pytest.raises(UserError, match="names another file"):
        load_study(folder)
    assert other.read_text() == "precious"


@pytest.mark.parametrize("log", ["journal", "wal", "shm"])
def test_nothing_is_written_through_a_log_that_is_a_link(
    folder: Path, tmp_path: Path, log: str
) -> None:
    other = tmp_path / "other"
    other.write_text("precious")
    _hostile(folder, "PRAGMA journal_mode=DELETE", "delete from schema_version")
    _hostile(folder, "insert into schema_version values (3)")
    (folder / f"records.sqlite-{log}").symlink_to(other)
    with pytest.raises(UserError, match="cannot be opened"):
        load_study(folder)
    assert other.read_text() == "precious"


def test_optuna_opens_it_with_the_same_care(folder: Path) -> None:
    _hostile(folder, "create trigger t after insert on invocations begin delete from runs; end")
    url = RecordStore.url_of_folder(folder)
    with pytest.raises(UserError, match="has the trigger t"):
        open_storage(url)
    with pytest.raises(UserError, match="has the trigger t"):
        _storage(url)


def test_value_without_a_bound_is_not_read(folder: Path) -> None:
    _hostile(folder, "update manifests set manifest = cast(zeroblob(100000000) as text)")
    with pytest.raises(UserError, match="cannot be read"):
        load_study(folder)


def test_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "records.sqlite").write_bytes(b"not a database " * 100)
    with pytest.raises(UserError, match=r"records.sqlite is none \(file is not a database\)"):
        RecordStore.open_folder(tmp_path)


@pytest.mark.timeout(200)
def test_file_of_a_format_that_does_not_exist_is_not_waited_for(folder: Path) -> None:
    path = _hostile(folder, "PRAGMA journal_mode=DELETE") / "records.sqlite"
    content = bytearray(path.read_bytes())
    # The number of the schema's format; 4 is the highest.
    content[44:48] = (99).to_bytes(4, "big")
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"is none \(unsupported file format\)"):
        RecordStore.open_folder(folder)


@pytest.mark.timeout(200)
def test_file_that_says_it_is_of_a_newer_sqlite(folder: Path) -> None:
    path = _hostile(folder, "PRAGMA journal_mode=DELETE") / "records.sqlite"
    content = bytearray(path.read_bytes())
    content[18] = 0x40
    path.write_bytes(content)
    with pytest.raises(UserError, match="can only be read"):
        load_study(folder)


@pytest.mark.parametrize(
    ("typed", "noted"),
    [
        ("postgresql+psycopg://me:hunter2@host/db", "postgresql+psycopg://me:***@host/db"),
        ("--store=postgresql://me:hun@ter2@host/db", "--store=postgresql://me:***@host/db"),
        ("postgresql://:hunter2@host", "postgresql://:***@host"),
        ("x://host/db?user=me&password=hunter2&port=1", "x://host/db?user=me&password=***&port=1"),
        ("x://host/db?sslpassword=hunter2", "x://host/db?sslpassword=***"),
        ("host=a PASSWORD=hunter2", "host=a PASSWORD=***"),
        ("--out", "--out"),
        ("runs/a:b@c", "runs/a:b@c"),
        ("postgresql+psycopg://me@host:5432/db", "postgresql+psycopg://me@host:5432/db"),
    ],
)
def test_password_that_was_typed_is_not_noted(typed: str, noted: str) -> None:
    assert without_password(typed) == noted


def _manifest(folder: Path, **changes: object) -> Path:
    """The study with other values in its promise; a name with dots is of an inner object."""
    with closing(sqlite3.connect(folder / "records.sqlite")) as connection:
        (text,) = connection.execute("select manifest from manifests").fetchone()
        promised = json.loads(text)
        for name, value in changes.items():
            *outer, last = name.split("__")
            place = promised
            for key in outer:
                place = place[key]
            place[last] = value
        connection.execute("update manifests set manifest = ?", (json.dumps(promised),))
        connection.commit()
    return folder


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"num_seeds": 10**12}, "1 to 10000 seeds"),
        ({"folds__num_folds": 10**9}, "num_folds"),
        ({"folds__sizes": [1]}, "of another number"),
        ({"folds__sizes": "many"}, "sizes"),
        ({"dataset__classes": []}, "classes"),
        ({"dataset": {}}, "name"),
        ({"arms": []}, "1 to 1000 arms"),
        ({"baseline": "nobody"}, "none of its arms"),
        ({"recipe": "{}"}, "epochs"),
        ({"study": "../../x"}, "letters that a file may have"),
        ({"study": "a\nb"}, "letters that a file may have"),
    ],
    ids=str,
)
@pytest.mark.timeout(200)
def test_promise_that_no_study_made(folder: Path, changes: dict[str, object], reason: str) -> None:
    with pytest.raises(UserError, match=rf"cannot be read \(.*{reason}"):
        load_study(_manifest(folder, **changes))


@pytest.mark.parametrize(
    "statement",
    [
        "update cases set tp = -5 where rowid = (select min(rowid) from cases)",
        "update cases set tp = 'many' where rowid = (select min(rowid) from cases)",
        "update cases set tp = 9e300 where rowid = (select min(rowid) from cases)",
        "update cases set 'group' = x'00ff' where rowid = (select min(rowid) from cases)",
        "update runs set record = '{}'",
        "update runs set record = 'nonsense'",
        "update invocations set invocation = '[]'",
        "update latencies set record = '[]'",
    ],
)
def test_rows_that_no_run_has(folder: Path, statement: str) -> None:
    if "group" in statement:
        statement = statement.replace("'group'", '"group"')
    with pytest.raises(UserError, match="cannot be read"):
        load_study(_hostile(folder, statement))


@pytest.mark.parametrize(
    "change", ["holder = '{}'", "holder = 'x'", "beat = 'many'", "deaths = 'x'", "failure = x'00'"]
)
def test_claims_that_no_worker_made(tmp_path: Path, change: str) -> None:
    store = RecordStore.open_folder(tmp_path)
    try:
        claims = Claims(store)
        assert claims.claim_one(["a"]) is not None
        _hostile(tmp_path, f"update claims set {change}")
        with pytest.raises(UserError, match=r"the holder of a claim|but a claim cannot be read"):
            claims.claim_one(["a"])
    finally:
        store.close()


def test_overlays_of_an_arm_that_is_not_there(folder: Path) -> None:
    path = folder / overlays_name("nested_vs_plain")
    found = read_overlays(path)
    write_overlays(path, replace(found, arms=("x" * len(found.arms[0]), *found.arms[1:])))
    with pytest.raises(UserError, match="of the arms of its study"):
        load_study(folder)


def test_no_source_unpickles_or_evaluates() -> None:
    forbidden = re.compile(
        r"^\s*(?:import|from) (?:pickle|dill|joblib|marshal|shelve)\b|torch\.load\(|allow_pickle=True"
        r"|(?<![\w.])(?:eval|exec)\(|yaml\.(?:unsafe_)?load\(|shell=True|os\.system\(",
        re.MULTILINE,
    )
    root = Path(__file__).parents[2]
    sources = [
        p for room in ("unetpp", "nas", "studies", "reports") for p in (root / room).rglob("*.py")
    ]
    found = [path.name for path in sources if forbidden.search(path.read_text("utf-8"))]
    assert len(sources) > 100
    assert found == []
    assert forbidden.search("x = eval(text)")
    assert forbidden.search("import pickle")
