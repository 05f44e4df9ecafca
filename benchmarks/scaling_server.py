"""A PostgreSQL for the benchmarks of many workers, and the processor time that it takes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from tests.postgres import Server, serving

_TICKS = os.sysconf("SC_CLK_TCK")
# In the fields after a process's name: its parent; its user and system time, with that of the
# children that have ended.
_PARENT, _TIMES = 1, slice(11, 15)


@contextmanager
def server_for(num_connections: int) -> Iterator[Server]:
    """A server of the test kit, on loopback alone, that takes so many connections.

    It does not wait for the disk (fsync=off): what is asked here is what the processors do.
    """
    with serving(
        f"max_connections={num_connections}",
        "shared_buffers=512MB",
        "log_lock_waits=on",
        "deadlock_timeout=100ms",
    ) as server:
        yield server


def server_seconds(server: Server) -> float:
    """Processor time that the server has taken so far, with all of its processes."""
    main = int((server.data / "postmaster.pid").read_text().splitlines()[0])
    ticks = 0
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if main in (int(place.parent.name), int(fields[_PARENT])):
            ticks += sum(map(int, fields[_TIMES]))
    return ticks / _TICKS
