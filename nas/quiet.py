"""No latency is measured while another worker of the search trains.

Trainings share one lock and a measurement has it alone. Both pass a turnstile first, so that a
measurement waits for the folds that are being trained, and not for those that come after.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, ReadWriteLock


@contextmanager
def training(folder: Path) -> Iterator[None]:
    """While one fold is trained; others may be trained beside it."""
    lock = _lock(folder)
    with _turnstile(folder):
        lock.acquire_read()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def measuring(folder: Path) -> Iterator[None]:
    """While something is timed: nothing is trained, and nothing else is timed."""
    lock = _lock(folder)
    with _turnstile(folder):
        lock.acquire_write()
    try:
        yield
    finally:
        lock.release()


def _lock(folder: Path) -> ReadWriteLock:
    return ReadWriteLock(folder / ".quiet.lock", is_singleton=False)


def _turnstile(folder: Path) -> FileLock:
    return FileLock(folder / ".turnstile.lock", is_singleton=False)
