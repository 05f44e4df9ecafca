from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.site import Site, database_of
from tests.postgres import Server, find_postgres, serving


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if find_postgres() is None:
        pytest.skip("PostgreSQL is not installed; .ci/run installs it as root")
    with serving() as running:
        yield running


@pytest.fixture
def site(server: Server, tmp_path: Path) -> Iterator[Site]:
    made = Site(database_of(server, f"t{uuid.uuid4().hex[:12]}"), tmp_path)
    try:
        yield made
    finally:
        made.end_all()
