"""No latency is measured while another worker of the search trains.

Trainings share one lock and a measurement has it alone. Both pass a turnstile first, so that a
measurement waits for the folds that are being trained, and not for those that come after. The
system takes the locks from a process that dies.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from filelock import FileLock, ReadWriteLock, Timeout

from unetpp.errors import PlaceError

# Seconds. The longest fold must fit; only a process that was halted holds a lock longer.
_PATIENCE = 24 * 3600.0


@contextmanager
def training(folder: Path, *, patience: float = _PATIENCE) -> Iterator[None]:
    """While one fold is trained; others may be trained beside it.

    Args:
        folder: that the workers of a search share, on a disk of this machine.
        patience: seconds to wait for measurements.

    Raises:
        PlaceError: when they take longer.
    """
    with _held(folder, "read", patience):
        yield


@contextmanager
def measuring(folder: Path, *, patience: float = _PATIENCE) -> Iterator[None]:
    """While something is timed: nothing is trained, and nothing else is timed.

    Not within `training`, which would be waited for.

    Args:
        folder: as of `training`.
        patience: seconds to wait for the trainings and measurements that have begun.

    Raises:
        PlaceError: when they take longer.
    """
    with _held(folder, "write", patience):
        yield


@contextmanager
def _held(folder: Path, mode: Literal["read", "write"], patience: float) -> Iterator[None]:
    # Of this call alone: threads of one process must wait for each other too.
    lock = ReadWriteLock(folder / ".quiet.lock", is_singleton=False)
    turnstile = FileLock(folder / ".turnstile.lock", is_singleton=False)
    try:
        begin = time.monotonic()
        try:
            with turnstile.acquire(timeout=patience):
                left = max(0.0, patience - (time.monotonic() - begin))
                (lock.acquire_read if mode == "read" else lock.acquire_write)(timeout=left)
        except Timeout as error:
            raise PlaceError(
                f"a training or a measurement waits at most {patience:g} s for the others in "
                f"{folder}, but one of them still goes on; end the process that was halted, then "
                "start the search again"
            ) from error
        yield
    finally:
        lock.close()
