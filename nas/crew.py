"""Worker processes on this machine, and what is done when one of them dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

import torch

from nas.stopping import PreemptedError, Stop, stopping_at_sigterm
from unetpp.errors import UserError

# How often a worker that died is replaced, for each worker.
_REPLACEMENTS = 5
# What a worker may take to end its epoch when it is asked to, in seconds.
_GRACE_S = 600.0

# Works until there is nothing left to do, or raises; called in a process of its own.
Work = Callable[[Stop], None]


@contextmanager
def crew(work: Work, *, num_workers: int) -> Iterator[Callable[[], None]]:
    """Processes that do the same work, which shares itself out among them by claims.

    Args:
        work: can be pickled.
        num_workers: processes; they share the threads of this one evenly.

    Yields:
        A function that replaces those that died, and all of them when none is left and it is called
        once more. It raises UserError with the sentence of one
        that ended with it, or when too many died.
    """
    members = _Crew(work, num_workers)
    try:
        members.begin()
        yield members.look
    except PreemptedError:
        members.ask_to_end()
        raise
    finally:
        members.kill()


class _Crew:
    def __init__(self, work: Work, num_workers: int) -> None:
        self._work, self._num_workers = work, num_workers
        self._context = multiprocessing.get_context("spawn")
        self._members: dict[BaseProcess, Connection] = {}
        self._started = 0

    def begin(self) -> None:
        for _ in range(self._num_workers):
            self._start()

    def look(self) -> None:
        if not self._members:
            # All of them left, as they were asked to or saw nothing to do, and it is not all done.
            self.begin()
            return
        for process, ear in list(self._members.items()):
            if process.is_alive():
                continue
            process.join()
            del self._members[process]
            try:
                if ear.poll():
                    raise UserError(ear.recv_bytes().decode())
            except (EOFError, OSError):
                pass
            finally:
                ear.close()
            if process.exitcode != 0:
                self._start()

    def ask_to_end(self) -> None:
        for process in self._members:
            process.terminate()
        deadline = time.monotonic() + _GRACE_S
        for process in self._members:
            process.join(max(0.0, deadline - time.monotonic()))

    def kill(self) -> None:
        for process, ear in self._members.items():
            process.kill()
            process.join()
            ear.close()
        self._members.clear()

    def _start(self) -> None:
        if self._started == self._num_workers * (1 + _REPLACEMENTS):
            raise UserError(
                f"workers must live to finish a fold, but {self._started} of them were started and "
                "too many died (out of memory?); give fewer --workers, and the same command goes on"
            )
        self._started += 1
        ear, mouth = self._context.Pipe(duplex=False)
        threads = max(1, torch.get_num_threads() // self._num_workers)
        process = self._context.Process(target=_member, args=(self._work, threads, mouth))
        process.start()
        mouth.close()
        self._members[process] = ear


def _member(work: Work, num_threads: int, mouth: Connection) -> None:
    """A worker process. Ctrl-C is the parent's business: it ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(num_threads)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        with stopping_at_sigterm() as stop:
            work(stop)
    except PreemptedError:
        pass
    except UserError as error:
        mouth.send_bytes(str(error).encode())


def _end_with_parent() -> None:
    """A worker whose parent was killed must not go on in secret."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
