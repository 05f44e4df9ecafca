"""A database that is restarted, away, cut off or full, while workers train and while they commit."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy.exc import OperationalError

from tests.faults.site import Site, database_of
from tests.postgres import Server, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may mount a small disk")


@contextmanager
def small_disk(folder: Path, *, kib: int) -> Iterator[None]:
    """A file system in memory that is soon full."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", f"{folder}"]
    if subprocess.run(mount, check=False, capture_output=True, timeout=20).returncode:
        pytest.skip("this container may not mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", f"{folder}"], check=True, timeout=20)


@pytest.mark.parametrize(
    ("point", "nth", "seconds"),
    [("training", 3, 7), ("scoring", 1, 0), ("committing", 3, 7), ("training", 4, 30)],
)
def test_a_database_that_is_away(tmp_path: Path, point: str, nth: int, seconds: float) -> None:
    """Its own server: the others of this module are not to be cut."""
    with serving() as server:
        site = Site(server.url, tmp_path, epochs=6)
        try:
            held = site.start(pause=point, nth=nth)
            others = site.start_held(2)
            held.wait_for(f"at {point}")
            for worker in others:
                worker.go_on()
            server.stop()
            held.go_on()
            time.sleep(seconds)
            server.start()
            for worker in (held, *others):
                assert worker.end() == 0, worker.said
            site.check(interruptions=0)
        finally:
            site.end_all()


@pytest.mark.parametrize("point", ["training", "committing"])
def test_connections_that_are_cut(site: Site, point: str) -> None:
    held = site.start(pause=point, nth=3)
    [other] = site.start_held(1)
    held.wait_for(f"at {point}")
    other.go_on()
    assert site.cut_connections() >= 1
    held.go_on()
    for worker in (held, other):
        assert worker.end() == 0, worker.said
    site.check(interruptions=0)


def test_an_answer_that_is_lost_after_the_commit(site: Site) -> None:
    worker = site.start(trouble=("lost answer",))
    worker.wait_for("cut after the commit")
    assert worker.end() == 0, worker.said
    site.check(interruptions=0)


@needs_root
def test_a_full_disk_of_postgresql(server: Server, tmp_path: Path) -> None:
    # The server's user must reach it.
    disk = server.data.parent / "small"
    with small_disk(disk, kib=12_000):
        place = disk / "space"
        place.mkdir()
        shutil.chown(place, "postgres")
        statement = f"CREATE TABLESPACE small LOCATION '{place}'"
        Site(server.url, tmp_path).do(statement)
        site = Site(database_of(server, "on_small", tablespace="small"), tmp_path)
        try:
            held = site.start(pause="committing", nth=1)
            held.wait_for("at committing")
            _fill(site)
            held.go_on()
            assert held.end() == 2
            assert "a store must have room to write, but" in held.said
            assert "make room, then the same command goes on" in held.said
            site.do("DROP TABLE filler")
            assert site.scalar("SELECT count(*) FROM runs") == 0
            other = site.start()
            assert other.end() == 0, other.said
            site.check(interruptions=0)
        finally:
            site.end_all()
            Site(server.url, tmp_path).do("DROP DATABASE on_small", "DROP TABLESPACE small")


def _fill(site: Site) -> None:
    """Until not even a small row finds room."""
    site.do(
        "CREATE TABLE filler (text text) WITH (autovacuum_enabled = off)",
        "ALTER TABLE filler ALTER text SET STORAGE PLAIN",
    )
    for size in (4000, 4000, 1000, 100):
        rows = f"INSERT INTO filler SELECT repeat('x', {size}) FROM generate_series(1, 100)"
        with pytest.raises(OperationalError, match="No space left"):
            _repeat(lambda rows=rows: site.do(rows))


def _repeat(action: Callable[[], object]) -> None:
    while True:
        action()


@needs_root
def test_a_full_disk_of_sqlite(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, kib=1000):
        site = Site(f"sqlite:///{disk}/records.sqlite", tmp_path)
        try:
            held = site.start(pause="committing", nth=1)
            held.wait_for("at committing")
            filler = disk / "filler"
            file = filler.open("wb", buffering=0)
            with file, pytest.raises(OSError, match="No space"):
                _repeat(lambda: file.write(b"x" * 4096))
            held.go_on()
            assert held.end() == 2
            assert "a store must have room to write, but" in held.said
            filler.unlink()
            other = site.start()
            assert other.end() == 0, other.said
            site.check(interruptions=0)
        finally:
            site.end_all()


@needs_root
def test_a_full_disk_of_artifacts(site: Site) -> None:
    site.artifacts = site.folder / "artifacts"
    with small_disk(site.artifacts, kib=2000):
        filler = site.artifacts / "filler"
        file = filler.open("wb", buffering=0)
        with file, pytest.raises(OSError, match="No space"):
            _repeat(lambda: file.write(b"x" * 4096))
        worker = site.start()
        assert worker.end() == 2
        assert "a checkpoint must be written after each epoch, but" in worker.said
        assert "make room or mend the rights there, then the same command goes on" in worker.said
        assert site.scalar("SELECT count(*) FROM runs") == 0
        assert site.scalar("SELECT count(*) FROM claims") == 0
        filler.unlink()
        other = site.start()
        assert other.end() == 0, other.said
        # As the warning says: without room for a checkpoint, the whole fold is trained again.
        site.check(interruptions=site.epochs)
