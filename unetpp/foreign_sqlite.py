"""A SQLite file that somebody else may have made: read, but never obeyed.

Tables are data, and no larger than their file. What makes rows or acts by itself (views, triggers,
virtual tables, computed columns) is in no file of ours, and could keep a reader busy for ever.
"""

from __future__ import annotations

import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any

from unetpp.errors import UserError

# Of a text or blob, in bytes; a run of a thousand epochs takes a tenth of a megabyte.
_LONGEST_VALUE = 2**26
# The end of a journal of SQLite that names a file for it to remove.
_NAMES_ANOTHER = bytes.fromhex("d9d505f920a163d7")
_PROGRAMS = (
    "select type || ' ' || name from sqlite_master where type not in ('table', 'index')",
    "select 'virtual table ' || name from sqlite_master where type = 'table' and rootpage = 0",
    (
        "select 'computed column ' || t.name || '.' || c.name from sqlite_master as t "
        "join pragma_table_xinfo(t.name) as c where t.type = 'table' and c.hidden > 0"
    ),
    (
        "select 'computed default of ' || t.name || '.' || c.name from sqlite_master as t "
        "join pragma_table_xinfo(t.name) as c where t.type = 'table' and c.dflt_value like '%(%'"
    ),
    (
        "select 'computed index ' || i.name from sqlite_master as t "
        "join pragma_index_list(t.name) as i where t.type = 'table' and (i.partial or exists "
        "(select 1 from pragma_index_xinfo(i.name) where cid = -2))"
    ),
)


def guard(connection: sqlite3.Connection) -> None:
    """Make a new connection safe for a file of unknown origin.

    Raises:
        UserError: the file is no SQLite database, or holds what runs by itself, or a journal beside
            it would have SQLite touch other files.
    """
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
    connection.execute("PRAGMA trusted_schema=OFF")
    connection.execute("PRAGMA cell_size_check=ON")
    # Ours have none, and an expression in one can take all time and memory when a row is written.
    connection.execute("PRAGMA ignore_check_constraints=ON")
    file = connection.execute("PRAGMA database_list").fetchone()[2] or "the store"
    _guard_journal(file)
    try:
        found = [row for query in _PROGRAMS for row in connection.execute(f"{query} limit 1")]
    except sqlite3.DatabaseError as error:
        unreadable = ("SQLITE_ERROR", "SQLITE_CORRUPT", "SQLITE_NOTADB")
        if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorname not in unreadable:
            # Locked, or not to be read: whoever reads on says so.
            return
        raise UserError(
            f"a store must be an SQLite database, but {file} is none ({error}); copy it again"
        ) from None
    if found:
        raise UserError(
            f"a store must hold tables and indexes alone, but {file} has the {found[0][0]}, which "
            "could run by itself; see where the file comes from"
        )


class GuardedConnection(sqlite3.Connection):
    """A connection for a library that opens the file itself; see `guard`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        try:
            guard(self)
        except UserError:
            self.close()
            raise


def _guard_journal(file: str) -> None:
    """Refuse a journal that reaches beyond its database; SQLite has not read it yet."""
    path = Path(f"{file}-journal")
    # A pipe would be waited for.
    if not path.is_file():
        return
    with suppress(OSError), path.open("rb") as journal:
        # Only a transaction over several databases writes it, and none of ours is.
        journal.seek(-len(_NAMES_ANOTHER), 2)
        if journal.read() == _NAMES_ANOTHER:
            raise UserError(
                f"the journal of a store is of that store alone, but {path} names another "
                "file, which SQLite would remove; see where the file comes from"
            )
