"""A study folder while a command works in it: alone, and with a note of each start."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import filelock

from unetpp import provenance
from unetpp.errors import UserError
from unetpp.records import Invocation
from unetpp.training.device import machine_of


def invocation_of(device: str) -> Invocation:
    """This start of the command, on this machine."""
    return Invocation(
        command=shlex.join(["unetpp", *map(without_password, sys.argv[1:])]),
        started_at=now(),
        finished_at=None,
        revision=provenance.source_revision(),
        versions=provenance.package_versions(),
        machine=asdict(machine_of(device)),
    )


def without_password(argument: str) -> str:
    """An argument of the command as it may be stored and shown.

    A URL with a password is refused, but what was typed is noted before everything is looked at.
    """
    shown = re.sub(r"(://[^/?#\s]*?):[^/?#\s]*@", r"\1:***@", argument)
    return re.sub(r"(password|passwd|pwd|token)=[^&\s]+", r"\1=***", shown, flags=re.IGNORECASE)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a study folder, which is made where it is missing.

    Raises:
        UserError: when another is at work there, or it cannot be written.
    """
    lock = filelock.FileLock(folder / ".lock")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise UserError(
            f"one process at a time may work in a study folder, but another is at work in "
            f"{folder}; wait for it, or give another --out"
        ) from None
    except OSError as error:  # filelock.Timeout is one too, so it comes first
        raise UserError(
            f"a study folder must be writable, but {folder} is not ({error.strerror}); "
            "give another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()


def now() -> str:
    """ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")
