"""Which process holds something, and whether it is known to be dead."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict

from unetpp.stored_json import StoredJson

_PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process, so that no other one is taken for it, ever and anywhere.

    Attributes:
        host: name of its machine.
        pid: its number there.
        boot: of the machine since it was switched on; "" where the system does not tell.
        namespace: within which the number counts: containers have their own.
        started: ticks after the boot; a number is given again, but not with the same start.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    host: str
    pid: int
    boot: str
    namespace: str
    started: str

    @property
    def name(self) -> str:
        """For people: "node7:4711"."""
        return f"{self.host}:{self.pid}"

    def to_json(self) -> str:
        """All of it."""
        return _STORED.write(self)

    @staticmethod
    def from_json(text: str) -> Process:
        """What `to_json` wrote; RecordError on anything else."""
        return _STORED.read(text)


_STORED = StoredJson(Process, "the holder of a claim")


def this_process() -> Process:
    """The process that asks."""
    return _process(os.getpid())


@cache
def _process(pid: int) -> Process:
    # The number is an argument, for a forked child must not have its parent's answer.
    boot, namespace = _here()
    return Process(
        host=platform.node()[:64],
        pid=pid,
        boot=boot,
        namespace=namespace,
        started=_started(pid) or "",
    )


def is_here(process: Process) -> bool:
    """Whether it is of this machine (and container), where it can be known whether it lives."""
    boot, namespace = _here()
    return bool(boot) and (process.boot, process.namespace) == (boot, namespace)


def is_dead(process: Process) -> bool:
    """Whether it is known to have ended; False when nobody here can know."""
    if not is_here(process):
        return False
    started = _started(process.pid)
    if started is None and _is_of_others(process.pid):
        return False
    return started != process.started


def _is_of_others(pid: int) -> bool:
    """Whether another user's process has the number: /proc may not show those (hidepid)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return False


@cache
def _here() -> tuple[str, str]:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return boot, f"{(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return "", ""


def _started(pid: int) -> str | None:
    """When it started; None when it is not there, or is there only to be reaped."""
    try:
        stat = (_PROC / f"{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the name, in brackets, and may hold spaces and brackets itself.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]
