"""An end that is asked for: a worker finishes its epoch, keeps it, and gives its claim back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class PreemptedError(Exception):
    """The process was asked to end, and what it was at is kept."""


class Stop:
    """Whether the process was asked to end."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._also: list[Callable[[], None]] = []

    def ask(self) -> None:
        """Ask it to end."""
        self._asked.set()

    @property
    def is_asked(self) -> bool:
        """Whether it was asked to."""
        return self._asked.is_set()

    def also(self, check: Callable[[], None]) -> None:
        """Let `check` raise what `check` of this raises: another reason to end."""
        self._also.append(check)

    def check(self) -> None:
        """Nothing, while nobody asked.

        Raises:
            PreemptedError: when the process was asked to end.
        """
        for check in self._also:
            check()
        if self._asked.is_set():
            raise PreemptedError("asked to end")

    def sleep(self, seconds: float) -> None:
        """Wait, or raise PreemptedError as soon as the process is asked to end."""
        self._asked.wait(seconds)
        self.check()


@contextmanager
def stopping_at_sigterm() -> Iterator[Stop]:
    """A stop that SIGTERM asks for: what Slurm, Kubernetes and `docker stop` send before they kill.

    Only in the main thread, where signals arrive; elsewhere nobody asks.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGTERM, lambda *_: stop.ask())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGTERM, before)
