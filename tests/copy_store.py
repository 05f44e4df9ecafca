"""All rows of one store in another one, whatever tables there are; for tests only."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from unetpp.searches import SearchLedger
from unetpp.store import RecordStore


def copy_store(folder: Path, url: str) -> None:
    """Copy the records of a folder into the empty database of a URL."""
    source, target = RecordStore.open_folder(folder, must_exist=True), RecordStore(url)
    for store in (source, target):
        SearchLedger(store)
    tables = sa.MetaData()
    tables.reflect(source.engine)
    there = set(sa.inspect(target.engine).get_table_names())
    with source.engine.connect() as reading, target.engine.begin() as writing:
        # Only the copied names are of the source: how a server keeps a column is its own business.
        for table in tables.sorted_tables:
            rows = [dict(row) for row in reading.execute(sa.select(table)).mappings()]
            if table.name in there and rows:
                own = sa.Table(table.name, sa.MetaData(), autoload_with=target.engine)
                writing.execute(own.delete())
                writing.execute(own.insert(), rows)
    source.close()
    target.close()


def make_database(url: str, name: str) -> str:
    """The URL of a new, empty database on the server of `url`."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    return sa.make_url(url).set(database=name).render_as_string()
