"""The version of a store's tables: an older store is copied and migrated, a newer one is refused.

To change the tables, change their definitions and add a `Migration` at the end of `MIGRATIONS`.
Fields of the JSON texts in them have defaults of their own and need no version.
"""

from __future__ import annotations

import os
import sqlite3
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, OperationalError, ProgrammingError
from sqlalchemy.schema import CreateSchema, CreateTable

from unetpp.database import (
    PATIENCE_S,
    cannot_write,
    lock_tables,
    place_of,
)
from unetpp.errors import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """How a store comes to one version from the one before.

    Attributes:
        version: that it leads to.
        sentence: what is new, in words.
        tables: names of those that are new. They are made after all steps, in their newest
            layout, so that a purely additive version has no steps.
        steps: what is changed in tables that are there, by DDL that never changes again. A store
            may lack a table (that of searches before its first search): a step leaves it alone.
    """

    version: int
    sentence: str
    tables: tuple[str, ...] = ()
    steps: tuple[Callable[[sa.Connection], None], ...] = ()


def _order_names_by_bytes(connection: sa.Connection) -> None:
    """As SQLite does; only PostgreSQL puts text in the order of a language."""
    if connection.dialect.name != "postgresql":
        return
    there = sa.inspect(connection).get_table_names()
    for table, column, length in (
        ("runs", "spec_id", 12),
        ("cases", "case", 255),
        ("cases", "output", 16),
        ("surfaces", "case", 255),
        ("objects", "case", 255),
        ("edges", "edge", 32),
        ("edges", "case", 255),
        ("traces", "quantity", 64),
        ("traces", "place", 64),
        ("manifests", "study", 64),
    ):
        if table in there:
            connection.exec_driver_sql(
                f'ALTER TABLE "{table}" ALTER COLUMN "{column}" TYPE VARCHAR({length}) COLLATE "C"'
            )


# Oldest first. What is here never changes; a new version goes to the end.
MIGRATIONS = (
    Migration(
        version=1,
        sentence="runs, their cases, timings, promises and starts",
        tables=("runs", "cases", "latencies", "manifests", "invocations"),
    ),
    Migration(version=2, sentence="searches", tables=("searches", "search_trials")),
    Migration(
        version=3,
        sentence="boundaries, objects, single skips and traces of runs",
        tables=("surfaces", "objects", "edges", "traces"),
    ),
    Migration(
        version=4,
        sentence="a version, claims, shared folds, and names in the order of their bytes",
        tables=("claims", "splits"),
        steps=(_order_names_by_bytes,),
    ),
)
SCHEMA_VERSION = MIGRATIONS[-1].version

# Stores up to here do not say their version: their tables tell it.
_LAST_SILENT = 3
_RUNS_AT_FIRST = {
    "id",
    "dataset_hash",
    "split_hash",
    "fold",
    "spec_id",
    "recipe_id",
    "seed",
    "numbers_version",
    "record",
}
_VERSION = sa.Table(
    "schema_version",
    sa.MetaData(),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
)


def open_schema(
    engine: sa.Engine,
    tables: Sequence[sa.Table],
    migrations: Sequence[Migration] = MIGRATIONS,
) -> None:
    """Bring a store to the newest version; one query where it is there already.

    Several processes may do so at once: one works, the others wait.

    Args:
        engine: of the store.
        tables: to make where they are missing.
        migrations: oldest first, without gaps.

    Raises:
        UserError: for a newer store, for one that cannot be read or written, and where the copy
            cannot be made. Nothing is changed then.
    """
    newest = migrations[-1].version
    if _is_newest(engine, newest):
        return
    if cannot_write(engine):
        _refuse_older(engine, migrations)
    with engine.connect() as connection:
        _begin_alone(connection)
        # Another process may have been faster.
        version = _find_version(connection, migrations)
        if version == newest:
            return
        told = "" if version is None else _migrate(connection, version, migrations)
        for table in (*tables, _VERSION):
            connection.execute(CreateTable(table, if_not_exists=True))
        connection.execute(_VERSION.delete())
        connection.execute(_VERSION.insert(), {"version": newest})
        connection.commit()
    if told:
        warnings.warn(told, stacklevel=2)


def _is_newest(engine: sa.Engine, newest: int) -> bool:
    """Whether a store says so."""
    with engine.connect() as connection:
        try:
            return _stated_version(connection, newest) == newest
        except (OperationalError, ProgrammingError) as error:
            if _is_unknown_name(error):
                return False
            raise


def _refuse_older(engine: sa.Engine, migrations: Sequence[Migration]) -> None:
    """For a store that cannot be written."""
    newest = migrations[-1].version
    with engine.connect() as connection:
        version = _find_version(connection, migrations)
    if version is not None:
        raise UserError(
            f"a store is brought to version {newest} before it is read, but {place_of(engine)} is "
            f"of version {version} and cannot be written; copy its folder to where you may write, "
            "and open the copy"
        )


def _find_version(connection: sa.Connection, migrations: Sequence[Migration]) -> int | None:
    """The version of a store; None for a database without one."""
    inspector = sa.inspect(connection)
    if not inspector.has_table(_VERSION.name):
        return _silent_version(connection, migrations)
    columns = [column["name"] for column in inspector.get_columns(_VERSION.name)]
    if columns != ["version"]:
        raise _not_a_version(connection, f"columns {', '.join(columns)}")
    return _stated_version(connection, migrations[-1].version)


def _stated_version(connection: sa.Connection, newest: int) -> int:
    """What the store says."""
    # A text of any length may lie there: SQLite does not hold columns to their types.
    shown = sa.func.substr(sa.cast(_VERSION.c.version, sa.String), 1, 20)
    rows = connection.execute(sa.select(shown).limit(2)).scalars().all()
    found = [f"{value}" for value in rows]
    if len(found) != 1 or not (found[0].isascii() and found[0].isdigit()) or int(found[0]) < 1:
        raise _not_a_version(connection, ", ".join(map(repr, found)) or "no row")
    version = int(found[0])
    if version > newest:
        raise UserError(
            f"a store is of version <= {newest}, as this unetpp knows, but "
            f"{place_of(connection.engine)} is of version {version}; install a newer unetpp"
        )
    return version


def _not_a_version(connection: sa.Connection, found: str) -> UserError:
    return UserError(
        f"a store says its version in one row of `{_VERSION.name}`, a whole number, but "
        f"{place_of(connection.engine)} has {found}; take a backup of it, or another file"
    )


def _silent_version(connection: sa.Connection, migrations: Iterable[Migration]) -> int | None:
    """The version of a store that does not say it, from its tables."""
    silent = [migration for migration in migrations if migration.version <= _LAST_SILENT]
    inspector = sa.inspect(connection)
    there = set(inspector.get_table_names())
    known = [migration.version for migration in silent if there & set(migration.tables)]
    if not known:
        return None
    columns = {c["name"] for c in inspector.get_columns("runs")} if "runs" in there else set()
    if columns != _RUNS_AT_FIRST:
        # Other programs have tables of such names too.
        names = sorted(there & {name for migration in silent for name in migration.tables})
        raise UserError(
            f"a store of records has its own tables, but {place_of(connection.engine)} holds "
            f"{', '.join(names)} of another program; name an empty database, or another file"
        )
    return max(known)


def _begin_alone(connection: sa.Connection) -> None:
    """Begin a transaction in which nobody else makes or migrates tables."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        lock_tables(connection)


def _migrate(connection: sa.Connection, old: int, migrations: Sequence[Migration]) -> str:
    """Copy and change the tables of a store; what was done, in a sentence."""
    newest = migrations[-1].version
    known = {name for migration in migrations for name in migration.tables} | {_VERSION.name}
    tables = sorted(known & set(sa.inspect(connection).get_table_names()))
    try:
        if connection.dialect.name == "sqlite":
            copy = f"{_copy_file(connection.engine, old)}"
        else:
            copy = f"the schema {_copy_schema(connection, old, tables)}"
        for migration in migrations:
            if migration.version > old:
                for step in migration.steps:
                    step(connection)
    except DBAPIError as error:
        raise _told(error, connection.engine, old, newest) or error from error
    return (
        f"{place_of(connection.engine)} was brought from version {old} to version {newest}; "
        f"{copy} holds it as it was"
    )


def _copy_file(engine: sa.Engine, old: int) -> Path:
    """Copy a SQLite file, with its write-ahead log, beside it; whole or not at all.

    Only one process does so at a time: it holds the lock on the store.
    """
    assert engine.url.database is not None
    source = Path(engine.url.database)
    name, number = f"{source.name}.v{old}.bak", 1
    target = source.with_name(name)
    while target.exists():
        number += 1
        target = source.with_name(f"{name}-{number}")
    part = source.with_name(f"{name}.part")
    try:
        # One that was killed may have left its part.
        part.unlink(missing_ok=True)
        _copy_pages(source, part)
        part.rename(target)
        _sync(target)
        if os.name == "posix":
            _sync(target.parent)
    except (OSError, sqlite3.Error) as error:
        part.unlink(missing_ok=True)
        size = max(1, round(source.stat().st_size / 2**20))
        raise UserError(
            f"a store of version {old} is copied before it is migrated, but {source} could not be "
            f"copied to {target.name} beside it ({error}); make room for {size} MiB there, then "
            "the same command goes on (nothing was changed)"
        ) from error
    return target


def _copy_pages(source: Path, target: Path) -> None:
    with (
        closing(sqlite3.connect(f"{source.resolve().as_uri()}?mode=ro", uri=True)) as old,
        closing(sqlite3.connect(target)) as new,
    ):
        old.backup(new)
        # In one file, which opens from a medium that cannot be written too.
        new.execute("PRAGMA journal_mode=DELETE")
    _sync(target)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _copy_schema(connection: sa.Connection, old: int, tables: Iterable[str]) -> str:
    """Copy tables into a schema of their own, in the transaction that changes them."""
    wanted = f"unetpp_backup_v{old}"
    there, name, number = set(sa.inspect(connection).get_schema_names()), wanted, 1
    while name in there:
        number += 1
        name = f"{wanted}_{number}"
    # A worker of an older program must not write between the copy and the change.
    connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{round(PATIENCE_S)}s'")
    connection.execute(CreateSchema(name))
    for table in tables:
        connection.exec_driver_sql(f'LOCK TABLE "{table}" IN ACCESS EXCLUSIVE MODE')
    for table in tables:
        connection.exec_driver_sql(f'CREATE TABLE "{name}"."{table}" AS TABLE "{table}"')
    return name


def _told(error: DBAPIError, engine: sa.Engine, old: int, newest: int) -> UserError | None:
    """What a user can mend."""
    state, place = getattr(error.orig, "sqlstate", None), place_of(engine)
    if state == "42501":
        return UserError(
            f"a store of version {old} is copied into a schema beside it and then brought to "
            f"version {newest}, but this user may not do so in {place}; GRANT CREATE ON DATABASE "
            "to it, or let the owner of the tables open the store once (nothing was changed)"
        )
    if state == "55P03":
        return UserError(
            f"a store of version {old} is migrated while nobody uses it, but {place} was in use "
            f"for {PATIENCE_S:g} s; stop its workers, then the same command goes on (nothing was "
            "changed)"
        )
    return None


def _is_unknown_name(error: DBAPIError) -> bool:
    """Whether a table or a column is not there."""
    state: Any = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state in ("42P01", "42703")
    return getattr(error.orig, "sqlite_errorname", None) == "SQLITE_ERROR"
