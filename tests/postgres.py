"""A real PostgreSQL in a temporary directory, on loopback alone, for tests that need a server."""

from __future__ import annotations

import os
import pwd
import random
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest


def find_postgres() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, of the newest version that is installed."""
    on_path = shutil.which("pg_ctl")
    if on_path:
        return Path(on_path).parent
    # Debian keeps them off the path, a folder for each version.
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    return found[-1].parent if found else None


needs_postgres = pytest.mark.skipif(
    find_postgres() is None, reason="PostgreSQL is not installed; .ci/run installs it as root"
)


@dataclass(frozen=True)
class Server:
    """A server that a test may stop and start."""

    programs: Path
    data: Path
    port: int
    settings: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        """Of its database, as `RecordStore` takes it."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Start it and wait until it answers."""
        # The last of several settings of a name is the one that holds: the address is ours.
        given = " ".join(f"-c {setting}" for setting in self.settings)
        fixed = f"-p {self.port} -c listen_addresses=127.0.0.1 -k {self.data}"
        options = f"-c fsync=off {given} {fixed}"
        log = f"{self.data / 'log'}"
        self._control("start", "-w", "-t", "200", "-l", log, "-o", options)

    def stop(self) -> None:
        """Stop it at once: transactions are rolled back, connections are cut."""
        self._control("stop", "-w", "-t", "200", "-m", "fast")

    def _control(self, action: str, *options: str) -> None:
        _as_postgres(self.programs / "pg_ctl", action, "-D", self.data, *options)


@contextmanager
def serving(*settings: str) -> Iterator[Server]:
    """A fresh server with an empty database; it is gone afterwards.

    Args:
        settings: of the server, "max_connections=500".
    """
    programs = find_postgres()
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="unetpp-postgres-"))
    try:
        if os.getuid() == 0:
            shutil.chown(folder, "postgres")
        data = folder / "data"
        _as_postgres(programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-N")
        server = _started(Server(programs=programs, data=data, port=0, settings=settings))
        try:
            yield server
        finally:
            if (data / "postmaster.pid").exists():
                server.stop()
    finally:
        shutil.rmtree(folder)


def _started(server: Server) -> Server:
    """On a port that no client is given by the system, also while the server is away.

    Else a client that waits for the server could have its port, even as both ends of a connection.
    """
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(given.read_text().split()[0]) if given.exists() else 32_768
    # Where clients are given almost all ports, there is nothing better than to try.
    ports = range(10_000, lowest if lowest > 12_000 else 60_000)
    tries = 20
    while True:
        placed = replace(server, port=random.SystemRandom().choice(ports))
        tries -= 1
        try:
            placed.start()
        except subprocess.CalledProcessError:
            # Somebody else listens there.
            if not tries:
                raise
        else:
            return placed


def _as_postgres(*command: str | Path) -> None:
    """PostgreSQL refuses to run as root, where tests in containers run."""
    user = "postgres" if os.getuid() == 0 else None
    group = pwd.getpwnam(user).pw_gid if user else None
    subprocess.run(
        [f"{part}" for part in command],
        check=True,
        user=user,
        group=group,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=250,
    )
