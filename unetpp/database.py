"""Where records lie: a SQLite file, or a PostgreSQL that several machines share.

A database that is away for a while (a restart, a network that drops) is waited for; what is tried
again is whole transactions, so nothing is written by half.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

import sqlalchemy as sa
from filelock import FileLock, Timeout
from sqlalchemy import event
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    NoSuchModuleError,
    OperationalError,
    PendingRollbackError,
)
from sqlalchemy.schema import CreateTable

from unetpp.errors import PlaceError, UserError
from unetpp.foreign_sqlite import GuardedConnection, guard

# How long a process waits for another one that writes, or for a server that is away, in seconds.
PATIENCE_S = 60.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 5.0
# From a pause of so many seconds on, a person would wonder why nothing happens.
_NOTED_PAUSE_S = 1.0
_LOG = logging.getLogger(__name__)
# Each process makes one transaction at a time; a second connection is for Optuna's own tables.
_POOL = {"pool_pre_ping": True, "pool_size": 1, "max_overflow": 2}
# A network that is cut says nothing: a server that answers no packet for so long counts as away.
# Seconds, the last in milliseconds. Without these, the system waits for hours.
_SIGNS_OF_LIFE = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 40_000,
}
# Two processes that make the same new table at once would collide in PostgreSQL's catalogue.
_TABLES_LOCK = 7_410_001
# What a URL of PostgreSQL may say after "?": nothing here is secret.
_SETTINGS = frozenset(
    (
        *("host", "hostaddr", "port", "user", "dbname", "service", "passfile", "application_name"),
        *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslcrl", "channel_binding"),
        *("connect_timeout", "target_session_attrs", "load_balance_hosts", "gssencmode"),
        *("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"),
    )
)
# A process that was halted within a lock must not stop all others: the server ends its transaction.
_LONGEST_IN_LOCK_S = 120
# SQLSTATE: connection lost or refused, server shutting down or starting, deadlock, serialization,
# a transaction that the server ended because this process was halted within it.
_PASSING = ("08", "57P", "40", "25P03")

# What another process that works on the same file does to this one.
_SQLITE_PASSING = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")

_P = ParamSpec("_P")
_T = TypeVar("_T")


class HasEngine(Protocol):
    """What keeps its rows in a database."""

    @property
    def engine(self) -> sa.Engine:
        """Of that database."""
        ...


class Bindable:
    """Whose methods can be parts of one transaction.

    Attributes:
        connection: of that transaction; None where each method is a transaction of its own.
    """

    connection: sa.Connection | None = None


_S = TypeVar("_S", bound=HasEngine)


def open_engine(url: str) -> sa.Engine:
    """The engine for a URL; nothing is connected yet.

    Args:
        url: `sqlite:///FILE` or `postgresql+psycopg://USER@HOST/DATABASE`.

    Raises:
        UserError: for another kind of database, a password in the URL, or a driver that is missing.
    """
    parsed = check_url(url)
    if parsed.get_backend_name() == "sqlite":
        engine = sa.create_engine(parsed)
        event.listen(engine, "do_connect", _open_as_allowed)
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    try:
        return sa.create_engine(parsed, **engine_options(parsed))
    except ModuleNotFoundError:
        raise UserError(
            "a store in PostgreSQL needs psycopg, which is not installed; "
            "pip install 'unetpp[postgres]'"
        ) from None


def engine_options(url: sa.URL) -> dict[str, Any]:
    """What a library that makes an engine itself tells `create_engine`.

    What the URL of a PostgreSQL says itself goes before.
    """
    if url.get_backend_name() == "sqlite":
        return {"connect_args": {"factory": GuardedConnection}}
    signs = {name: value for name, value in _SIGNS_OF_LIFE.items() if name not in url.query}
    # A pooler in front may give each transaction another connection, without what was prepared.
    return {**_POOL, "connect_args": {**signs, "prepare_threshold": None}}


def check_url(url: str) -> sa.URL:
    """The URL in parts.

    Raises:
        UserError: see `open_engine`; the sentence never repeats a password.
    """
    try:
        parsed = sa.make_url(url)
        backend = parsed.get_backend_name()
    except (ArgumentError, NoSuchModuleError, ValueError):
        # Not shown: what cannot be parsed may hold a password anywhere.
        raise UserError(
            "a store is sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE, but the URL "
            "given cannot be read; write it so"
        ) from None
    if _may_hold_password(parsed):
        raise UserError(
            "the URL of a store holds no password and no setting that may be one, as commands, "
            "logs and records are seen by others, but this one does; put it into PGPASSWORD or "
            "~/.pgpass"
        )
    if parsed.drivername not in ("sqlite", "sqlite+pysqlite", "postgresql+psycopg"):
        raise UserError(
            "a store is sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE, but this one is "
            f"{backend} by {parsed.drivername}; name one of these two"
        )
    return parsed


def _may_hold_password(url: sa.URL) -> bool:
    """Whether a part that is shown elsewhere is, or could be, a password."""
    if url.password is not None or "password" in url.query:
        return True
    if url.get_backend_name() == "sqlite":
        return False
    # libpq takes passwords in other settings too, and "host=... password=..." in some of these.
    users = (url.username or "", *map(str, url.normalized_query.get("user", ())))
    names = (url.database or "", *map(str, url.normalized_query.get("dbname", ())))
    hosts = (url.host or "", *map(str, url.query.values()))
    marked = any(
        mark in text for text in (*users, *names, *hosts) for mark in ("=", "://", "password")
    )
    # USER:PASSWORD@HOST where one slash too many or too few has put it into another part.
    moved = any(":" in text for text in (*users, *names)) or any(
        "@" in text for text in (*names, url.host or "", f"{url.query.get('host', '')}")
    )
    return marked or moved or not _SETTINGS.issuperset(url.query)


def make_tables(engine: sa.Engine, tables: Iterable[sa.Table]) -> None:
    """Make the tables that are missing; several processes may do so at once."""
    # Looked for first: who may only read needs no right to make what is there.
    with engine.connect() as connection:
        there = set(sa.inspect(connection).get_table_names())
    tables = [table for table in tables if table.name not in there]
    if not tables:
        return
    # Not `create_all`: another process may make them meanwhile.
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            lock_tables(connection)
        for table in tables:
            connection.execute(CreateTable(table, if_not_exists=True))


def holds_table(url: str, name: str) -> bool:
    """Whether a database has a table; nothing is made, not even a file that is missing.

    Raises:
        UserError: see `open_engine` and `wait_for`.
    """
    parsed = check_url(url)
    if parsed.get_backend_name() == "sqlite" and not Path(parsed.database or "").is_file():
        return False
    engine = open_engine(url)
    try:
        return wait_for(engine, lambda: sa.inspect(engine).has_table(name))
    finally:
        engine.dispose()


def lock_tables(connection: sa.Connection) -> None:
    """Until the end of this transaction in PostgreSQL, nobody else makes tables."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_TABLES_LOCK)))


def place_of(engine: sa.Engine) -> str:
    """A database as sentences name it: the file, or the URL, which holds no password."""
    if engine.dialect.name == "sqlite":
        return engine.url.database or "the store in memory"
    return f"{engine.url}"


def cannot_write(engine: sa.Engine) -> bool:
    """Whether it is a SQLite file that this process may only read."""
    file = engine.url.database
    return engine.dialect.name == "sqlite" and file is not None and _may_only_read(Path(file))


def patient(
    method: Callable[Concatenate[_S, _P], _T],
) -> Callable[Concatenate[_S, _P], _T]:
    """A method that may be tried again as a whole, and is while its database is away.

    Pauses double up to 5 s; after `PATIENCE_S` seconds it raises a PlaceError that names the
    database. Other errors pass through.
    """

    @functools.wraps(method)
    def tried(self: _S, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        # A part of a transaction cannot be tried again without the rest.
        if isinstance(self, Bindable) and self.connection is not None:
            return method(self, *args, **kwargs)
        return wait_for(self.engine, lambda: method(self, *args, **kwargs))

    return tried


def wait_for(
    engine: sa.Engine, transaction: Callable[[], _T], *, patience: float = PATIENCE_S
) -> _T:
    """What the transaction returns, once the database answers.

    Args:
        engine: of the database.
        transaction: may be called several times.
        patience: seconds from when it was first found away: a transaction may take long itself.

    Raises:
        PlaceError: when the database is away for longer, is full, or lets nobody in.
    """
    deadline, pause = None, _FIRST_PAUSE_S
    while True:
        try:
            return transaction()
        except Exception as raised:
            error = _database_error(raised)
            if error is None:
                raise
            refusal = _refusal(engine, error)
            if refusal is not None:
                raise refusal from raised
            if not _will_pass(engine, error):
                raise
            deadline = deadline or time.monotonic() + patience
            if time.monotonic() + pause > deadline:
                raise PlaceError(
                    f"the store must answer within {patience:g} s, but {engine.url} did not "
                    f"({_first_line(error)}); start the server, then the same command goes on"
                ) from raised
            if pause < _NOTED_PAUSE_S <= 2 * pause:
                _LOG.warning(
                    "the store does not answer (%s); waiting for it, %g s at most",
                    _first_line(error),
                    patience,
                )
        # Many workers must not come back all at once.
        time.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, _LONGEST_PAUSE_S)


def _refusal(engine: sa.Engine, error: DBAPIError) -> PlaceError | None:
    """The sentence about what waiting does not mend."""
    if _is_full(error):
        return PlaceError(
            f"a store must have room to write, but {engine.url} has none left "
            f"({_first_line(error)}); make room, then the same command goes on"
        )
    mendable = _MENDABLE.get(_sqlite_name(error))
    if mendable is not None:
        law, but, way_out = mendable
        return PlaceError(f"{law}, but {place_of(engine)} {but}; {way_out}")
    if _is_turned_away(error):
        return PlaceError(
            f"a store must be a database that lets this user in, but {engine.url} does "
            f"not ({_first_line(error)}); mend the URL, or PGPASSWORD or ~/.pgpass"
        )
    return None


@contextmanager
def exclusively(engine: sa.Engine, name: str) -> Iterator[sa.Connection | None]:
    """Within, no other process is within the same name on the same database.

    Yields:
        A connection whose transaction holds the lock, so that what is written with it is written
        under the lock or not at all; None for SQLite, where a file beside the database is locked.
    """
    if engine.dialect.name == "sqlite":
        assert engine.url.database is not None
        lock = FileLock(Path(engine.url.database).with_name(f".{name}.lock"))
        try:
            lock.acquire(timeout=_LONGEST_IN_LOCK_S)
        except Timeout:
            raise PlaceError(
                f"processes take turns of at most {_LONGEST_IN_LOCK_S} s at {lock.lock_file}, but "
                "one of them holds it for longer; end the process that was halted"
            ) from None
        try:
            yield None
        finally:
            lock.release()
        return
    with engine.begin() as connection:
        connection.execute(
            sa.text(f"SET LOCAL idle_in_transaction_session_timeout = '{_LONGEST_IN_LOCK_S}s'")
        )
        # A turn is waited for, whatever a role's limits are.
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
        connection.execute(sa.text("SET LOCAL lock_timeout = 0"))
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
        yield connection


def _database_error(error: Exception) -> DBAPIError | None:
    """What the database said, also through Optuna, which wraps it."""
    for found in (error, error.__cause__):
        if isinstance(found, PendingRollbackError):
            # Optuna asks once more on a connection that is lost, and is told of that instead.
            found = found.__context__
        if isinstance(found, DBAPIError):
            return found
    return None


def _is_full(error: DBAPIError) -> bool:
    """Whether the disk of the database is full: SQLite's words, PostgreSQL's 53100."""
    return "database or disk is full" in str(error.orig) or (
        getattr(error.orig, "sqlstate", None) == "53100"
    )


# What SQLite answers about the file, by the first two words of its error's name.
_MENDABLE = {
    "SQLITE_CORRUPT": (
        "a store is a sound SQLite file",
        "is damaged",
        "take a backup of it, or save what there is by `sqlite3 FILE .recover`",
    ),
    "SQLITE_READONLY": (
        "a store is written to",
        "can only be read",
        "copy its folder to where you may write, and use the copy",
    ),
    "SQLITE_BUSY": (
        "a store is written by one process at a time, for a moment",
        f"was in use for {PATIENCE_S:g} s",
        "end the process that was halted while it wrote, then the same command goes on",
    ),
    "SQLITE_CANTOPEN": (
        "a store is a file in a folder that is there and may be written",
        "cannot be opened",
        "mend the path or its rights, or copy its folder to where you may write",
    ),
}


def _sqlite_name(error: DBAPIError) -> str:
    name: str = getattr(error.orig, "sqlite_errorname", "")
    return "_".join(name.split("_")[:2])


def _will_pass(engine: sa.Engine, error: DBAPIError) -> bool:
    """Whether the same transaction may succeed later. SQLite waits by itself."""
    if engine.dialect.name == "sqlite":
        return False
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return str(state).startswith(_PASSING)
    # A connection that was refused or broke has no state.
    return error.connection_invalidated or isinstance(error, OperationalError)


def _is_turned_away(error: DBAPIError) -> bool:
    """Whether a server answered that it has no such user, password or database."""
    text = str(error.orig)
    said = ("authentication failed", "FATAL:  database", "FATAL:  role", "no password supplied")
    return isinstance(error, OperationalError) and any(words in text for words in said)


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().splitlines()[0][:200]


def _open_as_allowed(
    _dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]
) -> None:
    """Open a file that may only be read without the write-ahead log, which needs writing."""
    file = Path(arguments[0])
    if not _may_only_read(file):
        return
    # Without a log beside it nobody has it open, and it holds all that was written.
    log = file.with_name(f"{file.name}-wal")
    how = "mode=ro" if log.exists() else "mode=ro&immutable=1"
    arguments[0], options["uri"] = f"{file.resolve().as_uri()}?{how}", True


def _may_only_read(file: Path) -> bool:
    effective = os.access in os.supports_effective_ids
    return file.is_file() and not (
        os.access(file, os.W_OK, effective_ids=effective)
        and os.access(file.parent, os.W_OK, effective_ids=effective)
    )


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # A reader (a report, a dashboard) must not make the writer fail: write-ahead log, and wait.
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={round(1000 * PATIENCE_S)}")
    guard(connection)
    [(_, _, file)] = cursor.execute("PRAGMA database_list").fetchall()
    if not _may_only_read(Path(file)):
        _use_write_ahead_log(cursor)
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _use_write_ahead_log(cursor: sqlite3.Cursor) -> None:
    """Switch the journal; while another process switches the same new file, try again.

    SQLite answers "database is locked" to that at once, whatever the busy timeout.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            passes = error.sqlite_errorname.startswith(_SQLITE_PASSING)
            if not passes or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
